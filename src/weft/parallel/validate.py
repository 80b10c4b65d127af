"""The law: what every plan, searched or written by hand, has to obey.

A plan is legal for a program if each node's strategy is what the sharding rules allow on
every mesh axis, every cut dim divides, and every reader is given the sharding it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from weft.core.errors import InfeasibleError, MismatchError, VerifyError
from weft.machine.model import Machine
from weft.parallel.kept import require_kept
from weft.parallel.local import LocalProgram
from weft.parallel.pinning import resolve
from weft.parallel.placement import PARTIAL_MAX, Mesh, Sharding, divides, format_sharding
from weft.parallel.plan import Copy, Hop, ParallelPlan, Strategy
from weft.parallel.recompute import Expanded, expand
from weft.parallel.reshard import is_hop, is_move
from weft.parallel.rules import Rule, rules
from weft.parallel.spmd import lower_expanded
from weft.parallel.strategies import fits
from weft.program.graph import Phase, Program
from weft.program.operators import Kind, operator

__all__ = ["require_machine", "require_program", "validate"]


class Planned(Protocol):
    """A plan of either kind, as far as it says what it was made for."""

    @property
    def program_name(self) -> str:
        """Name of the program."""
        ...

    @property
    def program_digest(self) -> str:
        """Digest of the program."""
        ...

    @property
    def machine_name(self) -> str:
        """Name of the machine."""
        ...

    @property
    def machine_digest(self) -> str:
        """Digest of the machine."""
        ...


def require_program(plan: Planned, program: Program) -> None:
    """Check that a plan was made for this program.

    Raises:
        MismatchError: the digests differ; names both.
    """
    if plan.program_digest != program.digest:
        raise MismatchError(
            need=f"the program the plan was made for: {plan.program_name} ({plan.program_digest})",
            got=f"{program.name} ({program.digest})",
            hint="plan again: a change of model, batch, optimizer or dtype changes the program",
        )


def require_machine(plan: Planned, machine: Machine) -> None:
    """Check that a plan was made for this machine.

    Raises:
        MismatchError: the digests differ; names both.
    """
    if plan.machine_digest != machine.digest:
        raise MismatchError(
            need=f"the machine the plan was made for: {plan.machine_name} ({plan.machine_digest})",
            got=f"{machine.name} ({machine.digest})",
            hint="plan again for this machine, or score the plan on it",
        )


def validate(plan: ParallelPlan, program: Program) -> LocalProgram:
    """Check a plan against the rules; return what each rank executes if it is legal.

    Raises:
        MismatchError: the plan was made for another program.
        VerifyError: a strategy follows no rule, a dim does not divide, a copy is missing or
            does not lead where it says, or a pin of the model's own code is not kept.
    """
    require_program(plan, program)
    if not set(plan.recompute) <= set(range(len(program.nodes))):
        raise _malformed(f"recomputation of nodes that the {len(program.nodes)} do not have")
    recomputing = expand(program, plan.recompute)
    expanded = recomputing.program
    if len(plan.strategies) != len(expanded.nodes):
        raise _malformed(f"{len(plan.strategies)} strategies for {len(expanded.nodes)} nodes")
    for number in range(len(expanded.nodes)):
        _require_form(plan, expanded, number)
    for copy in plan.copies:
        _require_way(copy, plan, expanded)
    _require_order(plan.copies)
    local = lower_expanded(expanded, plan)
    legal: dict[object, frozenset[Rule]] = {}
    for number, (node, strategy) in enumerate(zip(expanded.nodes, plan.strategies, strict=True)):
        operands = tuple(expanded.type_of(v) for v in expanded.operands(number))
        mesh = plan.mesh_of(strategy.home)
        _require(fits(mesh, strategy, operands, node.outputs), expanded, number, strategy, "divide")
        if operator(node.op).kind is Kind.INPUT:
            whole = all(p >= -1 for p in strategy.outputs[0])
            _require(whole, expanded, number, strategy, "hold whole values in inputs")
            continue
        key = (node.op, node.args, operands, node.outputs)
        if key not in legal:
            legal[key] = frozenset(rules(node.op, node.args, operands, node.outputs))
        for axis in range(plan.mesh.num_axes):
            rule = Rule(
                outputs=tuple(s[axis] for s in strategy.outputs),
                operands=tuple(s[axis] for s in strategy.operands),
            )
            _require(
                rule in legal[key], expanded, number, strategy, f"follow a rule on axis {axis}"
            )
    _require_own_pins(plan, program, recomputing)
    return local


def _require_own_pins(plan: ParallelPlan, program: Program, recomputing: Expanded) -> None:
    """Check the pins that the model's own code has."""
    expanded = recomputing.program
    pinning = resolve(program).through(recomputing.origin, expanded)
    try:
        require_kept(plan.mesh, plan.strategies, plan.copies, expanded, pinning)
    except InfeasibleError as error:
        raise VerifyError(need=error.need, got=error.got, hint="plan again") from error


