"""What a search over pipelines came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from weft.core.errors import InfeasibleError
from weft.core.units import format_bytes
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.plan import Alternative

__all__ = ["PipelineOutcome", "outcome_of"]

NAMED = 8
"""Pipelines that are named beside the best. Chosen: about as many as of one stage."""


@dataclass(frozen=True, kw_only=True)
class PipelineOutcome:
    """What a search over pipelines came to.

    Attributes:
        plan: the best that fits, if any.
        alternatives: the others that were worked out, best first.
        tightest: what stands in the way if none fits, in words.
        notes: lines for people.
        broken: what pins made impossible, if there is no plan and they did.
    """

    plan: PipelinePlan | None = None
    alternatives: tuple[Alternative, ...] = ()
    tightest: str = ""
    notes: tuple[str, ...] = ()
    broken: InfeasibleError | None = None


def outcome_of(
    found: Sequence[PipelinePlan], most_s: float, notes: tuple[str, ...] = ()
) -> PipelineOutcome:
    """The best of some pipelines that fits, and the others.

    Args:
        found: all of them.
        most_s: a step that is of no interest [s].
        notes: lines for people.
    """
    order = sorted(found, key=lambda plan: (not plan.fits, plan.prediction.step_s))
    best = order[0] if order and order[0].fits else None
    if best is not None and best.prediction.step_s >= most_s:
        best = None
    tightest = ""
    if order and not order[0].fits:
        smallest = min(order, key=lambda plan: plan.tightest_bytes[0])
        tightest = f"pipelines need {format_bytes(smallest.tightest_bytes[0])}"
    others = [plan for plan in order if plan is not best][:NAMED]
    return PipelineOutcome(
        plan=best, alternatives=tuple(map(_alternative, others)), tightest=tightest, notes=notes
    )


def _alternative(plan: PipelinePlan) -> Alternative:
    devices = "+".join(map(str, plan.group_devices))
    return Alternative(
        name=f"pipeline {devices}, {plan.micro_batches} micro-batches, {plan.schedule}",
        step_s=plan.prediction.step_s,
        peak_bytes=plan.tightest_bytes[0],
        fits=plan.fits,
    )
