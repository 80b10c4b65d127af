"""What the pieces of a program cost under one decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from copy import copy
from dataclasses import replace
from functools import cached_property
from itertools import accumulate, pairwise

from weft.core.errors import VerifyError
from weft.machine.model import Machine
from weft.parallel.depth import Shortened
from weft.parallel.estimate import slowest_device
from weft.parallel.exact.conflict import stuck_unit
from weft.parallel.exact.extract import single_choice
from weft.parallel.exact.flow import FlowModel, Solution
from weft.parallel.exact.pipelines.pieces import Pieces, find_pieces, piece_of_nodes
from weft.parallel.exact.pipelines.slicing import Slicer
from weft.parallel.greedy import greedy_axis
from weft.parallel.loop import Loop, varying_nodes
from weft.parallel.pinning import Pinning, resolve
from weft.parallel.pins import Pin
from weft.parallel.pipeline.alike import representatives
from weft.parallel.pipeline.cut import Cut
from weft.parallel.pipeline.estimate import StageCost, stage_cost
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.pipeline.pinned import pinned_order, stage_bounds
from weft.parallel.pipeline.segments import segments
from weft.parallel.pipeline.stages import StageProgram, forward_nodes, stage_programs
from weft.parallel.placement import Mesh, is_partial
from weft.parallel.plan import Level
from weft.parallel.problem import build_problem
from weft.parallel.recompute import RECOMPUTATIONS, Expanded, expand
from weft.parallel.reshard import Resharding
from weft.parallel.rules import Rule
from weft.parallel.schemes import Schemes
from weft.parallel.skeleton import BUSY, build_skeleton
from weft.parallel.spmd import lower_expanded
from weft.parallel.strategies import StrategyTable
from weft.program.fold import Folding, fold
from weft.program.graph import Phase, Program, Role, Value
from weft.program.lengthen import Lengthened
from weft.program.operators import operator

__all__ = ["Rows", "Strategist", "piece_costs"]


class Rows:
    """The program of one micro-batch with so many micro-batches, cut into its pieces.

    Args:
        view: the whole step, or a short version of it.
        count: micro-batches.
        machine: where it runs.
        pins: what is pinned, beside what the program pins itself.
    """

    def __init__(
        self, view: Shortened, count: int, machine: Machine, pins: Sequence[Pin] = ()
    ) -> None:
        self.view = view
        self.part = in_micro_batches(view.program, count)
        self.pinning = resolve(self.part, pins)
        self.machine = machine
        self._expanded: dict[tuple[int, str], Expanded] = {}

    @cached_property
    def folding(self) -> Folding:
        """Which layers are alike."""
        return fold(self.part, self.pinning.marks)

    @cached_property
    def schemes(self) -> Schemes:
        """Where its plans are written by hand."""
        return Schemes(self.part)

    @cached_property
    def order(self) -> list[int]:
        """The nodes of the forward pass in the order of which pieces and stages are runs."""
        return pinned_order(self.part, self.pinning)

    @cached_property
    def pieces(self) -> Pieces:
        """Where it falls apart."""
        device = slowest_device(self.machine)
        gaps = self.view.gaps
        return find_pieces(self.part, self.order, self.folding, device, gaps, self.pinning)

    @cached_property
    def whole(self) -> Lengthened:
        """One micro-batch of the whole program.

        Raises:
            VerifyError: it does not follow from that of the short one (a mistake of weft).
        """
        found = self.view.lengthened(self.part)
        if found is None:
            raise VerifyError(
                need=f"layers of {' and '.join(g.stack for g in self.view.gaps)} that are alike",
                got="layers that correspond in a step, but not in a micro-batch",
                hint="a mistake of weft; plan with micro-batches and stages by hand meanwhile",
            )
        return found

    @cached_property
    def whole_cut(self) -> Cut:
        """The cut of the whole program into its pieces."""
        if not self.view.gaps:
            return self.pieces.cut
        return self.pieces.unfolded(forward_nodes(self.whole.program)).cut

    def bound_s(self, grids: Sequence[Mesh], micro_batches: int) -> float:
        """No plan of the whole program takes less [s].

        All products, convolutions and attention take the fewest devices' seconds that any rule on
        any of the grids lets them take, and nobody waits, neither for communication nor for
        others. The rest is left out: what it costs depends on what it is fused with.

        Args:
            grids: of the groups, one each.
            micro_batches: parts of the batch.
        """
        part, device = self.part, slowest_device(self.machine)
        tables = {mesh: StrategyTable(part, mesh, device) for mesh in dict.fromkeys(grids)}
        varies, times = varying_nodes(part), Counter(self.whole.origin)
        seconds = sum(
            times[number]
            * min(
                mesh.num_devices * float(table.choices(number).seconds.min())
                for mesh, table in tables.items()
            )
            for number, node in enumerate(part.nodes)
            if varies[number] and operator(node.op).kind in BUSY
        )
        return micro_batches * seconds / sum(mesh.num_devices for mesh in grids)

    def along(self, pieces: Pieces) -> Rows:
        """The same program in other pieces, such as runs of another order."""
        other = copy(self)
        for name in _FROM_PIECES:
            vars(other).pop(name, None)
        other.pieces = pieces
        other._expanded = {}
        return other

    def stage_bounds(self, num_stages: int) -> tuple[tuple[int, int], ...]:
        """The lowest and the highest stage that each piece of the whole program may be in.

        Raises:
            InfeasibleError: pins ask for an order or a stage that no such pipeline has.
        """
        pieces = self.pieces
        if not self.pinning.stages:
            return ((0, num_stages - 1),) * len(pieces.order)
        of_node = list(stage_bounds(self.part, self.pinning, num_stages).values())
        ends = [0, *accumulate(pieces.lengths)]
        # Along the forward pass bounds only rise.
        bounds = [(of_node[j - 1][0], of_node[i][1]) for i, j in pairwise(ends)]
        return tuple(bounds[piece] for piece in pieces.order)

    @cached_property
    def piece_of_nodes(self) -> tuple[int, ...]:
        """Piece of every node; -1 for what is computed wherever it is read."""
        return piece_of_nodes(self.part, self.pieces.cut)

    @cached_property
    def stages(self) -> tuple[StageProgram, ...]:
        """A program for each piece."""
        return stage_programs(self.part, self.piece_of_nodes)

    @cached_property
    def crossing(self) -> frozenset[Value]:
        """Values that leave a piece."""
        piece = self.piece_of_nodes
        return frozenset(
            value
            for reader in range(len(self.part.nodes))
            for value in self.part.operands(reader)
            if min(piece[reader], piece[value.node]) >= 0 and piece[reader] != piece[value.node]
        )

    @cached_property
    def alike(self) -> tuple[int, ...]:
        """For each piece the first one that computes the same."""
        return representatives([stage.program for stage in self.stages])

    def expanded(self, piece: int, recomputation: str) -> Expanded:
        """A piece's program with recomputation."""
        key = (piece, recomputation)
        if key not in self._expanded:
            program = self.stages[piece].program
            self._expanded[key] = expand(program, RECOMPUTATIONS[recomputation](program))
        return self._expanded[key]