def _malformed(found: str) -> VerifyError:
    return VerifyError(
        need="a strategy for each node and shardings over the axes of the mesh",
        got=found,
        hint="the plan file is damaged or was edited; plan again",
    )


def _require_form(plan: ParallelPlan, program: Program, number: int) -> None:
    """Check that a strategy has a sharding for each tensor, and each a placement for each axis."""
    node, strategy = program.nodes[number], plan.strategies[number]
    if not 0 <= strategy.home <= len(plan.homes):
        raise _malformed(f"%{number} {node.op} at home {strategy.home} of {len(plan.homes)}")
    operands = [program.type_of(value) for value in program.operands(number)]
    shardings = (*strategy.outputs, *strategy.operands)
    ranks = [len(tensor.shape) for tensor in (*node.outputs, *operands)]
    matches = len(strategy.outputs) == len(node.outputs) and len(shardings) == len(ranks)
    if not matches or not all(
        _has_form(sharding, plan.mesh, rank)
        for sharding, rank in zip(shardings, ranks, strict=True)
    ):
        raise _malformed(f"%{number} {node.op} with {len(shardings)} shardings: {strategy}")


def _has_form(sharding: Sharding, mesh: Mesh, rank: int) -> bool:
    return len(sharding) == mesh.num_axes and all(PARTIAL_MAX <= p < rank for p in sharding)


def _require_order(copies: Sequence[Copy]) -> None:
    """Check that copies are made of what is made before them, in this phase or kept from one."""
    by_end = {(copy.value, copy.phase, copy.target, copy.target_home): copy for copy in copies}

    def before(copy: Copy) -> Copy | None:
        same = by_end.get((copy.value, copy.phase, copy.origin, copy.origin_home))
        if same is not None:
            return same
        phases = tuple(Phase)
        earlier = phases[: phases.index(copy.phase)]
        ends = ((copy.value, phase, copy.origin, copy.origin_home) for phase in reversed(earlier))
        found = map(by_end.get, ends)
        return next((other for other in found if other is not None and other.kept), None)

    for copy in copies:
        passed, here = {(copy.phase, copy.target, copy.target_home)}, copy
        while (source := before(here)) is not None:
            end = (source.phase, source.target, source.target_home)
            if end in passed:
                raise _malformed(f"copies of %{copy.value.node} that are made of one another")
            passed.add(end)
            here = source


def _require_way(copy: Copy, plan: ParallelPlan, program: Program) -> None:
    """Check that a copy's hops are collectives that lead from its origin to its target."""
    value = copy.value
    known = 0 <= value.node < len(program.nodes) and 0 <= value.output < len(
        program.nodes[value.node].outputs
    )
    if not known or not _leads(copy, plan, program.type_of(value).shape):
        raise VerifyError(
            need=f"hops from {format_sharding(copy.origin)} to {format_sharding(copy.target)}",
            got=f"a copy of %{value.node} whose {len(copy.hops)} hops do not lead there",
            hint="the plan file is damaged or was edited; plan again",
        )


def _leads(copy: Copy, plan: ParallelPlan, shape: tuple[int, ...]) -> bool:
    if not all(_has_form(end, plan.mesh, len(shape)) for end in (copy.origin, copy.target)):
        return False
    homes = (copy.origin_home, copy.target_home, *(hop.home for hop in copy.hops))
    if not all(-1 <= home <= len(plan.homes) for home in homes) or min(homes[:2]) < 0:
        return False
    state, home = copy.origin, copy.origin_home
    for hop in copy.hops:
        moves = hop.home not in (-1, home)
        legal = is_move(state, hop) if moves else _is_hop(state, hop)
        if not legal:
            return False
        state = (*state[: hop.axis], hop.placement, *state[hop.axis + 1 :])
        home = hop.home if moves else home
    arrived = (state, home) == (copy.target, copy.target_home)
    return arrived and divides(plan.mesh_of(home), state, shape)


def _is_hop(state: Sharding, hop: Hop) -> bool:
    return 0 <= hop.axis < len(state) and is_hop(state, hop.axis, hop.placement)


def _require(holds: bool, program: Program, number: int, strategy: Strategy, law: str) -> None:
    if holds:
        return
    node = program.nodes[number]
    made = " and ".join(format_sharding(s) for s in strategy.outputs)
    read = "; ".join(format_sharding(s) for s in strategy.operands)
    raise VerifyError(
        need=f"strategies that {law}",
        got=f"%{number} {node.op} {node.scope} {node.source}: makes {made}, reads {read}",
        hint="the plan file is damaged or was edited; plan again",
    )
