"""Intervals by drawing tasks again: slower than the delta method, and without its linear picture.

Source: Efron 1979; of clusters: Cameron, Gelbach and Miller, Review of Economics and Statistics
2008.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from weft.core.errors import InputError
from weft.tokens.micro.estimate import Interval
from weft.tokens.micro.trials import Trials

__all__ = ["Bootstrap", "bootstrapped"]

MOST_FAILED = 0.1
"""Share of draws without an estimate beyond which the rest say nothing. Chosen: those that fail are
the extreme ones, so an interval of the others is too short by about as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """What came of it.

    Attributes:
        interval: between percentiles of the draws, around the estimate of all trials.
        draws: that gave an estimate.
        failed: that gave none.
    """

    interval: Interval
    draws: int
    failed: int


def bootstrapped(
    trials: Trials,
    statistic: Callable[[Trials], float],
    *,
    draws: int = 399,
    seed: int = 0,
    level: float = 0.95,
) -> Bootstrap:
    """An interval of any number that is made of trials.

    Args:
        trials: whose tasks are drawn with replacement.
        statistic: the number; may raise InputError where a draw does not give one.
        draws: how often.
        seed: the same gives the same.
        level: of the interval.

    Raises:
        InputError: more than a tenth of the draws gave no number.

    Example:
        >>> trials = Trials(inputs={"x": [1, 1, 1]}, outcome=[0, 1, 1], task=["a", "b", "c"])
        >>> print(bootstrapped(trials, lambda own: float(own.y.mean()), draws=200).interval)
        0.667 [0, 1]
    """
    rng = np.random.default_rng(seed)
    value = statistic(trials)
    found: list[float] = []
    for _ in range(draws):
        own = trials.resampled(rng)
        try:
            found.append(statistic(own))
        except InputError:
            continue
    failed = draws - len(found)
    if failed > MOST_FAILED * draws:
        raise InputError(
            need="an estimate from nearly every draw of tasks",
            got=f"none from {failed} of {draws}",
            hint="more tasks, more arms, or a family of fewer parameters",
        )
    low, high = np.quantile(found, [0.5 - level / 2.0, 0.5 + level / 2.0])
    interval = Interval(value=value, low=float(low), high=float(high), level=level)
    return Bootstrap(interval=interval, draws=len(found), failed=failed)
