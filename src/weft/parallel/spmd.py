"""From a plan to the local program: the instructions that every rank executes.

Nodes become `Run` instructions on local types; copies become collectives. A reduction starts
as soon as its summands exist, so that it overlaps with what follows. A gather waits for its
first reader, so that it holds memory for a short time, but the gather of a weight is moved
ahead, so that it overlaps with what comes before (`prefetch`). A collective of what another one
makes is put off, so that nobody waits for the other (`chained`). Small collectives are joined into
messages (`bundle`).
"""

from __future__ import annotations

from collections.abc import Callable

from weft.core.errors import VerifyError
from weft.parallel.bundle import with_bundles
from weft.parallel.chained import put_off_chained
from weft.parallel.local import (
    Collective,
    CollectiveKind,
    Instruction,
    Lies,
    LocalInput,
    LocalProgram,
    Run,
)
from weft.parallel.placement import (
    PARTIAL_MAX,
    REPLICATED,
    Placement,
    Sharding,
    format_sharding,
    is_partial,
    local_type,
)
from weft.parallel.plan import Copy, Hop, ParallelPlan
from weft.parallel.prefetch import prefetch_weights, with_last_use
from weft.parallel.recompute import with_recompute
from weft.parallel.reshard import hop_kind
from weft.parallel.weights import weight_values
from weft.program.graph import Arg, Phase, Program, Value, map_values
from weft.program.types import TensorType

__all__ = ["localized", "lower", "lower_expanded"]


def lower(program: Program, plan: ParallelPlan) -> LocalProgram:
    """The local program of a plan.

    Args:
        program: as captured; the plan's recomputation is applied here.
        plan: made for this program.

    Raises:
        VerifyError: a reader wants a value in a sharding that no copy of the plan makes.
    """
    return lower_expanded(with_recompute(program, plan.recompute), plan)


def lower_expanded(expanded: Program, plan: ParallelPlan) -> LocalProgram:
    """`lower` for a program to which the plan's recomputation has been applied already."""
    local = put_off_chained(prefetch_weights(_Lowering(expanded, plan).run()))
    return with_last_use(with_bundles(local))


