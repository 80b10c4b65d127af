"""A pipeline under a policy: what was computed, whether it was planned, whether it is repeated."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.denoise_matrix.pipelines import Built, Kind
from benchmarks.denoise_matrix.policies import ROWS, Case
from benchmarks.denoise_matrix.rows import Rows, rows_computed
from weft.diffusion import Mode, Model, Report, StepPlan, accelerate, report, restore
from weft.diffusion.record import Run, StepRecord

__all__ = ["Cell", "measured", "misses"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What was found.

    Attributes:
        pipeline, policy: which.
        work: blocks computed, over those of all steps in full.
        small_steps: those that the small model did, or took part in.
        wrong: steps that computed something else than the plan says.
        miscounted: outputs and rows of blocks that torch's hooks saw beyond those of the records.
        differs: whether a second run made other bits, or the plans that were taken did, each row's
            by itself.
        error: distance from the full run [relative].
        idle_differs: whether a run in which everything is computed differs by a bit from one
            without hooks.
    """

    pipeline: str
    policy: str
    work: float
    small_steps: int
    wrong: int
    miscounted: int
    differs: bool
    error: float
    idle_differs: bool


def measured(name: str, policy: str, kind: Kind, built: Built, case: Case, exact: Tensor) -> Cell:
    """Run a case twice, and the plans that it took.

    Args:
        name: of the pipeline.
        policy: its name in the table.
        kind, built: the pipeline.
        case: the policy.
        exact: what the pipeline makes without hooks.
    """
    accelerate(built.pipe, policy=case.policy, sketch_to=case.small, by_rows=case.by_rows)
    try:
        learning = _called(built, case) if case.learns else exact
        with report(built.pipe) as found, _counted(built, case) as counts:
            first = _called(built, case)
        with report(built.pipe) as again:
            second = _called(built, case)
    finally:
        restore(built.pipe)
    replayed = torch.cat([_replayed(built, case, run, row) for row, run in enumerate(found.runs)])
    work = sum(run.work for run in found.runs) / len(found.runs)
    error = float((first[:1] - exact).norm() / exact.norm())
    return Cell(
        pipeline=name,
        policy=policy,
        work=work,
        small_steps=sum(step.done.model is Model.SMALL for step in _steps(found)),
        wrong=sum(misses(run, case.planned, kind) for run in found.runs),
        miscounted=_miscounted(_steps(found), *counts),
        differs=not (torch.equal(first, second) and torch.equal(first, replayed))
        or [run.plan for run in found.runs] != [run.plan for run in again.runs]
        or len(found.runs) != (ROWS if case.by_rows else 1),
        error=error,
        idle_differs=not torch.equal(learning, exact) or (work == 1.0 and error > 0.0),
    )


def _called(built: Built, case: Case) -> Tensor:
    return built.rows(ROWS) if case.by_rows else built()


def _steps(found: Report) -> list[StepRecord]:
    return [step for run in found.runs for step in run.steps]


def _replayed(built: Built, case: Case, taken: Run, row: int) -> Tensor:
    """The plan that a run took, without whoever decided, and each row by itself."""
    accelerate(built.pipe, policy=taken.plan, sketch_to=case.small)
    try:
        return built(seed=row)
    finally:
        restore(built.pipe)


@contextmanager
def _counted(built: Built, case: Case) -> Generator[tuple[Rows, Rows]]:
    """What the large denoisers and the small one compute."""
    small = [] if case.small is None else [case.small]
    with rows_computed(built.denoisers()) as large, rows_computed(small) as own:
        yield large, own


def _miscounted(steps: Sequence[StepRecord], large: Rows, small: Rows) -> int:
    wrong = 0
    for model, rows in ((Model.LARGE, large), (Model.SMALL, small)):
        own = [step for step in steps if step.done.model is model]
        wrong += abs(rows.outputs - sum(step.outputs for step in own))
        wrong += abs(rows.blocks - sum(step.blocks for step in own))
    return wrong


def misses(run: Run, planned: Sequence[StepPlan] | None, kind: Kind) -> int:
    """Steps that computed something else than the plan says.

    What cannot be predicted yet is computed in full. In a plan that is known beforehand that may
    befall only the first steps of further experts.

    Args:
        run: what was done.
        planned: what should have been; None for what the run says that it was.
        kind: of the pipeline.
    """
    every = zip(planned or run.plan.steps, run.steps, strict=True)
    forced = sum(bool(step.why) for step in run.steps)
    excess = 0 if planned is None else max(0, forced - (kind.experts - 1))
    return excess + sum(_is_wrong(own, step, kind) for own, step in every)


def _is_wrong(planned: StepPlan, step: StepRecord, kind: Kind) -> bool:
    done = step.done
    if step.why:
        planned = StepPlan(model=done.model)
    outputs = 2 if kind.guided else 1
    computed = {
        Mode.FULL: outputs,
        Mode.STEP: 0,
        Mode.CFG: 1,
        Mode.BLOCK: outputs,
        Mode.MIXED: 1,
    }[planned.mode]
    blocks = kind.blocks if planned.model is Model.LARGE else kind.small_blocks
    if planned.blocks is not None:
        blocks -= planned.blocks[1] - planned.blocks[0]
    return (
        (done.mode, done.model) != (planned.mode, planned.model)
        or step.outputs != computed
        or step.blocks != computed * blocks
    )
