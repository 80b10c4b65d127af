"""Pipelines on gloo ranks of this host: `weft bench rhino-run`.

Models whose stages are joined by more than one tensor among them, under all four schedules, with
tensor and fully sharded parallelism inside stages. In float32 with SGD and momentum, losses and
momentum buffers, which are sums of gradients, are compared with one process over ten steps.
Then the demo's model runs on two ranks under each schedule, and the share of time in which ranks
wait is compared with what the simulator says on this host as it was probed.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.job import python_path
from benchmarks.rhino_run.rank import workload_for
from weft.capture import capture
from weft.machine.model import Machine
from weft.machine.presets import preset
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.pipeline.serialize import pipeline_to_json
from weft.report.bench import BenchReport, at_most
from weft.report.table import Table
from weft.runtime import launch, probe

__all__ = ["run"]

STEPS = 10
RELATIVE = 1e-5
POINTS = 0.10
TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A recipe under the degrees of a pipeline."""

    name: str
    recipe: str
    degrees: Mapping[str, object]

    @property
    def ranks(self) -> int:
        """How many processes it takes."""
        sizes = (self.degrees.get(key, 1) for key in ("pp", "dp", "tp"))
        number = 1
        for size in sizes:
            assert isinstance(size, int)
            number *= size
        return number


def _case(name: str, recipe: str, **degrees: object) -> Case:
    return Case(name=name, recipe=recipe, degrees=degrees)


EQUAL = (
    _case("U-Net", "unet.py:unet_tiny", pp=2, micro_batches=4),
    _case("U-Net", "unet.py:unet_tiny", pp=4, micro_batches=4, schedule="gpipe"),
    _case("encoder-decoder", "translator.py:translator_tiny", pp=2, micro_batches=4),
    _case(
        "encoder-decoder",
        "translator.py:translator_tiny",
        pp=2,
        chunks=2,
        micro_batches=4,
        schedule="interleaved",
    ),
    _case("GPT with dropout", "gpt.py:gpt_small", pp=2, micro_batches=4, schedule="zero-bubble"),
    _case("GPT", "gpt.py:gpt_tiny", pp=2, tp=2, micro_batches=4),
    _case("GPT", "gpt.py:gpt_tiny", pp=2, dp=2, fsdp=True, micro_batches=2),
    _case("Llama", "llama3.py:llama_tiny", pp=2, tp=2, sp=True, micro_batches=4),
    _case("GPT, fused projection", "gpt_fused.py:gpt_fused_tiny", pp=2, tp=2, micro_batches=4),
    _case("T5", "t5.py:t5_tiny", pp=2, dp=2, zero=1, micro_batches=2),
    _case("ViT, layers run again", "vit.py:vit_tiny", pp=2, micro_batches=4, recompute="full"),
)
WAITING = (
    _case("GPT", "gpt.py:gpt_demo", pp=2, micro_batches=4, schedule="gpipe"),
    _case("GPT", "gpt.py:gpt_demo", pp=2, micro_batches=4),
    _case("GPT", "gpt.py:gpt_demo", pp=2, micro_batches=8),
    _case("GPT", "gpt.py:gpt_demo", pp=2, micro_batches=4, schedule="zero-bubble"),
    _case("GPT", "gpt.py:gpt_demo", pp=2, chunks=3, micro_batches=4, schedule="interleaved"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a case did: differences from one process, and the share of time that ranks waited."""

    case: Case
    plan: PipelinePlan
    loss: float | None
    gradient: float | None
    waited: float


def run(quick: bool = False) -> BenchReport:
    """Compare and measure; `quick` does the first case of each kind."""
    load = os.getloadavg()[0]
    equal, waiting = (EQUAL[:1], WAITING[:1]) if quick else (EQUAL, WAITING)
    machine = probe(2, seconds=6.0 if quick else 20.0)
    same = [_ran(case, preset("dgx-h100x1"), STEPS, plain=True) for case in equal]
    timed = [_ran(case, machine, 4 if quick else 8, plain=False) for case in waiting]
    off = [abs(row.waited - row.plan.prediction.bubble) for row in timed]
    return BenchReport(
        bench="rhino-run",
        claims=(
            at_most(
                "largest relative difference of a loss, float32",
                max(row.loss or 0.0 for row in same),
                RELATIVE,
            ),
            at_most(
                "largest relative difference of a gradient, float32",
                max(row.gradient or 0.0 for row in same),
                RELATIVE,
            ),
            at_most("bubble, predicted against measured, farthest [share]", max(off), POINTS),
        ),
        table=_table(same, timed),
        facts={
            "rows": [_fact(row) for row in (*same, *timed)],
            # Processes that others ran: figures from a busy host say little.
            "load_before": load,
        },
    )


def _ran(case: Case, machine: Machine, steps: int, *, plain: bool) -> Row:
    program = capture(workload_for(case.recipe, plain=plain))
    plan = pipeline_expert(program, machine, **case.degrees)  # pyright: ignore[reportArgumentType]
    with tempfile.TemporaryDirectory(prefix="weft-bench-") as name:
        given, out = Path(name) / "case.json", Path(name) / "out.json"
        about = {
            "recipe": case.recipe,
            "plain": plain,
            "steps": steps,
            "plan": pipeline_to_json(plan),
        }
        given.write_text(json.dumps(about))
        command = ["-m", "benchmarks.rhino_run.rank", str(given), str(out)]
        launch(command, case.ranks, timeout_s=TIMEOUT_S, env=python_path())
        found = json.loads(out.read_text())
    return Row(
        case=case,
        plan=plan,
        loss=found.get("loss"),
        gradient=found.get("gradient"),
        waited=found["waited"],
    )


def _fact(row: Row) -> dict[str, object]:
    return {
        "recipe": row.case.recipe,
        "degrees": dict(row.case.degrees),
        "loss": row.loss,
        "gradient": row.gradient,
        "bubble_predicted": None if row.gradient is not None else row.plan.prediction.bubble,
        "bubble_measured": None if row.gradient is not None else row.waited,
    }


def _table(same: list[Row], timed: list[Row]) -> Table:
    def degrees(case: Case) -> str:
        return ", ".join(f"{k} {v}" for k, v in case.degrees.items() if k != "schedule")

    def shown(row: Row, *figures: str) -> tuple[str, ...]:
        schedule = str(row.case.degrees.get("schedule", "1f1b"))
        return (row.case.name, schedule, degrees(row.case), *figures)

    rows = [shown(r, f"{r.loss:.1e}", f"{r.gradient:.1e}", "", "") for r in same]
    rows += [shown(r, "", "", f"{r.plan.prediction.bubble:.0%}", f"{r.waited:.0%}") for r in timed]
    return Table(
        columns=(
            "model",
            "schedule",
            "degrees",
            "loss off",
            "gradient off",
            "bubble predicted",
            "measured",
        ),
        rows=tuple(rows),
    )
