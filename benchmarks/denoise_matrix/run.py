"""Whether plans are followed to the letter on every kind of pipeline: `weft bench denoise-matrix`.

Eight pipelines of diffusers' own classes with random weights (`pipelines.py` beside this) run under
every kind of plan. What is counted is what torch's own hooks see inside of the blocks; what is
compared is bits.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.denoise_matrix.pipelines import PIPELINES, Built, Kind
from benchmarks.denoise_matrix.rows import rows_computed
from weft.diffusion import (
    DenoisePlan,
    MixCache,
    Mode,
    Predictor,
    StepPlan,
    Weights,
    accelerate,
    report,
    restore,
)
from weft.diffusion.policy import Policy
from weft.diffusion.record import Run, StepRecord
from weft.report.bench import BenchReport, exactly, print_report
from weft.report.table import Table

__all__ = ["run"]

STEPS, QUICK_STEPS = 20, 8
FULL = StepPlan()
WEIGHTS = Weights(outputs=(-0.9, 1.8), offsets=(0.1, -0.6, 1.4), blocks=(0.3, 0.7))
"""Of no model: any will do to count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A pipeline under a policy.

    Attributes:
        pipeline, policy: which.
        work: blocks computed, over those of all steps in full.
        wrong: steps that computed something else than the plan says.
        miscounted: rows that torch's hooks saw beyond those that the records tell.
        differs: whether a second run made other bits, or the plan that was taken did.
        error: distance from the full run [relative].
    """

    pipeline: str
    policy: str
    work: float
    wrong: int
    miscounted: int
    differs: bool
    error: float


def run(quick: bool = False) -> BenchReport:
    """Run every pipeline under every policy; `quick` takes fewer steps."""
    steps = QUICK_STEPS if quick else STEPS
    cells: list[Cell] = []
    touched = 0
    for name, kind in PIPELINES.items():
        built = kind.build(steps)
        before = built()
        every = policies(kind, steps)
        for policy, made in every.items():
            cells.append(_cell(name, policy, kind, built, made, before))
            touched += not torch.equal(built(), before)
        print(f"{name}: {len(every)} policies", file=sys.stderr, flush=True)
    return BenchReport(
        bench="denoise-matrix",
        claims=(
            exactly(
                "steps that computed something else than planned", sum(c.wrong for c in cells), 0
            ),
            exactly("rows computed beyond the records", sum(c.miscounted for c in cells), 0),
            exactly("runs that differ when repeated", sum(c.differs for c in cells), 0),
            exactly("pipelines that differ after restore", touched, 0),
            exactly(
                "full plans that change a bit", sum(c.error > 0 for c in cells if c.work == 1), 0
            ),
        ),
        table=_table(cells),
        facts={"steps": steps, "pipelines": len(PIPELINES), "cells": len(cells)},
    )


def policies(kind: Kind, steps: int) -> Mapping[str, Policy | DenoisePlan]:
    """Every policy that can work on a kind of pipeline."""
    blocks = (1, kind.blocks - 1)
    shortcuts = {
        f"{mode.value} {predictor.value}": StepPlan(
            mode=mode,
            predictor=predictor,
            blocks=blocks if mode is Mode.BLOCK else None,
            weights=WEIGHTS if predictor is Predictor.FITTED else None,
        )
        for mode in Mode
        if mode not in (Mode.FULL, Mode.MIXED) and (mode is not Mode.CFG or kind.guided)
        for predictor in Predictor
    }
    plans: dict[str, Policy | DenoisePlan] = {
        name: DenoisePlan(
            steps=tuple(own if n >= 3 and n % 3 and n < steps - 1 else FULL for n in range(steps)),
            policy=name,
        )
        for name, own in shortcuts.items()
    }
    mixed = list(shortcuts.values())
    plans["all in turns"] = DenoisePlan(
        steps=tuple(mixed[n % len(mixed)] if n >= 3 and n % 2 else FULL for n in range(steps))
    )
    return {"full": DenoisePlan(steps=(FULL,) * steps), **plans, "MixCache": MixCache()}


def _cell(
    name: str, policy: str, kind: Kind, built: Built, made: Policy | DenoisePlan, exact: Tensor
) -> Cell:
    accelerate(built.pipe, policy=made)
    try:
        with report(built.pipe) as found, rows_computed(built.pipe) as rows:
            first = built()
        with report(built.pipe) as again:
            second = built()
    finally:
        restore(built.pipe)
    (taken,) = found.runs
    replayed = _replayed(built, taken)
    is_same = torch.equal(first, second) and torch.equal(first, replayed)
    planned = made.steps if isinstance(made, DenoisePlan) else taken.plan.steps
    return Cell(
        pipeline=name,
        policy=policy,
        work=taken.work,
        wrong=sum(map(_is_wrong, planned, taken.steps, [kind] * len(planned))),
        miscounted=abs(sum(rows) - sum(step.blocks for step in taken.steps)),
        differs=not is_same or taken.plan != again.runs[0].plan,
        error=float((first - exact).norm() / exact.norm()),
    )


def _replayed(built: Built, taken: Run) -> Tensor:
    accelerate(built.pipe, policy=taken.plan)
    try:
        return built()
    finally:
        restore(built.pipe)


def _is_wrong(planned: StepPlan, step: StepRecord, kind: Kind) -> bool:
    outputs = 2 if kind.guided else 1
    own = Mode.FULL if step.why else planned.mode
    computed = {Mode.FULL: outputs, Mode.STEP: 0, Mode.CFG: 1, Mode.BLOCK: outputs}[own]
    left = planned.blocks[1] - planned.blocks[0] if own is Mode.BLOCK and planned.blocks else 0
    return step.outputs != computed or step.blocks != computed * (kind.blocks - left)


def _table(cells: list[Cell]) -> Table:
    return Table(
        columns=("pipeline", "policy", "work", "as planned", "repeats", "error"),
        rows=tuple(
            (
                cell.pipeline,
                cell.policy,
                f"{cell.work:.3f}",
                "yes" if not cell.wrong and not cell.miscounted else "NO",
                "NO" if cell.differs else "yes",
                f"{cell.error:.4f}",
            )
            for cell in cells
        ),
    )


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
