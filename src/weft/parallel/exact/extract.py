"""From the states that a solver chose to a decision for the whole program.

A folded unit decides for all layers that it stands for.
"""

from __future__ import annotations

from collections.abc import Sequence

from weft.parallel.copies import Decision
from weft.parallel.placement import Sharding
from weft.parallel.plan import Strategy
from weft.parallel.problem import Problem
from weft.parallel.recompute import Expanded
from weft.program.graph import Phase, Program, Value

__all__ = ["decide", "recomputed", "single_choice"]


def decide(problem: Problem, states: Sequence[Sequence[int]], choice: Sequence[int]) -> Decision:
    """Unfold chosen states.

    Args:
        problem: folded problem.
        states: one or more choices of a state for each unit.
        choice: for each node of the program, which of `states` it follows; one number per
            layer gives layers of one kind different strategies.
    """
    program, folding = problem.skeleton.program, problem.skeleton.folding
    table: list[dict[int, Strategy]] = []
    hub_tables: list[dict[tuple[Value, Phase], Sharding]] = []
    for chosen in states:
        mine: dict[int, Strategy] = {}
        hubs: dict[tuple[Value, Phase], Sharding] = {}
        for unit, state in zip(problem.units, chosen, strict=True):
            for node, strategies in unit.strategies.items():
                mine[node] = strategies[state]
            if unit.spec.value is not None:
                hubs[unit.spec.value, unit.spec.phase] = unit.shardings[state]
        table.append(mine)
        hub_tables.append(hubs)
    strategies = tuple(
        table[choice[node]][folding.representative[node]] for node in range(len(program.nodes))
    )
    by_node = [_hubs_by_node(hubs) for hubs in hub_tables]
    hubs = {
        (Value(node, value.output), phase): sharding
        for node, representative in enumerate(folding.representative)
        for (value, phase), sharding in by_node[choice[node]].get(representative, {}).items()
    }
    return Decision(strategies, hubs)


def _hubs_by_node(
    hubs: dict[tuple[Value, Phase], Sharding],
) -> dict[int, dict[tuple[Value, Phase], Sharding]]:
    by_node: dict[int, dict[tuple[Value, Phase], Sharding]] = {}
    for (value, phase), sharding in hubs.items():
        by_node.setdefault(value.node, {})[value, phase] = sharding
    return by_node


def single_choice(problem: Problem, states: Sequence[int]) -> Decision:
    """Unfold one choice of states that all layers follow."""
    return decide(problem, [states], [0] * len(problem.skeleton.program.nodes))


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
    return Decision(strategies, hubs)