class _Lowering:
    """Accumulates instructions and slots; lives only inside `lower`."""

    def __init__(self, program: Program, plan: ParallelPlan) -> None:
        if len(plan.strategies) != len(program.nodes):
            raise VerifyError(
                need=f"a strategy for each of the {len(program.nodes)} nodes",
                got=f"{len(plan.strategies)} strategies",
                hint="plan this program again",
            )
        self._program = program
        self._plan = plan
        self._meshes = (plan.mesh, *plan.homes)
        self._slots: list[TensorType] = []
        self._lies: list[Lies] = []
        self._locals: dict[Lies, TensorType] = {}
        self._instructions: list[Instruction] = []
        self._slot: dict[tuple[Value, Sharding, int, Phase], int] = {}
        self._copies = {(c.value, c.phase, c.target, c.target_home): c for c in plan.copies}
        self._by_value: dict[Value, list[Copy]] = {}
        self._weights = weight_values(program)
        for copy in plan.copies:
            self._by_value.setdefault(copy.value, []).append(copy)

    def run(self) -> LocalProgram:
        inputs: list[LocalInput] = []
        for number, node in enumerate(self._program.nodes):
            source = self._program.input_by_node.get(number)
            if source is None:
                self._add_run(number)
            else:
                strategy = self._plan.strategies[number]
                sharding, home = strategy.outputs[0], strategy.home
                slot = self._new_slot(Lies(node.outputs[0], sharding, home))
                self._slot[Value(number), sharding, home, Phase.FORWARD] = slot
                inputs.append(LocalInput(name=source.name, slot=slot, sharding=sharding, home=home))
        whole = (-1,) * self._plan.mesh.num_axes
        loss = self._read(self._program.loss, whole, 0, Phase.FORWARD)
        names = {i.node: i.name for i in self._program.inputs}
        kept = {n: self._plan.strategies[n] for n, _ in self._program.updates}
        updates = tuple(
            (names[n], self._read(value, kept[n].outputs[0], kept[n].home, Phase.UPDATE))
            for n, value in self._program.updates
        )
        uneven = not self._plan.is_even
        return LocalProgram(
            mesh=self._plan.mesh,
            slots=tuple(self._slots),
            inputs=tuple(inputs),
            instructions=tuple(self._instructions),
            last_use=(),
            loss=loss,
            updates=updates,
            homes=self._meshes if uneven else (),
            lies=tuple(self._lies) if uneven else (),
        )

    def _new_slot(self, lies: Lies) -> int:
        local = self._locals.get(lies)
        if local is None:
            mesh = self._meshes[lies.home]
            local = self._locals[lies] = local_type(mesh, lies.sharding, lies.whole)
        self._slots.append(local)
        self._lies.append(lies)
        return len(self._slots) - 1

    def _add_run(self, number: int) -> None:
        node, strategy = self._program.nodes[number], self._plan.strategies[number]
        operands = zip(self._program.operands(number), strategy.operands, strict=True)
        home = strategy.home
        slots = iter([self._read(value, wanted, home, node.phase) for value, wanted in operands])
        args = map_values(node.args, lambda _: Value(next(slots)))
        outputs = tuple(
            self._new_slot(Lies(tensor, sharding, home))
            for tensor, sharding in zip(node.outputs, strategy.outputs, strict=True)
        )
        shapes = tuple(self._slots[slot].shape for slot in outputs)
        args = localized(node.op, args, shapes, lambda value: self._slots[value.node].shape)
        self._instructions.append(
            Run(
                node=number,
                op=node.op,
                args=args,
                outputs=outputs,
                strategy=strategy,
                phase=node.phase,
            )
        )
        for output, sharding in enumerate(strategy.outputs):
            value = Value(number, output)
            self._slot[value, sharding, home, node.phase] = outputs[output]
            self._start_copies(value, sharding, home, node.phase)

    def _start_copies(self, value: Value, made: Sharding, home: int, phase: Phase) -> None:
        """Copies that should not wait for a reader.

        They are reductions, what moves to another home, or it would queue up behind reductions
        that nobody is waiting for, and what is kept for later. What is kept of a weight waits all
        the same: the weight does not go away.
        """
        copies = self._by_value.get(value)
        if copies is None:
            return
        pending = any(is_partial(p) for p in made)
        for copy in copies:
            as_made = copy.origin == made and copy.origin_home == home
            kept = copy.kept and value not in self._weights
            leaves = copy.origin_home != copy.target_home and value not in self._weights
            if copy.phase is phase and (kept or ((pending or leaves) and as_made)):
                self._read(value, copy.target, copy.target_home, phase)
            elif phase is Phase.BACKWARD and as_made and pending:
                self._read(value, copy.target, copy.target_home, copy.phase)

    def _find(self, value: Value, sharding: Sharding, home: int, phase: Phase) -> int | None:
        """Slot of a value in a sharding: of this phase, or as made or kept in an earlier one."""
        found = self._slot.get((value, sharding, home, phase))
        if found is not None:
            return found
        strategy = self._plan.strategies[value.node]
        as_made = sharding == strategy.outputs[value.output] and home == strategy.home
        for earlier in _BEFORE[phase]:
            copy = self._copies.get((value, earlier, sharding, home))
            if as_made or (copy is not None and copy.kept):
                found = self._slot.get((value, sharding, home, earlier), found)
        if found is None and self._plan.homes and sharding[0] == REPLICATED and not as_made:
            found = self._found_elsewhere(value, sharding, home, phase)
        return found

    def _found_elsewhere(
        self, value: Value, sharding: Sharding, home: int, phase: Phase
    ) -> int | None:
        """Slot of a value that is whole on all devices of a home, and on others."""
        strategy = self._plan.strategies[value.node]
        if strategy.outputs[value.output] != sharding:
            return None
        members = self._meshes[home].members(0)
        if not set(members) <= set(self._meshes[strategy.home].members(0)):
            return None
        return self._find(value, sharding, strategy.home, phase)

    def _read(self, value: Value, wanted: Sharding, home: int, phase: Phase) -> int:
        """Slot of a value in a sharding; emits the collectives that are missing."""
        found = self._find(value, wanted, home, phase)
        if found is not None:
            return found
        copy = self._copy(value, wanted, home, phase)
        if copy is None:
            made = self._plan.strategies[value.node]
            at_home = f" at home {home}" if home or made.home else ""
            raise VerifyError(
                need=f"a copy of %{value.node} as {format_sharding(wanted)}{at_home} in "
                f"{phase.value}",
                got=f"it is made as {format_sharding(made.outputs[value.output])}"
                f"{f' at home {made.home}' if at_home else ''} and the plan has no such copy",
                hint="the plan file is damaged or was edited; plan again",
            )
        slot = self._read(value, copy.origin, copy.origin_home, copy.phase)
        lies = Lies(self._program.type_of(value), copy.origin, copy.origin_home)
        lasts = copy.kept and value in self._weights
        for hop in copy.hops:
            after = _after(lies, hop)
            known = self._slot.get((value, after.sharding, after.home, copy.phase))
            if known is None:
                known = self._add_hop(value, slot, lies, hop.axis, after, copy.phase, lasts=lasts)
            slot, lies = known, after
        return slot

    def _copy(self, value: Value, wanted: Sharding, home: int, phase: Phase) -> Copy | None:
        """The copy of this phase, or one that is kept of what was given and nobody has read yet."""
        found = self._copies.get((value, phase, wanted, home))
        given = value in self._weights or value.node in self._program.input_by_node
        if found is None and given:
            earlier = (self._copies.get((value, before, wanted, home)) for before in _BEFORE[phase])
            found = next((copy for copy in earlier if copy is not None and copy.kept), None)
        return found

    def _add_hop(
        self,
        value: Value,
        source: int,
        before: Lies,
        axis: int,
        after: Lies,
        phase: Phase,
        *,
        lasts: bool,
    ) -> int:
        left, entered = before.sharding[axis], after.sharding[axis]
        kind = CollectiveKind.MOVE if before.home != after.home else hop_kind(left, entered)
        held, wanted = (self._meshes[lies.home].members(0) for lies in (before, after))
        if kind is CollectiveKind.MOVE and left == REPLICATED and set(wanted) <= set(held):
            if entered == REPLICATED:  # it is there, under another name
                self._slot[value, after.sharding, after.home, phase] = source
                return source
            kind, before = CollectiveKind.SLICE, after
        target = self._new_slot(after)
        self._instructions.append(
            Collective(
                kind=kind,
                axis=axis,
                source=source,
                target=target,
                node=value.node,
                phase=phase,
                reduce=_reduction(left),
                source_dim=max(left, -1),
                target_dim=max(entered, -1),
                lasts=lasts,
                home=before.home,
                target_home=after.home,
            )
        )
        self._slot[value, after.sharding, after.home, phase] = target
        return target


