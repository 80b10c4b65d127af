"""From the states that a solver chose to a decision for the whole program.

A folded unit decides for all layers that it stands for.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from weft.parallel.copies import Decision
from weft.parallel.placement import Sharding
from weft.parallel.plan import Strategy
from weft.parallel.problem import Problem
from weft.program.graph import Phase, Value

__all__ = ["mixed_choice", "single_choice"]


def single_choice(
    problem: Problem, states: Sequence[int], origin: Sequence[int] | None = None
) -> Decision:
    """Unfold one choice of states that all layers follow.

    Args:
        problem: folded problem.
        states: chosen state of each unit.
        origin: for each node of a shortened program the node of the whole one; the whole
            program if not given.
    """
    representative = problem.skeleton.folding.representative
    nodes = range(len(representative)) if origin is None else origin
    strategies: dict[int, Strategy] = {}
    hubs: dict[int, list[tuple[int, Phase, Sharding]]] = {}
    staying: set[tuple[int, int]] = set()
    for unit, state in zip(problem.units, states, strict=True):
        for node, own in unit.strategies.items():
            strategies[node] = own[state]
        value = unit.spec.value
        if value is None:
            continue
        phases = (Phase.FORWARD, Phase.BACKWARD) if unit.spec.stays else (unit.spec.phase,)
        entries = [(value.output, phase, unit.shardings[state]) for phase in phases]
        hubs.setdefault(value.node, []).extend(entries)
        if unit.spec.stays:
            staying.add((value.node, value.output))
    return Decision(
        tuple(strategies[representative[old]] for old in nodes),
        {
            (Value(new, output), phase): sharding
            for new, old in enumerate(nodes)
            for output, phase, sharding in hubs.get(representative[old], ())
        },
        frozenset(
            Value(new, output)
            for new, old in enumerate(nodes)
            for output, _, _ in hubs.get(representative[old], ())
            if (representative[old], output) in staying
        ),
    )


def mixed_choice(
    problem: Problem, states: Sequence[int], others: Sequence[int], nodes: Set[int]
) -> Decision:
    """Unfold two choices of states: some nodes follow the other one.

    Args:
        problem: folded problem.
        states: chosen state of each unit.
        others: the other choice.
        nodes: nodes of the whole program that follow the other choice, layer by layer.
    """
    first, second = single_choice(problem, states), single_choice(problem, others)
    strategies = tuple(
        second.strategies[n] if n in nodes else own for n, own in enumerate(first.strategies)
    )
    hubs = {key: own for key, own in first.hubs.items() if key[0].node not in nodes}
    hubs |= {key: own for key, own in second.hubs.items() if key[0].node in nodes}
    return Decision(strategies, hubs, first.lasting | second.lasting)
