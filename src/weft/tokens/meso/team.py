"""How many agents: value of one more against its cost and that of talking to all others.

    V(N) - a N - b N (N - 1) / 2,     V(N) = v N ** e,  0 < e < 1

with a and b fitted to what teams of several sizes spent, and v and e to what they were worth. The
best N is found over whole numbers; its interval is over draws of the runs.

Source: Brooks, The Mythical Man-Month, 1975, chapter 2 (pairs that talk); Coase 1937.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.core.errors import InputError
from weft.tokens.micro.estimate import Floats, Interval, Ints

__all__ = ["Team", "team_size"]

LARGEST = 1000
"""Agents up to which the best number is looked for. Chosen: far beyond any team in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """What was fitted.

    Attributes:
        agents: the best number, with percentiles of its draws.
        each_usd: a, cost of an agent [usd].
        pair_usd: b, cost of each pair that talks [usd].
        exponent: e of the value.
    """

    agents: Interval
    each_usd: Interval
    pair_usd: Interval
    exponent: Interval


def team_size(
    agents: Sequence[int],
    usd: Sequence[float],
    worth: Sequence[float],
    *,
    draws: int = 399,
    seed: int = 0,
    level: float = 0.95,
) -> Team:
    """From runs of teams.

    Args:
        agents: of each run; sizes drawn at random, or else hard tasks get the large teams.
        usd: spent [usd].
        worth: of what came of it, above zero [usd].
        draws: of runs, for intervals.
        seed: the same gives the same.
        level: of the intervals.

    Raises:
        InputError: fewer than three sizes, or a run that was worth nothing.
    """
    n, spent, value = (np.asarray(own, dtype=np.float64) for own in (agents, usd, worth))
    if len(set(agents)) < 3 or not len(n) == len(spent) == len(value) or float(value.min()) <= 0.0:
        raise InputError(
            need="runs of three sizes or more, each worth more than nothing",
            got=f"sizes {sorted(set(agents))}, {len(spent)} costs, {len(value)} worths",
            hint="average runs that failed with others of their size",
        )
    rng = np.random.default_rng(seed)
    point = _fitted(n, spent, value)
    drawn: list[Floats] = []
    while len(drawn) < draws:
        rows: Ints = rng.integers(len(n), size=len(n))
        if len(np.unique(n[rows])) >= 3:
            drawn.append(_fitted(n[rows], spent[rows], value[rows]))
    low, high = np.quantile(np.array(drawn), [0.5 - level / 2.0, 0.5 + level / 2.0], axis=0)
    spans = [
        Interval(value=float(p), low=float(a), high=float(b), level=level)
        for p, a, b in zip(point, low, high, strict=True)
    ]
    return Team(agents=spans[0], each_usd=spans[1], pair_usd=spans[2], exponent=spans[3])


def _fitted(n: Floats, spent: Floats, value: Floats) -> Floats:
    """The best number, a, b and e."""
    design = np.column_stack([n, n * (n - 1.0) / 2.0])
    a, b = np.linalg.lstsq(design, spent, rcond=None)[0]
    logs = np.column_stack([np.ones_like(n), np.log(n)])
    level, exponent = np.linalg.lstsq(logs, np.log(value), rcond=None)[0]
    sizes = np.arange(1.0, LARGEST + 1.0)
    net = np.exp(level) * sizes**exponent - a * sizes - b * sizes * (sizes - 1.0) / 2.0
    return np.array([sizes[int(np.argmax(net))], a, b, exponent])
