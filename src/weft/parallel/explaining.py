"""Plans of both kinds in words, through one door."""

from __future__ import annotations

from weft.machine.model import Machine
from weft.parallel import explanation
from weft.parallel.pipeline.explanation import explain_pipeline
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.plan import ParallelPlan
from weft.program.graph import Program

__all__ = ["explain"]


def explain(plan: ParallelPlan | PipelinePlan, program: Program, machine: Machine) -> str:
    """Say why a plan is what it is.

    Args:
        plan: made for this program and machine, of one stage or of several.
        program: as captured.
        machine: where it runs.

    Returns:
        Lines of text, the first of which says the result.

    Raises:
        MismatchError: the plan was made for another program or another machine.
    """
    if isinstance(plan, PipelinePlan):
        return explain_pipeline(plan, program, machine)
    return explanation.explain(plan, program, machine)
