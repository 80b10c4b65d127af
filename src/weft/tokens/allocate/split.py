"""A budget over agents or tasks, so that a dollar brings the same everywhere.

    max sum of v_i(x_i)   such that   sum of x_i <= B, x_i >= 0

At the optimum v_i'(x_i) = lambda for all that get anything: water finds its level. lambda, the
shadow price, is what one dollar more of budget would bring. For any lambda

    lambda B + sum of max (v_i(x) - lambda x)

is at least the best value (weak duality): the bound that a split reports.

Source: Boyd and Vandenberghe, Convex Optimization, 2004, sections 5.1 and 5.5.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from weft.core.errors import InputError
from weft.tokens.allocate.curve import Curve

__all__ = ["Split", "split_budget"]

STEEPEST, FLATTEST = 1e18, 1e-18
"""Shadow prices between which the level is sought. Chosen: far beyond
use; where a dollar more brings less than the least of them, it is not spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Who gets what.

    Attributes:
        usd: by name [usd].
        value: of all together.
        bound: that no split of the budget goes beyond.
        shadow_price: what one dollar more would bring; zero where not all is spent.
    """

    usd: Mapping[str, float]
    value: float
    bound: float
    shadow_price: float


def split_budget(curves: Mapping[str, Curve], budget_usd: float) -> Split:
    """The best split.

    Args:
        curves: worth of dollars, by name.
        budget_usd: to be split [usd].

    Raises:
        InputError: there is nobody, or no budget.

    Example:
        >>> from weft.tokens.allocate import PowerCurve
        >>> one, two = (PowerCurve(worth=worth, exponent=0.5) for worth in (1, 2))
        >>> found = split_budget({"a": one, "b": two}, 5.0)
        >>> {name: round(usd, 6) for name, usd in found.usd.items()}, round(found.shadow_price, 6)
        ({'a': 1.0, 'b': 4.0}, 0.5)
    """
    if not curves or not 0.0 < budget_usd < math.inf:
        raise InputError(
            need="a budget above zero, and somebody to spend it",
            got=f"{budget_usd} usd for {len(curves)}",
            hint='parse_money("50usd"), for example',
        )
    if sum(curve.most_usd for curve in curves.values()) <= budget_usd:
        usd = {name: curve.most_usd for name, curve in curves.items()}
        value = sum(curve.value(usd[name]) for name, curve in curves.items())
        return Split(usd=usd, value=value, bound=value, shadow_price=0.0)
    price = _level(curves, budget_usd)
    spans = {name: curve.bought(price) for name, curve in curves.items()}
    # Straight runs of that very slope are filled one after the other.
    left = budget_usd - sum(least for least, _ in spans.values())
    usd: dict[str, float] = {}
    for name, (least, most) in spans.items():
        more = min(max(left, 0.0), most - least)
        usd[name] = least + more
        left -= more
    value = sum(curve.value(usd[name]) for name, curve in curves.items())
    bound = price * budget_usd
    bound += sum(c.value(spans[n][0]) - price * spans[n][0] for n, c in curves.items())
    return Split(usd=usd, value=value, bound=max(bound, value), shadow_price=price)


def _level(curves: Mapping[str, Curve], budget_usd: float) -> float:
    """The lowest price, to the last digits, at which no more than the budget has to be spent."""
    low, high = math.log(FLATTEST), math.log(STEEPEST)
    while high - low > 1e-15 * max(abs(low), abs(high), 1.0):
        middle = 0.5 * (low + high)
        needed = sum(curve.bought(math.exp(middle))[0] for curve in curves.values())
        low, high = (low, middle) if needed <= budget_usd else (middle, high)
    return math.exp(high)
