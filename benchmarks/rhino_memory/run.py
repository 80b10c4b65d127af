"""Memory of a rank while it starts: `weft bench rhino-memory`.

A Llama of 7 B parameters with AdamW and float32 masters takes 81 GB of state. It is planned for 16
ranks, four stages of four that cut parameters or products; a rank of the first, of a middle and
of the last stage is started, one after the other, in a process of its own. The most memory
that it has used, above what it used before, is set beside the bytes of its part of the state.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.job import python_path
from benchmarks.rhino_memory.rank import llama
from weft.capture import capture
from weft.core.errors import RunError
from weft.core.units import format_bytes
from weft.machine.presets import preset
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.plan_files import save_plan
from weft.report.bench import BenchReport, at_most, exactly
from weft.report.table import Table

__all__ = ["run"]

SEVEN_B = {
    "num_layers": 32,
    "width": 4096,
    "num_heads": 32,
    "num_kv_heads": 32,
    "hidden": 11_008,
    "vocabulary": 32_000,
    "sequence": 2048,
}
"""Source: Touvron et al., Llama 2, arXiv 2307.09288, table 1; sizes of the 7 B model."""

SMALL = {**SEVEN_B, "num_layers": 8, "width": 2048, "num_heads": 16, "num_kv_heads": 16}
SMALL = {**SMALL, "hidden": 5504, "vocabulary": 4000}

DEGREES: Mapping[str, Mapping[str, object]] = {
    "fully sharded over 4": {"dp": 4, "fsdp": True},
    "tensor parallel over 4": {"tp": 4},
}
RANKS = {"first": 1, "middle": 6, "last": 15}
OVER_SHARD = 1.3
TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a rank used while it started [bytes], and for how long [s]."""

    plan: str
    stage: str
    peak_bytes: float
    held_bytes: float
    shard_bytes: float
    seconds: float
    built_whole: str

    @property
    def ratio(self) -> float:
        """Peak over shard."""
        return self.peak_bytes / self.shard_bytes


def run(quick: bool = False) -> BenchReport:
    """Start the ranks; `quick` takes a model of 0.4 B parameters and one plan."""
    sizes = SMALL if quick else SEVEN_B
    program = capture(llama(sizes))
    rows: list[Row] = []
    for name, degrees in list(DEGREES.items())[: 1 if quick else None]:
        plan = pipeline_expert(
            program,
            preset("dgx-h100x2"),
            pp=4,
            micro_batches=4,
            **degrees,  # pyright: ignore[reportArgumentType]
        )
        with tempfile.TemporaryDirectory(prefix="weft-bench-") as folder:
            save_plan(plan, Path(folder) / "plan.json")
            rows += [
                Row(plan=name, stage=stage, **_started(Path(folder), sizes, rank))
                for stage, rank in RANKS.items()
            ]
    return BenchReport(
        bench="rhino-memory",
        claims=(
            at_most(
                "most memory of a rank while it starts over its shard [ratio]",
                max(row.ratio for row in rows),
                OVER_SHARD,
            ),
            exactly("ranks that built the whole state", sum(bool(r.built_whole) for r in rows), 0),
        ),
        table=_table(rows),
        facts={"sizes": sizes, "rows": [_fact(row) for row in rows]},
    )


def _started(folder: Path, sizes: Mapping[str, int], rank: int) -> dict[str, Any]:
    given, out = folder / "case.json", folder / "out.json"
    about = {"sizes": sizes, "rank": rank, "plan": str(folder / "plan.json")}
    given.write_text(json.dumps(about))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.rhino_memory.rank", str(given), str(out)],
        env={**os.environ, **python_path(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode != 0:
        raise RunError(
            need=f"rank {rank} to start",
            got=f"exit {done.returncode}: {done.stderr[-500:]}",
            hint="7 B parameters need 8 GB of free memory; --quick needs 2 GB",
        )
    return json.loads(out.read_text())


def _fact(row: Row) -> dict[str, object]:
    return {
        "plan": row.plan,
        "stage": row.stage,
        "peak_bytes": row.peak_bytes,
        "held_bytes": row.held_bytes,
        "shard_bytes": row.shard_bytes,
        "seconds": row.seconds,
    }


def _table(rows: list[Row]) -> Table:
    columns = ("plan", "stage", "shard", "peak while starting", "ratio", "held after", "seconds")
    return Table(
        columns=columns,
        rows=tuple(
            (
                row.plan,
                row.stage,
                format_bytes(row.shard_bytes),
                format_bytes(row.peak_bytes),
                f"{row.ratio:.3f}",
                format_bytes(row.held_bytes),
                f"{row.seconds:.0f}",
            )
            for row in rows
        ),
    )
