"""Rules for a whole program along one mesh axis, from a few pinned placements.

How an expert writes a plan: pin the batch and some weights, and let everything else follow by
the least movement. Nodes are decided in execution order; each takes the rule that moves the
fewest bytes, given where its operands were made. Two kinds of nodes look further than that:

- *floating* nodes depend on no data (constants, masks, positions); they take the placement
  that their readers want;
- update nodes know where the parameters and optimizer states have to end up, and gradients
  are moved there once, for all of them.

This is no search: `weft.parallel.exact` is. It makes the baselines that a search must beat.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from math import inf
from typing import TypeAlias

from weft.core.errors import InputError
from weft.parallel.placement import (
    PARTIAL,
    REPLICATED,
    Placement,
    format_sharding,
    is_partial,
)
from weft.parallel.propagate import Axis, AxisRules
from weft.parallel.rules import Rule, RuleBook
from weft.program.graph import Phase, Program, Value
from weft.program.operators import Kind, operator

__all__ = ["greedy_axis", "moved_bytes"]


def moved_bytes(before: Placement, after: Placement, num_bytes: float, size: int) -> float:
    """Bytes that leave each device when a value changes its placement along one axis.

    Args:
        before: placement as made.
        after: placement as read.
        num_bytes: the value on one device if the axis replicates it [bytes].
        size: devices along the axis.

    Returns:
        Ring volumes: (n - 1) / n of the value for a gather or a reduce-scatter, twice that for
        an all-reduce, an n-th of it for an all-to-all; infinite if no collective does it.

    Example:
        >>> from weft.parallel.placement import PARTIAL, REPLICATED
        >>> moved_bytes(PARTIAL, REPLICATED, 100.0, 4), moved_bytes(0, 1, 100.0, 4)
        (150.0, 18.75)
    """
    ring = num_bytes * (size - 1) / size
    if before == after or (before == REPLICATED and after >= 0):
        return 0.0
    if is_partial(after) or before == REPLICATED:
        return inf
    if is_partial(before):
        return 2 * ring if after == REPLICATED else ring if before == PARTIAL else inf
    return ring if after == REPLICATED else ring / size


def greedy_axis(
    program: Program,
    pinned: Mapping[int, Placement],
    axis_size: int,
    previous: Sequence[AxisRules] = (),
    gathered: Set[int] = frozenset(),
    book: RuleBook | None = None,
) -> tuple[Rule, ...]:
    """One rule for each node of a program, along one mesh axis.

    Args:
        program: the step.
        pinned: placement of the first output, by node number. Inputs that are not pinned are
            replicated. An update may be pinned elsewhere than the input that it changes.
        axis_size: devices along the axis.
        previous: what earlier, outer axes do.
        gathered: pinned inputs whose cut is for storage only (fully sharded data parallelism):
            forward and backward nodes read them whole, the update reads them as they lie.
        book: rules of the program, if the caller has them.

    Returns:
        The rules, in node order. Where a reader's placement is not the maker's, a collective
        has to move the value.

    Raises:
        RuleError: no rule covers an operator.
        InputError: a pin that the node cannot have, or that no collective can reach.
    """
    return _Greedy(Axis(program, axis_size, previous, book), pinned, gathered).run()


Goals: TypeAlias = tuple[tuple[Placement, int], ...]
"""Where the update wants a value, with the number of readers that want it there."""

_NOWHERE: frozenset[Placement] = frozenset()
_WHOLE = frozenset({REPLICATED})


class _Greedy:
    """Decides node after node; lives only inside `greedy_axis`."""

    def __init__(self, axis: Axis, pinned: Mapping[int, Placement], gathered: Set[int]) -> None:
        self.axis = axis
        self.program = axis.program
        self.pinned = {i.node: REPLICATED for i in self.program.inputs} | dict(pinned)
        self.chosen: dict[int, Rule] = {}
        self.stored = {Value(node) for node in gathered}
        self.floating: dict[Value, frozenset[Placement]] = {}
        self.required: defaultdict[Value, Counter[Placement]] = defaultdict(Counter)
        self.copies: dict[tuple[Value, Phase], frozenset[Placement]] = {}
        self.wanted = self._wanted_by_update()
        self.known: dict[object, Rule] = {}

    def run(self) -> tuple[Rule, ...]:
        for node in range(len(self.program.nodes)):
            if not self._floats(node):
                self._decide(node)
        self._settle_floating()
        return tuple(self.chosen[node] for node in range(len(self.program.nodes)))

    # --- what the update wants -----------------------------------------------------------

    def _wanted_by_update(self) -> Mapping[Value, Goals]:
        """How many readers of a value want it where, seen back from the step's results."""
        wanted: defaultdict[Value, Counter[Placement]] = defaultdict(Counter)
        for node, value in self.program.updates:
            wanted[value][self.pinned.get(value.node, self.pinned[node])] += 1
        for node in reversed(range(len(self.program.nodes))):
            goals = wanted.get(Value(node))
            if goals is None or self.program.nodes[node].phase is not Phase.UPDATE:
                continue
            reduces = operator(self.program.nodes[node].op).kind is Kind.REDUCE
            for goal in goals:
                if reduces and goal == REPLICATED:
                    continue  # a total that is wanted whole is best summed from parts
                makers = [rule for rule in self.axis.rules(node) if rule.outputs[0] == goal]
                if len(makers) == 1:
                    for value, place in zip(
                        self.program.operands(node), makers[0].operands, strict=True
                    ):
                        wanted[value][place] += 1
        return {value: tuple(sorted(goals.items())) for value, goals in wanted.items()}

    # --- nodes that depend on no data ----------------------------------------------------

    def _floats(self, node: int) -> bool:
        """Note the options of a node that depends on no data; False if it is not one."""
        if node in self.pinned:
            return False
        operands = self.program.operands(node)
        if not all(value in self.floating or self._is_whole_scalar(value) for value in operands):
            return False
        options = self._floating_rules(node)
        for output in range(len(self.program.nodes[node].outputs)):
            self.floating[Value(node, output)] = frozenset(r.outputs[output] for r in options)
        return True

    def _is_whole_scalar(self, value: Value) -> bool:
        rule = self.chosen.get(value.node)
        whole = rule is not None and rule.outputs[value.output] == REPLICATED
        return whole and self.program.type_of(value).num_elements == 1

    def _floating_rules(self, node: int) -> list[Rule]:
        return [
            rule
            for rule in self.axis.rules(node)
            if all(
                place in self.floating.get(value, _WHOLE)
                for value, place in zip(self.program.operands(node), rule.operands, strict=True)
            )
        ]

    def _settle_floating(self) -> None:
        """Give floating nodes the placement that their readers want, last node first."""
        for node in reversed(range(len(self.program.nodes))):
            if node in self.chosen:
                continue
            best = min(self._floating_rules(node), key=lambda rule: self._misses(node, rule))
            self._choose(node, best)

    def _misses(self, node: int, rule: Rule) -> tuple[float, int]:
        """Bytes and moves that the readers of a floating node need if it takes a rule."""
        moved, moves = 0.0, 0
        for output, place in enumerate(rule.outputs):
            value = Value(node, output)
            for goal, readers in self.required[value].items():
                moved += moved_bytes(place, goal, self.axis.num_bytes(value), self.axis.size)
                moves += readers * (goal != place)
        return moved, moves

    # --- nodes that do ---------------------------------------------------------------------

    def _decide(self, node: int) -> None:
        situation = self._situation(node)
        rule = self.known.get(situation)
        if rule is None:
            rule = self.known[situation] = self._cheapest(node)
        self._choose(node, rule)
        if self._carries_storage(node):
            self.stored.add(Value(node))

    def _situation(self, node: int) -> object:
        """All that the choice for a node depends on: nodes in one situation take one rule."""
        this, operands = self.program.nodes[node], self.program.operands(node)
        reads = tuple(
            [
                (
                    operands.index(value),
                    self.axis.num_bytes(value),
                    self._made(value),
                    self._places(node, value),
                )
                for value in operands
            ]
        )
        goals: tuple[Goals | None, ...] = ()
        if this.phase is Phase.UPDATE:
            made = [Value(node, output) for output in range(len(this.outputs))]
            goals = tuple([self.wanted.get(value) for value in (*made, *operands)])
        pin, stored = self.pinned.get(node), self._carries_storage(node)
        return (self.axis.kinds[node], this.phase, pin, stored, reads, goals)

    def _cheapest(self, node: int) -> Rule:
        options = self._allowed(node)
        costs = [(self._cost(node, rule), self._moves(node, rule)) for rule in options]
        best = min(range(len(options)), key=costs.__getitem__, default=None)
        if best is None or costs[best][0] == inf:
            raise self._impossible(node, options)
        return options[best]

    def _allowed(self, node: int) -> list[Rule]:
        options = self.axis.rules(node)
        pin = self.pinned.get(node)
        if pin is not None:
            return [rule for rule in options if rule.outputs[0] == pin]
        if self._carries_storage(node):
            (value,) = self.program.operands(node)
            return [rule for rule in options if rule.operands == (self._made(value),)] or [*options]
        return list(options)

    def _carries_storage(self, node: int) -> bool:
        """True for the cast of a stored weight: it is cheaper to gather afterwards."""
        this = self.program.nodes[node]
        return this.op == "cast" and self._reads_stored(self.program.operands(node)[0], this.phase)

    def _reads_stored(self, value: Value, phase: Phase) -> bool:
        return value in self.stored and phase is not Phase.UPDATE

    def _cost(self, node: int, rule: Rule) -> float:
        """Bytes moved to read the operands, and later to bring an update to its goal."""
        this = self.program.nodes[node]
        reads = dict.fromkeys(zip(self.program.operands(node), rule.operands, strict=True))
        # What floats follows, and does not count.
        anchored = any(place >= 0 and self._made(value) == place for value, place in reads)
        total = sum(self._read_bytes(node, value, place, anchored) for value, place in reads)
        if this.phase is Phase.UPDATE:
            for output, place in enumerate(rule.outputs):
                value = Value(node, output)
                goals = self.wanted.get(value)
                if goals:
                    total += min(self._bytes(value, place, goal) for goal, _ in goals)
            return total
        return total + self._pending_bytes(node, rule)

    def _pending_bytes(self, node: int, rule: Rule) -> float:
        """Bytes that summands let through will still move, in the element type they came in.

        Letting them through is right where they get fewer (sums) and wrong where they get more
        (repetition, or three gradients from one).
        """
        reads = zip(self.program.operands(node), rule.operands, strict=True)
        held = {value for value, place in reads if place == PARTIAL}
        made = (Value(node, k) for k, place in enumerate(rule.outputs) if place == PARTIAL)
        num_held, num_made = (
            sum(self.program.type_of(value).num_elements for value in values)
            for values in (held, made)
        )
        if num_held == 0:
            return 0.0
        whole = sum(self._bytes(value, PARTIAL, REPLICATED) for value in held)
        return whole * num_made / num_held

    def _read_bytes(self, node: int, value: Value, place: Placement, anchored: bool) -> float:
        """Bytes moved to read one operand.

        What a reduce-scatter or an all-to-all saves against making the value whole is paid by
        the gather of its result, unless the result stays cut: because another operand lies so
        already (`anchored`), or because it is on its way to a cut parameter.
        """
        phase = self.program.nodes[node].phase
        places = self._places(node, value)
        cost = min(self._bytes(value, here, place) for here in places)
        if phase is not Phase.UPDATE:
            if place < 0 or anchored or place in places:
                return cost
            return max(cost, min(self._bytes(value, here, REPLICATED) for here in places))
        # All readers that want it there share the one move.
        return cost / dict(self.wanted.get(value, ())).get(place, 1)

    def _made(self, value: Value) -> Placement | None:
        """Placement in which data was made; None for what floats."""
        rule = self.chosen.get(value.node)
        return None if rule is None else rule.outputs[value.output]

    def _places(self, node: int, value: Value) -> Set[Placement]:
        """Placements in which a value is at hand for a node."""
        phase = self.program.nodes[node].phase
        floating = self.floating.get(value)
        if floating is not None:
            return floating
        if self._reads_stored(value, phase) and not self._carries_storage(node):
            return _WHOLE
        copies = self.copies.get((value, phase))
        made = self.chosen[value.node].outputs[value.output]
        return frozenset((made,)) if copies is None else copies | {made}

    def _moves(self, node: int, rule: Rule) -> int:
        reads = zip(self.program.operands(node), rule.operands, strict=True)
        return sum(place not in self._places(node, value) for value, place in reads)

    def _bytes(self, value: Value, before: Placement, after: Placement) -> float:
        return moved_bytes(before, after, self.axis.num_bytes(value), self.axis.size)

    def _choose(self, node: int, rule: Rule) -> None:
        self.chosen[node] = rule
        phase = self.program.nodes[node].phase
        for value, place in zip(self.program.operands(node), rule.operands, strict=True):
            if value in self.floating:
                self.required[value][place] += 1
            else:
                self.copies[value, phase] = self.copies.get((value, phase), _NOWHERE) | {place}

    def _impossible(self, node: int, options: Sequence[Rule]) -> InputError:
        this = self.program.nodes[node]
        can = dict.fromkeys(rule.outputs[0] for rule in self.axis.rules(node))
        pin = self.pinned.get(node)
        wish = "any placement" if pin is None else format_sharding((pin,))
        why = "no collective brings its operands there" if options else "no rule makes that"
        return InputError(
            need=f"a placement that %{node} {this.op} {this.outputs[0]} can have on "
            f"{self.axis.size} devices",
            got=f"{wish}{f' in {this.scope}' if this.scope else ''}: {why}",
            hint=f"it can have {format_sharding(tuple(can))}",
        )