_FROM_PIECES = ("piece_of_nodes", "stages", "crossing", "alike", "whole_cut")


class Strategist:
    """Decides placements for a program of one micro-batch on one mesh.

    Args:
        rows: the program.
        mesh: the grid of a group.
        loop: how often the program runs.
        batch_outside: whether the first axis cuts the batch of everything that repeats, so that
            only weights are left to decide on it.
        pinning: what is pinned in the program.
    """

    def __init__(
        self,
        rows: Rows,
        mesh: Mesh,
        loop: Loop,
        *,
        batch_outside: bool,
        pinning: Pinning,
    ) -> None:
        part, machine = rows.part, rows.machine
        self.part = part
        self.machine = machine
        self.mesh = mesh
        skeleton = build_skeleton(part, rows.folding, pinning, loop)
        self.resharding = Resharding(machine, mesh, skeleton.small_bytes)
        outer = batch_rules(part, mesh.shape[0], rows.crossing) if batch_outside else None
        device = slowest_device(machine)
        table = StrategyTable(
            part, mesh, device, skeleton.traffic, skeleton.book, outer, rows.crossing
        )
        self.problem = build_problem(skeleton, mesh, table, self.resharding, rows.crossing)
        self.pinning = pinning

    @property
    def stuck(self) -> str:
        """What the pins leave without a placement; empty if they can be kept."""
        unit = stuck_unit(self.problem, self.pinning) if self.pinning.values else None
        return "" if unit is None else self.problem.label(unit)

    @cached_property
    def model(self) -> FlowModel:
        """The flow programme."""
        return FlowModel(self.problem)

    def slicer(self, solution: Solution, limit_bytes: float, level: Level) -> Slicer:
        """What makes stages' plans of a solution."""
        return Slicer(
            self.part,
            single_choice(self.problem, solution.states),
            self.machine,
            self.mesh,
            self.resharding,
            limit_bytes,
            level,
        )


