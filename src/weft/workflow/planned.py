"""A plan together with what it was made for, which is what people look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weft.cost.timeline import Timeline
    from weft.machine.model import Machine
    from weft.parallel.pipeline.plan import PipelinePlan
    from weft.parallel.plan import ParallelPlan
    from weft.program.graph import Program

__all__ = ["Planned", "PlannedPipeline", "explain_plan", "timeline_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan, its program and its machine.

    Attributes:
        plan: the decision.
        program: what it is for, as captured.
        machine: what it is for.
        capture_s: time that capture took [s]; 0 where the program was read from a file.
    """

    plan: ParallelPlan
    program: Program
    machine: Machine
    capture_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPipeline:
    """The plan of a pipeline, its program and its machine; fields as those of `Planned`."""

    plan: PipelinePlan
    program: Program
    machine: Machine
    capture_s: float = 0.0


def timeline_of(planned: Planned) -> Timeline:
    """The simulated step: the plan is lowered, and what it becomes is priced.

    Raises:
        VerifyError: the plan is not legal for the program.
    """
    from weft.parallel.candidate import simulate_plan

    return simulate_plan(planned.plan, planned.program, planned.machine)[0]


def explain_plan(planned: Planned | PlannedPipeline) -> str:
    """The plan in words, numbers first, with the alternatives that lost."""
    from weft.parallel.explaining import explain

    return explain(planned.plan, planned.program, planned.machine)
