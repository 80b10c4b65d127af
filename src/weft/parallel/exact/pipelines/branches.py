"""Programs whose branches lie side by side, and orders of them that stages are to be runs of.

The search over pipelines cuts an order of the forward pass into stages. That of execution is one of
many: a model that computes two towers a layer of each in turn could as well compute one after the
other. Here an order is chosen for stages, in three steps:

1. depth first: what a result needs is computed before it, one operand after the other, so that
   branches come one after the other and fall apart into pieces;
2. the pieces are dealt out to stages on the graph (`assign`);
3. the order that is cut in the end is by these stages, and depth first within each.

The order serves the search only: a plan says of each node in which stage it is, and within a stage
nodes run as they always did.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from weft.parallel.estimate import slowest_device
from weft.parallel.exact.pipelines.assign import Assignment, Flow, StageProblem, assign
from weft.parallel.exact.pipelines.configs import Config
from weft.parallel.exact.pipelines.partition import Partition, Runs, partition
from weft.parallel.loop import varying_nodes
from weft.parallel.pinning import Pinning
from weft.parallel.pipeline.estimate import Load, StageCost, sending_s
from weft.parallel.pipeline.expert import crossing_bytes, forward_seconds
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.piece_costs import piece_costs
from weft.parallel.pipeline.pieces import Pieces, find_pieces, good_places, pieces_at
from weft.parallel.pipeline.slicing import Slicer
from weft.parallel.pipeline.stages import forward_nodes
from weft.parallel.placement import local_type
from weft.parallel.weights import weight_values
from weft.program.graph import Phase, Program, Value

__all__ = ["Branches", "depth_first"]

BESIDE = 0.1
"""How likely two parts of the work have to lie side by side for orders to be looked at. Derived:
that of two branches of which the smaller has a twentieth of the work; two even ones have a half."""
TIME_LIMIT_S = 3.0
"""How long stages are dealt out for one configuration [s]. Derived: as long as a flow programme of
a published model takes; what was found by then is used."""
GAP = 1e-3
"""Distance from the bound at which dealing out ends. Derived: pieces tell a step to a percent."""


def depth_first(part: Program, nodes: Sequence[int]) -> list[int]:
    """The nodes of the forward pass, each just before the first that needs it.

    Operands are computed in the order of execution. What the loss does not need, such as new
    statistics of a batch, comes as soon as it can.

    Args:
        part: the program of one micro-batch.
        nodes: of its forward pass, in the order of execution.
    """
    own = frozenset(nodes)
    reads = {n: sorted({v.node for v in part.operands(n)} & own) for n in nodes}
    readers: dict[int, list[int]] = {n: [] for n in nodes}
    for number, operands in reads.items():
        for operand in operands:
            readers[operand].append(number)
    needed: set[int] = {part.loss.node} & own
    for number in reversed(nodes):
        if number in needed:
            needed.update(reads[number])
    found: dict[int, None] = {}
    stack = [n for n in reversed(nodes) if n == part.loss.node]
    while stack:
        number = stack[-1]
        missing = [operand for operand in reads[number] if operand not in found]
        if missing:
            stack += reversed(missing)
            continue
        stack.pop()
        if number not in found:
            found[number] = None
            rest = (r for r in readers[number] if r not in needed and r not in found)
            stack += [r for r in rest if all(operand in found for operand in reads[r])]
    return [*found, *(n for n in nodes if n not in found)]


@dataclass(frozen=True)
class Branches:
    """A program of one micro-batch, depth first.

    Attributes:
        rows: the program, in pieces of the order of execution.
    """

    rows: Rows

    @cached_property
    def order(self) -> list[int]:
        """The forward pass, depth first."""
        return depth_first(self.rows.part, forward_nodes(self.rows.part))

    @cached_property
    def _beginnings(self) -> frozenset[int]:
        """Positions at which a branch may begin, of operators that read no other one's result."""
        part, own = self.rows.part, frozenset(self.order)
        return frozenset(
            at
            for at, number in enumerate(self.order)
            if not any(value.node in own for value in part.operands(number))
        )

    @cached_property
    def beside(self) -> float:
        """How likely two parts of the work lie side by side [0 to 1]."""
        part, order = self.rows.part, self.order
        seconds = forward_seconds(part, order, slowest_device(self.rows.machine))
        ends = list(accumulate(seconds))
        places = good_places(crossing_bytes(part, order), ends, self._beginnings)
        piece = {number: bisect_right(places, at) for at, number in enumerate(order)}
        work = [0.0] * (len(places) + 1)
        before = [{own} for own in range(len(work))]
        for number, own_s in zip(order, seconds, strict=True):
            own = piece[number]
            work[own] += own_s
            for value in part.operands(number):
                before[own] |= before[piece.get(value.node, own)]
        ordered = sum(work[b] * work[own] for own in range(len(work)) for b in before[own])
        once, whole = sum(s**2 for s in work), sum(work) ** 2
        return (whole - 2.0 * ordered + once) / whole if whole > 0 else 0.0

    @property
    def has_any(self) -> bool:
        """Whether enough of the work lies side by side, and no pins say where it is to be."""
        return not self.rows.pinning.stages and self.beside >= BESIDE

    @cached_property
    def _pieces(self) -> Pieces:
        rows = self.rows
        device = slowest_device(rows.machine)
        return find_pieces(
            rows.part, self.order, rows.folding, device, (), Pinning(), self._beginnings
        )

    @cached_property
    def along(self) -> Rows:
        """The program in pieces depth first.

        Raises:
            InputError: the backward pass cannot be cut there.
        """
        return self.rows.along(self._pieces)

    def for_stages(
        self, config: Config, slicer: Slicer, limit_bytes: float, time_limit_s: float
    ) -> Rows | None:
        """The program in pieces of an order that stages of a configuration are good runs of.

        Args:
            config: groups and micro-batches.
            slicer: makes plans of pieces of the program.
            limit_bytes: limit of one device [bytes].
            time_limit_s: how long to look [s].

        Returns:
            The program; none if there are fewer pieces than groups.

        Raises:
            InputError: the backward pass cannot be cut there.
        """
        along, groups = self.along, config.groups
        if groups > len(along.stages):
            return None
        flows = _flows(along, slicer, config)
        left_s = min(time_limit_s, TIME_LIMIT_S)
        nothing = piece_costs(along, slicer.plan, "", along.machine)
        found = _dealt([nothing], flows, config, limit_bytes, left_s)
        if found is None:
            again = [
                piece_costs(along, slicer.plan, option, along.machine)
                for option in ("cheap", "full")
            ]
            found = _dealt([nothing, *again], flows, config, limit_bytes, left_s)
        return along if found is None else self._by(found.stages)

    def _by(self, stages: Sequence[int]) -> Rows:
        """The program in the same pieces, those of early stages first."""
        order = sorted(range(len(stages)), key=stages.__getitem__)
        if order == list(range(len(stages))):
            return self.along
        ends = [0, *accumulate(self._pieces.lengths)]
        nodes = [node for own in order for node in self.order[ends[own] : ends[own + 1]]]
        places = list(accumulate(self._pieces.lengths[own] for own in order))[:-1]
        return self.rows.along(pieces_at(nodes, places, self.rows.folding))