def batch_rules(part: Program, size: int, settled: Set[Value]) -> dict[int, Rule]:
    """What data parallelism does to what repeats, by node.

    Args:
        part: the program of one micro-batch.
        size: devices that share out its rows.
        settled: values that nobody may read before they are reduced.
    """
    pinned = {
        source.node: 0
        for source in part.inputs
        if source.role is Role.BATCH and part.nodes[source.node].outputs[0].shape
    }
    rules = greedy_axis(part, pinned, size)
    kept: dict[int, Rule] = {}
    free: set[int] = set()
    for number, varies in enumerate(varying_nodes(part)):
        node, rule = part.nodes[number], rules[number]
        # An update that scales each gradient before the sum decides with the rest of its cluster.
        if not varies or node.phase is Phase.UPDATE or node.op == "accumulate":
            continue
        summands = (
            value
            for value, place in zip(part.operands(number), rule.operands, strict=True)
            if is_partial(place)
        )
        if any(value in settled or value.node in free for value in summands):
            free.add(number)  # it finds a sum, and hands on what is none
        else:
            kept[number] = rule
    return kept


def piece_costs(
    rows: Rows, slicer: Slicer, recomputation: str, known: dict[object, StageCost] | None = None
) -> list[StageCost]:
    """Cost of each piece of the whole program under a decision.

    Where layers run again as a whole, a piece that begins inside of one keeps nothing of what
    comes in: it does only where a stage begins there.

    Args:
        rows: the program of one micro-batch.
        slicer: makes plans of pieces.
        recomputation: one of `weft.parallel.recompute.RECOMPUTATIONS`.
        known: what pieces cost under other decisions on the same grid; what is found is added.
    """
    known = {} if known is None else known
    costs: list[StageCost] = []
    for piece, stage in enumerate(rows.stages):
        expanded = rows.expanded(piece, recomputation)
        plan = slicer.plan(stage, expanded)
        key = (rows.alike[piece], plan.strategies, plan.copies, plan.recompute)
        if key not in known:
            local = lower_expanded(expanded.program, plan)
            known[key] = stage_cost(stage, segments(stage, local), expanded, rows.machine)
        costs.append(known[key])
    if recomputation == "full":
        for piece in range(1, len(costs)):
            if rows.pieces.inside[piece]:
                costs[piece] = _without(costs[piece], costs[piece - 1].forward.num_bytes)
    return [costs[piece] for piece in rows.pieces.order]


def _without(cost: StageCost, num_bytes: float) -> StageCost:
    """A piece that keeps so many bytes less, unless a stage begins with it."""
    kept = max(cost.time.kept_bytes - num_bytes, 0.0)
    return replace(
        cost,
        time=replace(cost.time, kept_bytes=kept),
        opening_bytes=cost.time.kept_bytes - kept,
    )
