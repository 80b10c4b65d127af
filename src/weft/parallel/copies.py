"""The copies of a plan: which values are needed in other shardings, and how they are made.

A decision says how every node makes and reads its values and, optionally, which further
version of a value the readers of a phase share. From there the copies follow: every reader
gets the sharding it reads by the cheapest hops from whichever version is at hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from weft.parallel.placement import Sharding
from weft.parallel.plan import Copy, Strategy
from weft.parallel.recompute import Expanded
from weft.parallel.reshard import Resharding
from weft.program.graph import Phase, Program, Value

__all__ = ["Decision", "copies_for", "recomputed"]


@dataclass(frozen=True)
class Decision:
    """Strategies of all nodes and the shared versions of values, before copies are laid out.

    Attributes:
        strategies: one for each node of the program.
        hubs: the shared sharding of a value for the readers of one phase.
        lasting: values of which a copy for the forward pass stays for all of the step: the one
            of the hub if there is one, otherwise all.
    """

    strategies: tuple[Strategy, ...]
    hubs: dict[tuple[Value, Phase], Sharding]
    lasting: frozenset[Value] = field(default_factory=frozenset[Value])


def copies_for(program: Program, decision: Decision, resharding: Resharding) -> tuple[Copy, ...]:
    """The copies that give every reader the sharding it reads, by the cheapest hops.

    Each copy starts from whichever version at hand is nearest: the value as made, the hub
    of its phase, or what an earlier phase keeps.
    """
    copies: list[Copy] = []
    wants = _wants(program, decision)
    shared = {value for value, _ in decision.hubs}
    for value, by_phase in wants.items():
        made = decision.strategies[value.node].outputs[value.output]
        if value in shared or any(s != made for wanted in by_phase.values() for s in wanted):
            copies.extend(_Value(program, decision, resharding, value).copies(by_phase))
    return tuple(copies)


def recomputed(decision: Decision, program: Program, expanded: Expanded) -> Decision:
    """The decision for a program with recomputation: clones do as the nodes they repeat.

    What the backward pass shared of a value that is now recomputed, it shares of the clone.
    """
    strategies = tuple(decision.strategies[old] for old in expanded.origin)
    hubs: dict[tuple[Value, Phase], Sharding] = {}
    by_node: dict[int, list[tuple[int, Phase, Sharding]]] = {}
    for (value, phase), sharding in decision.hubs.items():
        by_node.setdefault(value.node, []).append((value.output, phase, sharding))
    for new, old in enumerate(expanded.origin):
        is_clone = expanded.program.nodes[new].phase is not program.nodes[old].phase
        for output, phase, sharding in by_node.get(old, ()):
            if not (is_clone and phase is Phase.FORWARD):
                hubs[Value(new, output), phase] = sharding
    lasting = frozenset(
        Value(new, output)
        for new, old in enumerate(expanded.origin)
        for output in range(len(program.nodes[old].outputs))
        if Value(old, output) in decision.lasting
    )
    return Decision(strategies, hubs, lasting)


def _wants(program: Program, decision: Decision) -> dict[Value, dict[Phase, dict[Sharding, None]]]:
    """For each value, the shardings that its readers want, by phase."""
    wants: dict[Value, dict[Phase, dict[Sharding, None]]] = {}

    def note(value: Value, phase: Phase, sharding: Sharding) -> None:
        wants.setdefault(value, {}).setdefault(phase, {})[sharding] = None

    for number, node in enumerate(program.nodes):
        strategy = decision.strategies[number]
        for value, sharding in zip(program.operands(number), strategy.operands, strict=True):
            note(value, node.phase, sharding)
    for number, value in program.updates:
        note(value, Phase.UPDATE, decision.strategies[number].outputs[0])
    axes = len(decision.strategies[program.loss.node].outputs[0])
    note(program.loss, Phase.FORWARD, (-1,) * axes)
    return wants


class _Value:
    """Lays out the copies of one value; lives only inside `copies_for`."""

    def __init__(
        self, program: Program, decision: Decision, resharding: Resharding, value: Value
    ) -> None:
        self._value = value
        self._hubs = decision.hubs
        self._lasts = value in decision.lasting
        self._made = decision.strategies[value.node].outputs[value.output]
        self._is_input = value.node in program.input_by_node
        self._maximum = -3 in self._made
        self._phase = program.nodes[value.node].phase
        self._resharding = resharding
        self._type = program.type_of(value)
        self._kept: dict[Sharding, int] = {}
        self._copies: list[Copy] = []

    def copies(self, wants: dict[Phase, dict[Sharding, None]]) -> list[Copy]:
        for phase in Phase:
            wanted = wants.get(phase)
            if wanted is not None:
                self._lay_out(phase, wanted)
        return self._copies

    def _lay_out(self, phase: Phase, wanted: dict[Sharding, None]) -> None:
        at_hand = {self._made: -1, **self._kept}
        hub = self._hubs.get((self._value, phase))
        if hub is not None and hub not in at_hand:
            crosses = phase is not self._phase and not self._is_input
            if crosses and phase is Phase.BACKWARD:
                at_hand[hub] = self._kept[hub] = self._keep(hub, at_hand)
            else:
                self._add(phase, hub, at_hand, kept=self._lasts and phase is Phase.FORWARD)
                at_hand[hub] = len(self._copies) - 1
        lasts = self._lasts and phase is Phase.FORWARD and hub is None
        for sharding in wanted:
            if sharding not in at_hand:
                self._add(phase, sharding, at_hand, kept=lasts)

    def _keep(self, hub: Sharding, at_hand: dict[Sharding, int]) -> int:
        """Make what the backward pass starts from while the forward pass still runs."""
        forward = {copy.target: number for number, copy in enumerate(self._copies)}
        if hub in forward:
            number = forward[hub]
            self._copies[number] = replace(self._copies[number], kept=True)
            return number
        self._add(Phase.FORWARD, hub, {**at_hand, **forward}, kept=True)
        return len(self._copies) - 1

    def _add(
        self, phase: Phase, target: Sharding, at_hand: dict[Sharding, int], *, kept: bool = False
    ) -> None:
        table = self._resharding.table(self._type, maximum=self._maximum)
        goal = table.index[target]
        origin = min(at_hand, key=lambda s: float(table.distance[table.index[s], goal]))
        hops = table.path(origin, target)
        if kept:
            self._kept[target] = len(self._copies)
        self._copies.append(Copy(self._value, phase, origin, target, hops, kept))
