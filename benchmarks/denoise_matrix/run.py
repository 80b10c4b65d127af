"""Whether plans are followed to the letter on every kind of pipeline: `weft bench denoise-matrix`.

Eight pipelines of diffusers' own classes with random weights (`pipelines.py` beside this) run under
every policy that can work on them (`policies.py`), each with a small relative where one is needed.
What is counted is what torch's own hooks see inside of denoisers and blocks; what is compared is
bits. Beside single runs there are pairs that take turns on one denoiser (`turns.py`) and runs that
two gloo ranks share (`shared.py`).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.denoise_matrix.cells import Cell, measured
from benchmarks.denoise_matrix.pipelines import PIPELINES
from benchmarks.denoise_matrix.policies import Case, cases, in_turns
from benchmarks.denoise_matrix.shared import Found
from benchmarks.denoise_matrix.turns import interleaved_differ
from benchmarks.job import python_path
from weft.core.errors import RunError
from weft.diffusion import MixCache, Sketch
from weft.report.bench import BenchReport, exactly, print_report
from weft.report.table import Table
from weft.runtime.launch import launch

__all__ = ["run"]

STEPS, QUICK_STEPS = 20, 8
QUICK_CALIBRATED = ("Wan 2.1", "CogVideoX")
RANKS, RANKS_TIMEOUT_S = 2, 900.0


def run(quick: bool = False) -> BenchReport:
    """Run every pipeline under every policy; `quick` takes fewer steps, and fewer plans by hand."""
    steps = QUICK_STEPS if quick else STEPS
    cells: list[Cell] = []
    touched = interleaved = pairs = 0
    for name, kind in PIPELINES.items():
        built = kind.build(steps)
        before = built()
        calibrated = not quick or name in QUICK_CALIBRATED
        for policy, case in cases(kind, built, steps, quick=quick, calibrated=calibrated):
            cells.append(measured(name, policy, kind, built, case, before))
            touched += not torch.equal(built(), before)
        for case in (
            Case(policy=in_turns(kind, steps)),
            Case(policy=MixCache()),
            Case(policy=Sketch(then=MixCache()), small=kind.relative()),
        ):
            pairs += 1
            interleaved += interleaved_differ(kind, built, case, steps)
        own = sum(cell.pipeline == name for cell in cells)
        print(f"{name}: {own} policies", file=sys.stderr, flush=True)
    shared = _shared(steps)
    shortened = [cell for cell in cells if cell.policy != "full"]
    counts = {
        "steps that computed something else than planned": sum(c.wrong for c in cells),
        "outputs and blocks computed beyond the records": sum(c.miscounted for c in cells),
        "policies that saved nothing": sum(c.work >= 1.0 for c in shortened),
        "runs that differ when repeated": sum(c.differs for c in cells),
        "pipelines that differ after restore": touched,
        "full runs that differ by a bit": sum(c.idle_differs for c in cells),
        "interleaved runs that differ from separate ones": interleaved,
        "runs on which two gloo ranks do not agree": len(shared.wrong),
    }
    return BenchReport(
        bench="denoise-matrix",
        claims=tuple(exactly(claim, count, 0) for claim, count in counts.items()),
        table=_table(cells),
        facts={
            "steps": steps,
            "pipelines": len(PIPELINES),
            "cells": len(cells),
            "interleaved_pairs": pairs,
            "shared_runs": shared.runs,
            "disagreed": shared.wrong,
        },
    )


def _shared(steps: int) -> Found:
    """What two ranks found that share runs, up to one in which they wait in vain, if there is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        command = ["-m", "benchmarks.denoise_matrix.shared", str(steps), str(path)]
        try:
            launch(command, RANKS, timeout_s=RANKS_TIMEOUT_S, env=python_path())
        except RunError as error:
            if not path.is_file():
                raise
            print(error, file=sys.stderr, flush=True)
        found = Found(**json.loads(path.read_text()))
    if found.running:
        found.wrong.append(f"{found.running}, which broke off")
    return found


def _table(cells: list[Cell]) -> Table:
    return Table(
        columns=("pipeline", "policy", "work", "small", "as planned", "repeats", "error"),
        rows=tuple(
            (
                cell.pipeline,
                cell.policy,
                f"{cell.work:.3f}",
                str(cell.small_steps),
                "yes" if not cell.wrong and not cell.miscounted else "NO",
                "NO" if cell.differs or cell.idle_differs else "yes",
                f"{cell.error:.4f}",
            )
            for cell in cells
        ),
    )


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
