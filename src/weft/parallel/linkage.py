"""What a decision about one variable forces on others: the groups in which decisions come.

A decision cuts a trainable parameter along a dim, over the devices of one mesh axis, or leaves it
whole. Propagation says what else follows without any doubt: the columns of a first product are the
rows of the second, query, key and value are cut alike. Each decision comes with what it forces,
and a search that takes a group at a time has far fewer steps to take.

Sums over devices are reduced where they are made, so an all-reduce is no conflict here; any other
movement of data is.

Source: linkage groups of Auto-MAP (Wang et al. 2020, arXiv 2007.04069, section 3); the pieces of
Rhino's planner are the same idea.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from weft.parallel.placement import REPLICATED, Placement, format_sharding, is_partial
from weft.parallel.propagate import NOTHING, Axis, AxisRules, Conflict, spread
from weft.parallel.rules import Rule
from weft.program.fold import Folding, Layer
from weft.program.graph import Program, Role, Value

__all__ = ["Decision", "Layers", "Linkage", "ReducedAxis", "certain", "linkages", "places_of"]


@dataclass(frozen=True, slots=True, order=True)
class Decision:
    """A variable and where it lies: cut along a dim, or whole."""

    variable: Value
    placement: Placement

    def __str__(self) -> str:
        return f"{self.variable} {format_sharding((self.placement,))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Linkage:
    """A decision with what it forces.

    Attributes:
        decision: the one that is taken.
        variables: placements of variables that follow, its own included.
        conflicts: where data would have to move.
    """

    decision: Decision
    variables: Mapping[Value, Placement]
    conflicts: tuple[Conflict, ...]

    @property
    def cuts(self) -> int:
        """Variables that are cut."""
        return sum(place >= 0 for place in self.variables.values())


class ReducedAxis(Axis):
    """A mesh axis along which sums are reduced where they are made; nobody reads summands."""

    def __init__(self, program: Program, size: int, previous: Sequence[AxisRules] = ()) -> None:
        super().__init__(program, size, previous)
        self._reduced: dict[int, tuple[Rule, ...]] = {}

    def rules(self, node: int) -> tuple[Rule, ...]:
        """Rules of a node, results as they are once they are reduced."""
        kind = self.kinds[node]
        found = self._reduced.get(kind)
        if found is None:
            whole = [
                rule for rule in super().rules(node) if not any(map(is_partial, rule.operands))
            ]
            reduced = [
                Rule(tuple(REPLICATED if is_partial(p) else p for p in rule.outputs), rule.operands)
                for rule in whole
            ]
            found = self._reduced[kind] = tuple(dict.fromkeys(reduced))
        return found


def certain(
    axis: Axis, folding: Folding, known: Mapping[Value, Placement] = NOTHING
) -> dict[Value, Placement]:
    """What is known, and what has to be if nothing is to conflict, whatever is decided.

    Where all decisions about a variable that do not conflict force the same, that is no decision.
    So the values between the layers of a transformer turn out to be whole, after which layers have
    nothing to do with each other any more.

    Args:
        axis, folding: as those of `linkages`.
        known: what is given, with all that it forces.

    Raises:
        RuleError: no rule covers an operator.
    """
    found = dict(known)
    for node in sorted(_variables(axis.program)):
        if Value(node) in found or folding.representative[node] != node:
            continue
        ways = [
            spread(axis, {Value(node): place}, found, to_first_conflict=True)
            for place in places_of(axis, node)
        ]
        ways = [way for way in ways if not way.conflicts]
        if ways:
            first, *others = (way.placements for way in ways)
            shared = {v: p for v, p in first.items() if all(o.get(v) == p for o in others)}
            # Together they may force what none of the decisions did.
            found |= spread(axis, shared, found).placements
    return found


def linkages(
    axis: Axis, folding: Folding, known: Mapping[Value, Placement] = NOTHING
) -> tuple[Linkage, ...]:
    """Every decision about a variable, the one that decides most variables first.

    Args:
        axis: of the program; along a `ReducedAxis` an all-reduce is no conflict.
        folding: of the program; of layers that are alike, one is looked at.
        known: what is given, with all that it forces; nothing is decided about variables in it.

    Raises:
        RuleError: no rule covers an operator.
    """
    variables = _variables(axis.program)
    layers = Layers(axis.program, folding)
    found: dict[Decision, Linkage] = {}
    for node in sorted(variables):
        if Value(node) in known:
            continue
        for place in places_of(axis, node):
            decision = Decision(Value(node), place)
            if decision in found:
                continue
            own = found[decision] = _linkage(axis, decision, known, variables)
            found.update((copy.decision, copy) for copy in layers.copies(own))
    return tuple(sorted(found.values(), key=lambda one: (-len(one.variables), one.decision)))


def _variables(program: Program) -> frozenset[int]:
    return frozenset(i.node for i in program.inputs if i.role is Role.PARAMETER)


def places_of(axis: Axis, node: int) -> Iterator[Placement]:
    """Where a variable may lie: the rules of an input are the dims that divide."""
    places = dict.fromkeys(rule.outputs[0] for rule in axis.rules(node))
    return (place for place in places if not is_partial(place))


def _linkage(
    axis: Axis, decision: Decision, known: Mapping[Value, Placement], variables: Set[int]
) -> Linkage:
    found = spread(axis, {decision.variable: decision.placement}, known)
    return Linkage(
        decision=decision,
        variables={v: p for v, p in found.placements.items() if v.node in variables},
        conflicts=found.conflicts,
    )


class Layers:
    """Layers that are alike, node by node.

    Args:
        program, folding: whose layers they are.
    """

    def __init__(self, program: Program, folding: Folding) -> None:
        self._program = program
        self._of: dict[int, Layer] = {
            node: layer for layer in folding.layers for node in layer.nodes
        }
        self._alike: dict[tuple[str, int], list[Layer]] = defaultdict(list)
        for layer in folding.layers:
            self._alike[layer.stack, layer.representative].append(layer)

    def like(self, value: Value) -> Iterator[Value]:
        """The same value in all other layers that are like its own."""
        home = self._of.get(value.node)
        if home is not None:
            place = home.nodes.index(value.node)
            for layer in self._alike[home.stack, home.representative]:
                if layer is not home:
                    yield replace(value, node=layer.nodes[place])

    def copies(self, linkage: Linkage) -> Iterator[Linkage]:
        """The same of all layers that are like the decision's own, which change places with it."""
        decision = linkage.decision
        home = self._of.get(decision.variable.node)
        if home is None:
            return
        for layer in self._alike[home.stack, home.representative]:
            if layer is home:
                continue
            pairs = tuple(zip(home.nodes, layer.nodes, strict=True))
            swapped = dict((*pairs, *((there, here) for here, there in pairs)))
            conflicts = [self._conflict(c, swapped.get(c.node, c.node)) for c in linkage.conflicts]
            yield Linkage(
                decision=replace(decision, variable=_moved(decision.variable, swapped)),
                variables={_moved(v, swapped): p for v, p in linkage.variables.items()},
                conflicts=tuple(sorted(conflicts, key=lambda c: c.node)),
            )

    def _conflict(self, conflict: Conflict, node: int) -> Conflict:
        return replace(conflict, node=node, scope=self._program.nodes[node].scope)


def _moved(value: Value, moved: Mapping[int, int]) -> Value:
    return replace(value, node=moved.get(value.node, value.node))
