"""The program of one micro-batch, cut into the pieces that stages are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from itertools import accumulate, pairwise

from weft.core.errors import VerifyError
from weft.machine.model import Machine
from weft.parallel.depth import Shortened, undivided
from weft.parallel.estimate import slowest_device
from weft.parallel.loop import varying_nodes
from weft.parallel.pinning import resolve
from weft.parallel.pins import Pin
from weft.parallel.pipeline.alike import representatives
from weft.parallel.pipeline.cut import Cut
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.pipeline.pieces import Pieces, find_pieces, piece_of_nodes
from weft.parallel.pipeline.pinned import pinned_order, stage_bounds
from weft.parallel.pipeline.stages import StageProgram, forward_nodes, stage_programs
from weft.parallel.placement import Mesh
from weft.parallel.recompute import RECOMPUTATIONS, Expanded, expand
from weft.parallel.request import PlanRequest
from weft.parallel.schemes import Schemes
from weft.parallel.skeleton import BUSY
from weft.parallel.strategies import StrategyTable
from weft.program.fold import Folding, fold
from weft.program.graph import Value
from weft.program.lengthen import Lengthened
from weft.program.operators import operator

__all__ = ["Rows"]


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

    @classmethod
    def of(cls, request: PlanRequest, view: Shortened, count: int) -> Rows:
        """Of a short version, unless layers that correspond in a step do not in a micro-batch.

        Args:
            request: what to plan.
            view: the whole step, or a short version of it.
            count: micro-batches.
        """
        rows = cls(view, count, request.machine, request.pins)
        folded = {(layer.stack, layer.index) for layer in rows.folding.layers}
        if any((gap.stack, gap.lower) not in folded for gap in view.gaps):
            return cls(undivided(request.program), count, request.machine, request.pins)
        return rows

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
