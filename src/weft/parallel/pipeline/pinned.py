"""Where a pipeline may be cut if modules are pinned to stages.

Stages are runs of an order of the forward pass. So a pinned operator says of all before it that
they are in its stage or an earlier one, and of all after it that they are in its stage or a later
one. The order is that of execution, unless stages that are pinned fall along it where operators lie
side by side: then it is one along which they rise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.core.errors import InfeasibleError
from weft.parallel.pinning import Asked, Pinning, describe
from weft.parallel.pipeline.stages import StageProgram, forward_nodes
from weft.program.graph import Program

__all__ = [
    "allowed_cuts",
    "best_cuts",
    "own_pins",
    "pinned_order",
    "require_stages",
    "stage_bounds",
]


def pinned_order(part: Program, pinning: Pinning) -> list[int]:
    """The nodes of the forward pass in an order whose runs can be stages that keep the pins.

    Args:
        part: the program of one micro-batch.
        pinning: what is pinned in it, from `weft.parallel.pinning.resolve`.

    Returns:
        Execution order if pinned stages rise along it. Otherwise sorted by the highest stage that
        is pinned in a node or in what it depends on, and only then by execution.
    """
    nodes = forward_nodes(part)
    pinned = {
        number: max(asked.wish.stage or 0 for asked in pinning.stages[number])
        for number in nodes
        if pinning.stages.get(number)
    }
    stages = list(pinned.values())
    if stages == sorted(stages):
        return nodes
    low: dict[int, int] = {}
    for number in nodes:
        before = (low.get(value.node, 0) for value in part.operands(number))
        low[number] = max([pinned.get(number, 0), *before])
    return sorted(nodes, key=low.__getitem__)


def stage_bounds(part: Program, pinning: Pinning, num_stages: int) -> dict[int, tuple[int, int]]:
    """The lowest and the highest stage that each node of the forward pass may be in.

    Args:
        part: the program of one micro-batch.
        pinning: what is pinned in it, from `weft.parallel.pinning.resolve`.
        num_stages: how many stages.

    Returns:
        By node number, in the order of `pinned_order`.

    Raises:
        InfeasibleError: the pins ask for an order that no pipeline has; names them.
    """
    nodes = pinned_order(part, pinning)
    pinned = _pinned(part, pinning, nodes, num_stages)
    lowest, highest = 0, num_stages - 1
    low: list[int] = []
    for number in nodes:
        lowest = pinned[number].stage if number in pinned else lowest
        low.append(lowest)
    high: list[int] = []
    for number in reversed(nodes):
        highest = pinned[number].stage if number in pinned else highest
        high.append(highest)
    return dict(zip(nodes, zip(low, reversed(high), strict=True), strict=True))


def allowed_cuts(part: Program, pinning: Pinning, num_stages: int) -> tuple[tuple[int, ...], ...]:
    """For each stage but the first, the nodes that it may begin with, in order.

    Args:
        part: the program of one micro-batch.
        pinning: what is pinned in it, from `weft.parallel.pinning.resolve`.
        num_stages: how many stages, each of at least one node.

    Raises:
        InfeasibleError: the pins ask for an order that no pipeline has, or leave a stage empty.
    """
    bounds = stage_bounds(part, pinning, num_stages)
    nodes = tuple(bounds)
    first, last = [0], [len(nodes)] * (num_stages + 1)
    for stage in range(1, num_stages):
        below = [at for at, node in enumerate(nodes) if bounds[node][1] < stage]
        first.append(max(first[-1], below[-1] if below else -1) + 1)
    for stage in range(num_stages - 1, 0, -1):
        above = [at for at, node in enumerate(nodes) if bounds[node][0] >= stage]
        last[stage] = min([last[stage + 1] - 1, *above[:1]])
    for stage in range(1, num_stages):
        if first[stage] > last[stage]:
            raise _empty(part, pinning, nodes, num_stages)
    return tuple(nodes[first[s] : last[s] + 1] for s in range(1, num_stages))


def best_cuts(
    ends: Sequence[float],
    places: Sequence[int],
    allowed: Sequence[Sequence[int]],
    shares: Sequence[float] = (),
) -> list[int]:
    """Positions at which stages begin, so that the longest stage is shortest.

    Args:
        ends: work up to and with each position [s].
        places: positions that are good to cut at.
        allowed: for each stage but the first, positions at which it may begin; where some of
            them are good, only those count.
        shares: of each stage, how fast it is; equally fast if not given.

    Example:
        >>> best_cuts([1.0, 2.0, 3.0, 4.0], [1, 2, 3], [(1, 3)])
        [1]
    """
    good = frozenset(places)
    narrow = [[p for p in positions if p in good] or [*positions] for positions in allowed]
    fast = shares or [1.0] * (len(allowed) + 1)
    wide = [[*positions] for positions in allowed]
    return _shortest(ends, narrow, fast) or _shortest(ends, wide, fast)


def require_stages(stages: Sequence[StageProgram], part: Program, pinning: Pinning) -> None:
    """Check that pinned operators are in their stages.

    Raises:
        InfeasibleError: one is not; names the pin and the operator.
    """
    if not pinning.stages:
        return
    settled = frozenset(forward_nodes(part))
    for stage in stages:
        for number, asked in own_pins(stage, pinning).stages.items():
            home = stage.origin[number]
            for one in asked:
                if home is not None and home.node in settled and one.wish.stage != stage.number:
                    raise InfeasibleError(
                        need=one.text,
                        got=f"{describe(stage.program, number)} in stage {stage.number}",
                        hint="cut the stages elsewhere",
                        constraint="pins",
                    )


def own_pins(stage: StageProgram, pinning: Pinning) -> Pinning:
    """The pins of what a stage computes, and of the inputs that live there.

    Args:
        stage: cut from the program of one micro-batch.
        pinning: of that program.
    """
    origin = [
        -1 if value is None or node.op == "send" else value.node
        for node, value in zip(stage.program.nodes, stage.origin, strict=True)
    ]
    return pinning.through(origin, stage.program)


@dataclass(frozen=True, slots=True)
class _Place:
    """The stage that a node is pinned to, and the pin that says so."""

    stage: int
    asked: Asked


def _pinned(
    part: Program, pinning: Pinning, nodes: Sequence[int], num_stages: int
) -> dict[int, _Place]:
    """The stage of each pinned node, which never falls along the forward pass.

    Raises:
        InfeasibleError: there is no such stage, the node is no stage's own, or a stage falls.
    """
    found: dict[int, _Place] = {}
    for number in nodes:
        for asked in pinning.stages.get(number, ()):
            place = _Place(asked.wish.stage or 0, asked)
            if place.stage >= num_stages:
                raise InfeasibleError(
                    need=f"a pipeline of more than {place.stage} stages, for {asked.text}",
                    got=f"{num_stages}",
                    hint=f"count stages from 0, or have {place.stage + 1} of them",
                    constraint="pins",
                )
            if number in found and found[number].stage != place.stage:
                raise _falling(part, number, place, number, found[number])
            found[number] = place
    latest = 0
    for number, place in found.items():
        if place.stage < latest:
            raise _falling(part, number, place, *_source(part, number, place, found))
        latest = place.stage
    used = {one.asked.text for one in found.values()}
    idle = [one.text for of in pinning.stages.values() for one in of if one.text not in used]
    if idle:
        raise InfeasibleError(
            need=f"operators that belong to one stage, for {idle[0]}",
            got="only what every stage computes for itself, such as masks and positions",
            hint="drop the pin",
            constraint="pins",
        )
    return found


def _source(
    part: Program, number: int, place: _Place, found: dict[int, _Place]
) -> tuple[int, _Place]:
    """A node of a later stage that the node depends on."""
    before = _ancestors(part, number)
    return next(
        (n, other)
        for n, other in reversed(found.items())
        if other.stage > place.stage and n in before
    )


def _ancestors(part: Program, number: int) -> set[int]:
    seen, stack = {number}, [number]
    while stack:
        for value in part.operands(stack.pop()):
            if value.node not in seen:
                seen.add(value.node)
                stack.append(value.node)
    return seen


def _falling(
    part: Program, number: int, place: _Place, before: int, other: _Place
) -> InfeasibleError:
    here = f"{describe(part, number)} in stage {place.stage}"
    there = f"after {describe(part, before)} in stage {other.stage}"
    if number == before:
        got = f"{here} and in stage {other.stage}"
    else:
        got = f"{here}, {there}, from which a value would have to flow back"
    return InfeasibleError(
        need=f"stages that keep {other.asked.text} and {place.asked.text}",
        got=got,
        hint="drop or change one of the two pins",
        constraint="pins",
        options=(f"without {other.asked.text}", f"without {place.asked.text}"),
    )


def _empty(
    part: Program, pinning: Pinning, nodes: Sequence[int], num_stages: int
) -> InfeasibleError:
    texts = dict.fromkeys(one.text for n in nodes for one in pinning.stages.get(n, ()))
    return InfeasibleError(
        need=f"an operator for each of {num_stages} stages",
        got=f"{len(nodes)} operators of {part.name}, pinned by {', '.join(texts) or 'nobody'}, "
        "which leave a stage empty",
        hint="use fewer stages, or drop a pin",
        constraint="pins",
    )


def _shortest(
    ends: Sequence[float], allowed: Sequence[Sequence[int]], shares: Sequence[float]
) -> list[int]:
    """Cuts with the shortest longest stage and, of those, about even ones; empty if none rise."""
    work = np.array([0.0, *ends])
    at, longest, squares = np.array([0]), np.zeros(1), np.zeros(1)
    steps: list[tuple[list[int], list[int]]] = []
    for positions, share in zip((*allowed, [len(ends)]), shares, strict=True):
        kept: list[int] = []
        origin: list[int] = []
        costs: list[tuple[float, float]] = []
        for position in positions:
            before = int(np.searchsorted(at, position))
            if before == 0:
                continue
            stage = (work[position] - work[at[:before]]) / share
            worst = np.maximum(longest[:before], stage)
            total = np.where(worst <= worst.min() * (1 + 1e-9), squares[:before] + stage**2, np.inf)
            best = int(total.argmin())
            kept.append(position)
            origin.append(best)
            costs.append((float(worst[best]), float(total[best])))
        if not kept:
            return []
        steps.append((kept, origin))
        at = np.array(kept)
        longest, squares = (np.array([cost[k] for cost in costs]) for k in (0, 1))
    cuts: list[int] = []
    place = len(steps[-1][0]) - 1
    for kept, origin in reversed(steps):
        cuts.append(kept[place])
        place = origin[place]
    return cuts[:0:-1]
