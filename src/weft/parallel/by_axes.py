"""A plan from the rules of each mesh axis, as hand-written and foreign plans are made."""

from __future__ import annotations

from collections.abc import Sequence

from weft.machine.model import Machine
from weft.parallel.candidate import Candidate, assemble
from weft.parallel.copies import Decision, copies_for, recomputed
from weft.parallel.kept import require_kept
from weft.parallel.pinning import Pinning
from weft.parallel.plan import Level
from weft.parallel.propagate import AxisRules, combine, grid
from weft.parallel.recompute import Expanded
from weft.parallel.reshard import Resharding
from weft.program.graph import Program, Value

__all__ = ["candidate_by_axes"]


def candidate_by_axes(
    name: str,
    program: Program,
    machine: Machine,
    axes: Sequence[AxisRules],
    *,
    lasting: frozenset[Value],
    expanded: Expanded,
    pinning: Pinning,
    memory_limit_bytes: float,
) -> Candidate:
    """The plan, simulated.

    Args:
        name: what people call it.
        program: as captured.
        machine: where it runs.
        axes: rules of each mesh axis, outermost first, for the nodes of the program.
        lasting: values whose copies for the forward pass stay for all of the step.
        expanded: the program with recomputation applied.
        pinning: what is pinned in the expanded program.
        memory_limit_bytes: limit of one device [bytes].

    Raises:
        InfeasibleError: the plan would not keep a pin.
    """
    mesh = grid(axes)
    decision = Decision(combine(axes), {}, lasting)
    if expanded.chosen:
        decision = recomputed(decision, program, expanded)
    copies = copies_for(expanded.program, decision, Resharding(machine, mesh))
    require_kept(mesh, decision.strategies, copies, expanded.program, pinning)
    return assemble(
        name,
        program,
        machine,
        mesh,
        decision.strategies,
        copies,
        memory_limit_bytes=memory_limit_bytes,
        recompute=expanded.chosen,
        expanded=expanded,
        level=Level.EXPERT,
    )
