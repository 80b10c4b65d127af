"""A given plan of one stage, as the decisions of an episode: where a search may begin.

An axis that cuts the batch and no parameter but for storage is the first one of an episode; what
inputs do along the other is shown as it is. Decisions that an episode does not offer are passed
over, so what is shown is near the plan; what its inputs say is predicted beside, and the plan
itself is proposed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from weft.core.errors import InfeasibleError, InputError, MismatchError
from weft.parallel.candidate import Candidate, Proposal, simulate_plan
from weft.parallel.dqn.environment import Observation
from weft.parallel.dqn.hybrid import MESH, ROWS, STORED, VARIABLES, Decided, HybridEnvironment
from weft.parallel.kept import require_kept
from weft.parallel.placement import REPLICATED, Placement, Sharding
from weft.parallel.plan import ParallelPlan
from weft.parallel.recompute import expand
from weft.parallel.request import PlanRequest
from weft.program.graph import Program, Role

__all__ = ["BEGUN_WITH", "Imitation", "as_proposal", "readings", "require_same_program"]


def require_same_program(plan: ParallelPlan, program: Program) -> None:
    """Check that a plan is for a program.

    Raises:
        MismatchError: it is for another one.
    """
    if plan.program_digest != program.digest:
        raise MismatchError(
            need=f"a plan of {program.name} to begin with",
            got=f"one of {plan.program_name}, or of another version of it",
            hint="plan the same recipe, with the same sizes",
        )


def readings(plan: ParallelPlan, program: Program) -> Iterator[Decided]:
    """What an agent would have decided for inputs to lie as in a plan.

    Args:
        plan: of one or two axes; others are no decisions of an episode.
        program: it is for.
    """
    origin = expand(program, plan.recompute).origin
    made = {
        node: strategy.outputs[0] for node, strategy in zip(origin, plan.strategies, strict=True)
    }
    placed = {i.node: made[i.node] for i in program.inputs}
    axes = [axis for axis, size in enumerate(plan.mesh.shape) if size > 1]
    first, second = (*(plan.mesh.shape[axis] for axis in axes), 1, 1)[:2]
    if plan.homes or plan.mesh.shares or len(axes) > 2:
        return
    if not axes:
        yield Decided(1, 1, 0, ())
        return
    if len(axes) == 1:
        yield Decided(1, first, 0, _along(placed, axes[0]))
    if _shares_batch(program, placed, axes[0]):
        later = _along(placed, axes[1]) if len(axes) == 2 else ()
        yield Decided(first, second, _stored(program, placed, axes[0]), later)


def _along(placed: Mapping[int, Sharding], axis: int) -> tuple[tuple[int, Placement], ...]:
    cut = ((node, sharding[axis]) for node, sharding in placed.items())
    return tuple(sorted((node, place) for node, place in cut if place >= 0))


def _shares_batch(program: Program, placed: Mapping[int, Sharding], axis: int) -> bool:
    batch = (i.node for i in program.inputs if i.role is Role.BATCH)
    return any(placed[node][axis] == 0 for node in batch)


def _stored(program: Program, placed: Mapping[int, Sharding], axis: int) -> int:
    """Stage of ZeRO that comes nearest to what is cut along an axis."""

    def share(role: Role) -> float:
        own = [i.node for i in program.inputs if i.role is role]
        sizes = {n: float(program.nodes[n].outputs[0].num_bytes) for n in own}
        cut = sum(size for node, size in sizes.items() if placed[node][axis] >= 0)
        return cut / max(sum(sizes.values()), 1.0)

    if share(Role.PARAMETER) > 0.5:
        return STORED[2]
    return STORED[1] if share(Role.STATE) > 0.5 else STORED[0]


@dataclass(frozen=True, slots=True)
class Imitation:
    """Decides as near to what somebody else decided as is offered.

    Attributes:
        environment: what is decided in.
        wanted: what was decided.
    """

    environment: HybridEnvironment
    wanted: Decided

    def __call__(self, observation: Observation) -> int:
        """The choice."""
        own, wanted = self.environment, self.wanted
        placed = dict(wanted.placements)
        if own.kind == MESH:
            return own.meshes.index((wanted.data, wanted.variables))
        if own.kind == ROWS:
            return int(any(node in own.batch for node in placed))
        if own.kind == VARIABLES:
            for place in (placed.get(own.offered[0].variable.node, REPLICATED), REPLICATED):
                for number, decision in enumerate(own.offered):
                    if decision.placement == place and observation.allowed[number]:
                        return number
            return int(np.flatnonzero(observation.allowed)[0])
        return STORED.index(wanted.stored)


def as_proposal(plan: ParallelPlan, request: PlanRequest) -> Proposal | None:
    """The plan itself, simulated on the machine that is planned for; None if it is no answer."""
    program, limit = request.program, request.limit_bytes
    if plan.mesh.num_devices > request.machine.num_devices:
        return None
    if request.mesh is not None and plan.mesh != request.mesh:
        return None
    expanded = expand(program, plan.recompute)
    pinning = request.pinning.through(expanded.origin, expanded.program)
    try:
        require_kept(plan.mesh, plan.strategies, plan.copies, expanded.program, pinning)
        timeline, prediction = simulate_plan(plan, program, request.machine, expanded)
    except (InputError, InfeasibleError):
        return None
    made = replace(
        plan,
        machine_name=request.machine.name,
        machine_digest=request.machine.digest,
        memory_limit_bytes=limit,
        prediction=prediction,
        alternatives=(),
        notes=(),
    )
    own = Candidate(BEGUN_WITH, made, timeline)
    return Proposal(BEGUN_WITH, prediction, limit, lambda: own, recomputes=bool(plan.recompute))


BEGUN_WITH = "the plan that the search began with"
"""Name of that plan among alternatives."""