def _dealt(
    by_option: Sequence[Sequence[StageCost]],
    flows: Sequence[Flow],
    config: Config,
    limit_bytes: float,
    time_limit_s: float,
) -> Assignment | None:
    """Pieces dealt out to groups, from the stages that the order they are in allows."""
    groups, count = config.groups, config.micro_batches
    problem = StageProblem(
        by_option=by_option,
        flows=flows,
        in_flight=[float(min(count, groups - group)) for group in range(groups)],
        limit_bytes=[limit_bytes] * groups,
        micro_batches=count,
    )
    costs = by_option if len(by_option) > 1 else [by_option[0]] * 3
    runs = Runs(costs, groups, any_length=True)
    cut = partition(runs, problem.in_flight, problem.limit_bytes, count)
    start = None if cut is None else _by_block(cut, len(by_option[0]), len(by_option))
    return assign(problem, start, time_limit_s, GAP)


def _by_block(cut: Partition, num_blocks: int, num_options: int) -> tuple[list[int], list[int]]:
    """Stage and option of each block of a partition."""
    bounds = [0, *cut.cuts, num_blocks]
    stages: list[int] = []
    options: list[int] = []
    for stage, ((i, j), again) in enumerate(zip(pairwise(bounds), cut.recompute, strict=True)):
        stages += [stage] * (j - i)
        options += [min(again.option(k - i), num_options - 1) for k in range(i, j)]
    return stages, options


def _flows(rows: Rows, slicer: Slicer, config: Config) -> tuple[Flow, ...]:
    """What flows between pieces, and how long it takes over each boundary between groups."""
    part, piece, varies = rows.part, rows.piece_of_nodes, varying_nodes(rows.part)
    machine, size, groups = rows.machine, config.mesh.num_devices, config.groups
    seconds: dict[tuple[tuple[tuple[int, int], ...], bool], list[float]] = {}
    for value, readers in _crossing(part, piece).items():
        home = piece[value.node]
        of = part.type_of(value)
        num_bytes = local_type(config.mesh, slicer.crossing(value), of).num_bytes
        load = Load(1, float(num_bytes)) if varies[value.node] else Load(0, 0.0)
        for backward in (False, True):
            pairs = tuple(
                (reader, home) if backward else (home, reader)
                for reader in sorted(readers)
                if (reader < home) == backward
            )
            if pairs:
                known = seconds.setdefault((pairs, backward), [0.0] * (groups - 1))
                for k in range(groups - 1):
                    ends = (k * size + size, k * size)
                    first, second = ends if backward else ends[::-1]
                    known[k] += sending_s(load, machine, first, second)
    return tuple(
        Flow(pairs=pairs, seconds=tuple(each), backward=backward)
        for (pairs, backward), each in seconds.items()
    )


def _crossing(part: Program, piece: Sequence[int]) -> dict[Value, set[int]]:
    """The other pieces that read a value in each micro-batch, of all that cross.

    Weights are not among them: they live wherever they are read first.
    """
    weights = weight_values(part)
    found: dict[Value, set[int]] = {}
    for reader, node in enumerate(part.nodes):
        if node.phase is Phase.UPDATE or piece[reader] < 0:
            continue
        for value in part.operands(reader):
            summed = part.nodes[value.node].op == "accumulate"
            if summed or value in weights:
                continue
            if piece[value.node] not in (-1, piece[reader]):
                found.setdefault(value, set()).add(piece[reader])
    return found
