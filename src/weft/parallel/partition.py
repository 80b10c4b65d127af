"""What there is to decide along one mesh axis: variables, in groups, and what comes of it.

The variables of layers that are alike are decided once. Each choice is a placement of one variable
together with all that it forces; none that would make data move is wanted. What comes out is
checked on the whole program: all layers at once.

Source: Auto-MAP (Wang et al. 2020, arXiv 2007.04069), section 3: groups in order of their size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from weft.core.errors import InputError
from weft.parallel.linkage import Decision, Layers, certain, places_of
from weft.parallel.placement import REPLICATED, Placement
from weft.parallel.propagate import NOTHING, Axis, Propagation, spread
from weft.program.fold import Folding
from weft.program.graph import Program, Role, Value

__all__ = ["Partition", "Settled", "most_cuts", "whole_batch"]


@dataclass(frozen=True, kw_only=True)
class Settled:
    """An end of an episode.

    Attributes:
        placements: of every variable of the program.
        forced: of every value that follows.
        conflicts: where data would have to move; 0 unless a decision was forced to make it.
    """

    placements: Mapping[Value, Placement]
    forced: Mapping[Value, Placement]
    conflicts: int

    @property
    def cuts(self) -> int:
        """Variables that are cut."""
        return sum(place >= 0 for place in self.placements.values())


class Partition:
    """What there is to decide along an axis, prepared once for all episodes.

    Args:
        axis: whose rules hold; along a `ReducedAxis` an all-reduce is no conflict.
        folding: of its program.
        given: placements that are not to be decided, such as that of the batch.
        times: of each node, how many it stands for where the program is a short version of a deep
            one; one each if not given.

    Raises:
        InputError: the program has no parameters, or what is given contradicts itself.
        RuleError: no rule covers an operator.
    """

    def __init__(
        self,
        axis: Axis,
        folding: Folding,
        given: Mapping[Value, Placement] = NOTHING,
        times: Sequence[int] = (),
    ) -> None:
        self.axis, self.folding = axis, folding
        program = axis.program
        self._times = times or (1,) * len(program.nodes)
        self.variables = tuple(sorted(i.node for i in program.inputs if i.role is Role.PARAMETER))
        follows = spread(axis, given)
        if not self.variables or follows.conflicts:
            raise InputError(
                need="parameters to place, and placements that agree with each other",
                got=f"{len(self.variables)} parameters; "
                + (str(follows.conflicts[0]) if follows.conflicts else "no conflict"),
                hint="a training step with parameters; give fewer placements",
            )
        self.given = certain(axis, folding, follows.placements)
        self._layers = Layers(program, folding)
        self._weights = self._alike()
        self._spread: dict[tuple[Decision, ...], tuple[Mapping[Value, Placement], bool]] = {}
        self.order = self._ordered()

    def _alike(self) -> dict[int, int]:
        """Of each variable that stands for others, how many there are with it."""
        counts: defaultdict[int, int] = defaultdict(int)
        for node in self.variables:
            counts[self.folding.representative[node]] += self._times[node]
        return dict(counts)

    @cached_property
    def num_variables(self) -> int:
        """Variables, those that they stand for included."""
        return sum(self._weights.values())

    @cached_property
    def num_nodes(self) -> int:
        """Nodes, those that they stand for included."""
        return sum(self._times)

    def _ordered(self) -> tuple[int, ...]:
        """Variables that stand for themselves, the one whose decisions decide most first."""
        open_ones = [node for node in self._weights if Value(node) not in self.given]

        def decided(node: int) -> int:
            found = (self.after((), Decision(Value(node), p)) for p in self.places(node))
            return max((self.weight(new) for new, _ in found), default=0)

        return tuple(sorted(open_ones, key=lambda node: (-decided(node), node)))

    def places(self, node: int) -> tuple[Placement, ...]:
        """Where a variable may lie."""
        return tuple(places_of(self.axis, node))

    def weight(self, placements: Mapping[Value, Placement], *, cut: bool | None = None) -> int:
        """Variables among these values, those that they stand for included.

        Args:
            placements: of values.
            cut: count only those that are cut, or only those that are whole.
        """
        return sum(
            self._weights.get(value.node, 0)
            for value, place in placements.items()
            if cut is None or cut == (place >= 0)
        )

    def after(
        self, taken: tuple[Decision, ...], decision: Decision
    ) -> tuple[Mapping[Value, Placement], bool]:
        """What a decision forces beside what earlier ones did, and whether that is a conflict.

        What a decision forces that conflicts is not looked for to the end.

        Args:
            taken: earlier decisions, in order; each without conflicts, or known to have them.
            decision: the next one.
        """
        key = (*taken, decision)
        found = self._spread.get(key)
        if found is None:
            known = self.known(taken)
            seeds = {decision.variable: decision.placement}
            new = spread(self.axis, seeds, known, to_first_conflict=True)
            found = self._spread[key] = new.placements, bool(new.conflicts)
        return found

    def known(self, taken: tuple[Decision, ...]) -> dict[Value, Placement]:
        """All that is known after some decisions."""
        known = dict(self.given)
        for number, decision in enumerate(taken):
            known |= self.after(taken[:number], decision)[0]
        return known

    def settled(self, taken: tuple[Decision, ...]) -> Settled:
        """The decisions in all layers at once; what none of them decides is whole."""
        seeds: dict[Value, Placement] = {}
        for decision in taken:
            seeds[decision.variable] = decision.placement
            seeds |= dict.fromkeys(self._layers.like(decision.variable), decision.placement)
        found: Propagation = spread(self.axis, seeds, self.given)
        forced = {**self.given, **found.placements}
        placements = {Value(n): forced.get(Value(n), REPLICATED) for n in self.variables}
        return Settled(placements=placements, forced=forced, conflicts=len(found.conflicts))

    @cached_property
    def open(self) -> frozenset[int]:
        """Variables that stand for themselves and that nothing given settles."""
        return frozenset(self.order)

    @cached_property
    def sizes(self) -> dict[int, float]:
        """Bytes of each variable that stands for others, by node."""
        return {node: self.axis.num_bytes(Value(node)) for node in self._weights}


def whole_batch(program: Program) -> dict[Value, Placement]:
    """A batch that every device has in full."""
    return {Value(i.node): REPLICATED for i in program.inputs if i.role is Role.BATCH}


def most_cuts(partition: Partition) -> tuple[Decision, ...]:
    """Decisions that cut as many variables as can be without a conflict.

    Branch and bound: variables in order, cuts before wholes; a branch ends where even all that is
    open in it could not make it better than the best.

    Args:
        partition: what to decide.
    """
    return _Branches(partition).run()


class _Branches:
    """Lives only inside `most_cuts`."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._best: tuple[Decision, ...] = ()
        self._most = -1

    def run(self) -> tuple[Decision, ...]:
        part = self._partition
        cut = part.weight(part.given, cut=True)
        self._extend((), dict(part.given), cut, self._open(part.given), 0)
        return self._best

    def _open(self, known: Mapping[Value, Placement]) -> int:
        """Variables that are open and might be cut."""
        part = self._partition
        return part.weight({Value(n): 0 for n in part.order if Value(n) not in known})

    def _extend(
        self,
        taken: tuple[Decision, ...],
        known: dict[Value, Placement],
        cut: int,
        still_open: int,
        start: int,
    ) -> None:
        part = self._partition
        order = part.order
        while start < len(order) and Value(order[start]) in known:
            start += 1
        if start == len(order):
            if cut > self._most:
                self._best, self._most = taken, cut
            return
        options: list[tuple[int, Decision, Mapping[Value, Placement]]] = []
        for place in part.places(order[start]):
            decision = Decision(Value(order[start]), place)
            new, conflicts = part.after(taken, decision)
            if not conflicts:
                options.append((part.weight(new, cut=True), decision, new))
        for gained, decision, new in sorted(options, key=lambda option: -option[0]):
            left = still_open - part.weight({v: p for v, p in new.items() if v.node in part.open})
            if cut + gained + left > self._most:
                self._extend((*taken, decision), {**known, **new}, cut + gained, left, start + 1)