def _after(lies: Lies, hop: Hop) -> Lies:
    """How a value lies after a hop."""
    state = lies.sharding
    entered = (*state[: hop.axis], hop.placement, *state[hop.axis + 1 :])
    return Lies(lies.whole, entered, lies.home if hop.home < 0 else hop.home)


def _reduction(left: Placement) -> str:
    if not is_partial(left):
        return ""
    return "max" if left == PARTIAL_MAX else "sum"


_BEFORE = {
    Phase.FORWARD: (),
    Phase.BACKWARD: (Phase.FORWARD,),
    Phase.UPDATE: (Phase.FORWARD, Phase.BACKWARD),
}


def localized(
    op: str,
    args: tuple[Arg, ...],
    shapes: tuple[tuple[int, ...], ...],
    shape_of: Callable[[Value], tuple[int, ...]],
) -> tuple[Arg, ...]:
    """Arguments with global sizes replaced by the sizes of the local outputs.

    Args:
        op: operator name.
        args: arguments whose values are local tensors.
        shapes: shape of each local output.
        shape_of: shape of a local tensor among the arguments.
    """
    shape = shapes[0]
    if op in ("view", "expand"):
        return (args[0], shape, *args[2:])
    if op == "slice_backward":
        local = (args[0], shape, *args[2:])
        return _whole_slice(local, 2, shape, _shape(args[0], shape_of))
    if op == "full":
        return (shape, *args[1:])
    if op == "uniform":
        return (*args[:2], shape, *args[3:])
    if op == "uniform_part":
        return (*args[:3], shape, *args[4:])
    if op == "iota":
        return (shape[0], *args[1:])
    if op == "embedding_dense_backward.default":
        return (*args[:2], shape[0], *args[3:])
    if op == "convolution_backward.default" and args[3] is not None:
        return (*args[:3], (_shape(args[0], shape_of)[1],), *args[4:])
    if op == "slice":
        return _whole_slice(args, 1, shape, _shape(args[0], shape_of))
    return args


def _shape(arg: Arg, shape_of: Callable[[Value], tuple[int, ...]]) -> tuple[int, ...]:
    if not isinstance(arg, Value):
        raise VerifyError(need="a tensor argument", got=repr(arg))
    return shape_of(arg)


def _whole_slice(
    args: tuple[Arg, ...], at: int, made: tuple[int, ...], operand: tuple[int, ...]
) -> tuple[Arg, ...]:
    """A slice along a cut dim takes all of it, so it takes all of the local rows."""
    dim = args[at]
    if isinstance(dim, int) and made[dim] == operand[dim]:
        return (*args[: at + 1], 0, made[dim], 1)
    return args
