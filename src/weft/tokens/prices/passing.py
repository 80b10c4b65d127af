"""What a task that passes costs: money for all tasks, over those that passed.

    cost of pass = sum of costs / number that passed

Those that failed were paid for, too. Of several ways to do a task, the one with the least cost of
pass gets the most done for the money.

Source: Erol et al., Cost-of-Pass: An Economic Framework for Evaluating Language Models, arXiv
2504.13359, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.tokens.prices.cost import Cost

__all__ = ["PassCost", "pass_cost"]

LEVEL = 0.95
_DRAWS = 2000
"""Resamples; the ends of a 95 % interval are then known to about a hundredth of its width (Efron &
Tibshirani, An Introduction to the Bootstrap, 1993, section 14.3)."""
_MANY = 2000
"""With so many tasks the mean is normal enough, and resampling slow. Chosen."""
_NORMAL = 1.959964
"""Quantile of the normal distribution for 95 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCost:
    """Cost of a passed task, with an interval over which tasks there might have been.

    Attributes:
        tasks, passed: how many.
        usd: between what unknown tokens and prices leave open [USD]; None where no task passed, or
            the upper end where a price is unknown.
        low, high: ends of the interval, with what is unknown of the costs in it [USD]; the upper
            end is None where nothing limits it.
    """

    tasks: int
    passed: int
    usd: tuple[float | None, float | None]
    low: float
    high: float | None


def pass_cost(costs: Sequence[Cost], passed: Sequence[bool], *, seed: int = 0) -> PassCost:
    """Estimate from tasks.

    Tasks are resampled, costs and outcomes together, since those that fail often cost more.

    Args:
        costs: of each task.
        passed: whether it did.
        seed: of the resampling.

    Example:
        >>> from decimal import Decimal
        >>> dear = Cost(Decimal(3), Decimal(3))
        >>> told = pass_cost([dear] * 10, [True] * 5 + [False] * 5)
        >>> told.usd, told.low < 6 < told.high
        ((6.0, 6.0), True)
    """
    count, good = len(costs), sum(passed)
    won = np.array(passed, dtype=float)
    lows = np.array([float(own.low) for own in costs])
    is_known = all(own.high is not None for own in costs)
    highs = np.array([float(own.high or 0) for own in costs]) if is_known else None
    if good == 0:
        # With a share of passes of at most p, none of n passes with a chance of (1 - p)^n.
        most = 1.0 - ((1.0 - LEVEL) / 2.0) ** (1.0 / count) if count else 1.0
        mean = float(lows.mean()) if count else 0.0
        return PassCost(tasks=count, passed=0, usd=(None, None), low=mean / most, high=None)
    low, _ = _interval(lows, won, seed)
    high = None if highs is None else _interval(highs, won, seed)[1]
    return PassCost(
        tasks=count,
        passed=good,
        usd=(float(lows.sum()) / good, None if highs is None else float(highs.sum()) / good),
        low=low,
        high=high if high is None or math.isfinite(high) else None,
    )


def _interval(costs: np.ndarray, won: np.ndarray, seed: int) -> tuple[float, float]:
    count = len(costs)
    ratio = float(costs.sum() / won.sum())
    if count >= _MANY:
        if ratio == 0.0:
            return 0.0, 0.0
        # By the delta method, on logarithms.
        influence = costs / costs.mean() - won / won.mean()
        spread = math.exp(_NORMAL * float(influence.std()) / math.sqrt(count))
        return ratio / spread, ratio * spread
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1.0 / count), size=_DRAWS)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (drawn @ costs) / (drawn @ won)
    ratios = np.sort(np.where(np.isnan(ratios), np.inf, ratios))
    tail = int(_DRAWS * (1.0 - LEVEL) / 2.0)
    return float(ratios[tail]), float(ratios[_DRAWS - 1 - tail])
