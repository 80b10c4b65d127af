"""Plans whose nodes live at several homes: on some of the devices, with parts of their own.

Along the first axis every node does what data parallelism has it do: it works on rows of the batch,
holds a parameter whole, or makes a summand of a gradient. Its home says on which devices, and how
many rows each of them has. What follows is written here: what moves from home to home, and where
sums end. A parameter whose home is one device is served: its readers' devices get it from there,
and send it their gradients.

Some layers may be cut instead (`weft.parallel.wide`), among the devices of their home in equal
parts, whatever the homes of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import gcd

from weft.core.errors import InputError
from weft.machine.model import Machine
from weft.parallel.candidate import Candidate, assemble
from weft.parallel.degrees import Degrees
from weft.parallel.factors import gradient_products
from weft.parallel.pinning import resolve
from weft.parallel.placement import PARTIAL_MAX, REPLICATED, Mesh, Sharding, is_partial
from weft.parallel.plan import Copy, Hop, Level, Strategy
from weft.parallel.propagate import combine, grid
from weft.parallel.proportions import units_of
from weft.parallel.reshard import HopTable, Resharding
from weft.parallel.rows import batch_rows
from weft.parallel.schemes import Schemes
from weft.parallel.wide import Ways
from weft.program.graph import Phase, Program, Value

__all__ = ["Homes", "plan_by_homes"]


@dataclass(frozen=True, kw_only=True)
class Homes:
    """Where each node of a program lives.

    Attributes:
        layouts: shares of the batch by place along the first axis, with 0 for places where nothing
            is; each sums up to a divisor of the batch's rows, or is at one place alone.
        home: for each node of the program a number among them.
        tensor: devices of each place, which cut products between them.
        factors: parameters, by node, whose gradients every device makes whole from gathered
            factors (see `weft.parallel.factors`).
        cut: what layers do along the first axis that do not share out rows, by the node of their
            weights.
    """

    layouts: tuple[tuple[int, ...], ...]
    home: tuple[int, ...]
    tensor: int = 1
    factors: frozenset[int] = frozenset()
    cut: Mapping[int, Ways] = field(default_factory=dict[int, Ways])


def plan_by_homes(
    name: str,
    program: Program,
    machine: Machine,
    homes: Homes,
    *,
    memory_limit_bytes: float,
    schemes: Schemes | None = None,
) -> Candidate:
    """The plan, simulated.

    Args:
        name: what people call it.
        program: one training step.
        machine: where it runs.
        homes: where each node lives.
        memory_limit_bytes: limit of one device [bytes].
        schemes: of the program, if the caller has them.

    Raises:
        InputError: the homes do not fit the machine, or the rows do not divide.
        InfeasibleError: the program has pins, which such a plan does not look at.
    """
    _require_fit(homes, program, machine)
    _require_no_pins(program)
    units = units_of(batch_rows(program))
    schemes = Schemes(program) if schemes is None else schemes
    whole = {p.node for p in gradient_products(program) if p.parameter in homes.factors}
    axes, _ = schemes.axes(Degrees(dp=units, tp=homes.tensor), frozenset(whole))
    inner = grid(axes).shape[1:] if len(axes) > 1 else ()
    shape = (machine.num_devices // homes.tensor, *inner)
    meshes = [Mesh.uneven(shape, layout) for layout in homes.layouts]
    numbered = _numbered(meshes, shape)
    strategies = [
        replace(strategy, home=numbered.index[homes.home[node]])
        for node, strategy in enumerate(combine(axes))
    ]
    for layout, ways in _cut_at(homes).items():
        for node, strategy in _cut_nodes(schemes, sum(map(bool, homes.layouts[layout])), ways):
            strategies[node] = replace(strategy, home=numbered.index[layout])
    _settle_sums(program, strategies)
    copies = _Copies(program, strategies, machine, numbered.meshes).all()
    return assemble(
        name,
        program,
        machine,
        numbered.meshes[0],
        strategies,
        copies,
        memory_limit_bytes=memory_limit_bytes,
        level=Level.EXPERT,
        homes=numbered.meshes[1:],
    )


def _require_fit(homes: Homes, program: Program, machine: Machine) -> None:
    places, rest = divmod(machine.num_devices, homes.tensor)
    rows = batch_rows(program)
    sound = not rest and len(homes.home) == len(program.nodes)
    sound = sound and set(homes.home) <= set(range(len(homes.layouts)))
    for layout in homes.layouts:
        common = gcd(*layout)
        sound = sound and len(layout) == places and min(layout) >= 0 and common > 0
        sound = sound and rows % (sum(layout) // common) == 0
    for layout in {homes.home[node] for node in homes.cut} if sound else ():
        parts = [share for share in homes.layouts[layout] if share]
        sound = sound and homes.tensor == 1 and len(set(parts)) == 1 < len(parts)
    if not sound:
        raise InputError(
            need=f"a home for each of {len(program.nodes)} nodes, each with a share for each place "
            f"of {machine.name}, that divide the {rows} rows of the batch",
            got=f"{len(homes.home)} nodes, layouts {homes.layouts[:4]}, {homes.tensor} devices a "
            "place",
            hint="shares sum up to a divisor of the rows, or are all at one place; layers are cut "
            "where several places of one device have as much",
        )


def _cut_nodes(
    schemes: Schemes, members: int, ways: Mapping[int, Ways]
) -> Iterator[tuple[int, Strategy]]:
    """What nodes do that do not share out rows because some layers are cut."""
    plain, _ = schemes.axes(Degrees(dp=members))
    cut, _ = schemes.axes(Degrees(tp=members, wide=True), wide=ways)
    for node, (before, after) in enumerate(zip(combine(plain), combine(cut), strict=True)):
        if before != after:
            yield node, after


def _cut_at(homes: Homes) -> dict[int, dict[int, Ways]]:
    """Layers that are cut, by the layout of their home."""
    found: dict[int, dict[int, Ways]] = {}
    for node, ways in homes.cut.items():
        found.setdefault(homes.home[node], {})[node] = ways
    return found


def _require_no_pins(program: Program) -> None:
    if resolve(program).values:
        raise InputError(
            need="a program without pins for a plan by homes",
            got=f"pins in {program.name}",
            hint="use another planner, or drop the pins",
        )


@dataclass(frozen=True)
class _Numbered:
    """Meshes by number of home, the first of all devices; and the number of each layout."""

    meshes: tuple[Mesh, ...]
    index: tuple[int, ...]


def _numbered(meshes: Sequence[Mesh], shape: tuple[int, ...]) -> _Numbered:
    everywhere = [mesh for mesh in meshes if len(mesh.members(0)) == shape[0]]
    distinct = list(dict.fromkeys([*(everywhere[:1] or [Mesh(shape)]), *meshes]))
    return _Numbered(tuple(distinct), tuple(distinct.index(mesh) for mesh in meshes))


def _settle_sums(program: Program, strategies: list[Strategy]) -> None:
    """Nodes that would read a pending sum from another home read it when it has been summed up."""
    for number in range(len(program.nodes)):
        own = strategies[number]
        for value, wanted in zip(program.operands(number), own.operands, strict=True):
            maker = strategies[value.node]
            made = maker.outputs[value.output]
            if is_partial(wanted[0]) and (maker.home != own.home or not is_partial(made[0])):
                strategies[number] = replace(
                    own,
                    outputs=tuple((REPLICATED, *s[1:]) for s in own.outputs),
                    operands=tuple((REPLICATED, *s[1:]) for s in own.operands),
                )
                break


class _Copies:
    """What has to move; lives only inside `plan_by_homes`."""

    def __init__(
        self,
        program: Program,
        strategies: Sequence[Strategy],
        machine: Machine,
        meshes: Sequence[Mesh],
    ) -> None:
        self._program = program
        self._strategies = strategies
        self._meshes = meshes
        self._tables = [Resharding(machine, mesh) for mesh in meshes]
        self._found: dict[tuple[Value, Sharding, int], Copy] = {}
        self._later: list[Copy] = []

    def all(self) -> tuple[Copy, ...]:
        for number, node in enumerate(self._program.nodes):
            own = self._strategies[number]
            for value, wanted in zip(self._program.operands(number), own.operands, strict=True):
                self._want(value, wanted, own.home, node.phase)
        for number, value in self._program.updates:
            kept = self._strategies[number]
            self._want(value, kept.outputs[0], kept.home, Phase.UPDATE)
        whole = (REPLICATED,) * self._meshes[0].num_axes
        self._want(self._program.loss, whole, 0, Phase.FORWARD)
        return tuple(self._found.values())

    def _want(self, value: Value, wanted: Sharding, home: int, phase: Phase) -> None:
        maker = self._strategies[value.node]
        made = maker.outputs[value.output]
        if made == wanted and (maker.home == home or self._is_there(made, maker.home, home)):
            return
        key = (value, wanted, home)
        known = self._found.get(key)
        if known is None:
            hops = self._hops(value, made, maker.home, wanted, home)
            self._found[key] = Copy(value, phase, made, wanted, hops, False, maker.home, home)
        elif known.phase is not phase and not known.kept:
            self._found[key] = replace(known, kept=True)

    def _is_there(self, sharding: Sharding, held: int, home: int) -> bool:
        """True if what is whole on the devices of one home is on those of another anyway."""
        members = set(self._meshes[home].members(0))
        return sharding[0] == REPLICATED and members <= set(self._meshes[held].members(0))

    def _hops(
        self, value: Value, made: Sharding, held: int, wanted: Sharding, home: int
    ) -> tuple[Hop, ...]:
        """Within a home by the cheapest way; else inner axes first, then to the other home.

        Summands become parts where they are made, if all devices there have as much.
        """
        if held == home:
            return self._within(value, made, wanted, home)
        if is_partial(made[0]) and wanted[0] >= 0 and self._divides(value, made, wanted, held):
            return (*self._within(value, made, wanted, held), Hop(0, wanted[0], home))
        arrives = (made[0], *wanted[1:])
        hops = self._within(value, made, arrives, held)
        left = made[0]
        if is_partial(left) and len(self._meshes[home].members(0)) > 1:
            hops, left = (*hops, Hop(0, REPLICATED)), REPLICATED
        return (*hops, Hop(0, wanted[0], home))

    def _divides(self, value: Value, made: Sharding, wanted: Sharding, home: int) -> bool:
        """Whether sums can be scattered at a home, to devices that have as much each."""
        mesh = self._meshes[home]
        equal = mesh.cuts_evenly(0) or len(set(mesh.shares[0]) - {0}) == 1
        table = self._table(value, made, home)
        return equal and len(mesh.members(0)) > 1 and wanted in table.index

    def _within(self, value: Value, made: Sharding, wanted: Sharding, home: int) -> tuple[Hop, ...]:
        if made == wanted:
            return ()
        return self._table(value, made, home).path(made, wanted)

    def _table(self, value: Value, made: Sharding, home: int) -> HopTable:
        tensor, maximum = self._program.type_of(value), PARTIAL_MAX in made
        return self._tables[home].table(tensor, maximum=maximum)
