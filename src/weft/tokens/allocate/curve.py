"""What an agent or task is worth by dollars spent on it: curves that rise ever more slowly.

A curve answers two questions: its value, and how much of it is bought at a price of money (a shadow
price), which is where its slope is that price.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from weft.core.errors import InputError

__all__ = ["Curve", "OddsCurve", "PowerCurve", "SaturatingCurve", "StepCurve"]

AS_STEEP = 1e-12
"""Slopes this close, by share, are the same: a price found by halving is off by rounding. Chosen: a
thousand times that, and no difference in dollars that anybody could see."""
NOTHING = 1e-18
"""Of the dollars that make odds even, below which nothing is spent. Chosen: elasticities near one
would else be followed down to the smallest number there is."""


class Curve(Protocol):
    """Concave, rising, worth nothing at nothing."""

    @property
    def most_usd(self) -> float:
        """Beyond this nothing is spent; may be infinite [usd]."""
        ...

    def value(self, usd: float) -> float:
        """Worth of so many dollars."""
        ...

    def slope(self, usd: float) -> float:
        """Worth of one dollar more."""
        ...

    def bought(self, price: float) -> tuple[float, float]:
        """Dollars spent where a dollar has to bring `price`: the least and the most that do best.

        They differ where the curve is straight and has that slope.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerCurve:
    """`worth * usd ** exponent`, as of a Cobb-Douglas function.

    Raises:
        InputError: the exponent is not between 0 and 1, or worth is not above zero.

    Example:
        >>> PowerCurve(worth=2.0, exponent=0.5).bought(0.5)
        (4.0, 4.0)
    """

    worth: float
    exponent: float
    most_usd: float = math.inf

    def __post_init__(self) -> None:
        _require(0.0 < self.exponent < 1.0 and self.worth > 0.0 < self.most_usd, self)

    def value(self, usd: float) -> float:
        """Worth."""
        return self.worth * usd**self.exponent

    def slope(self, usd: float) -> float:
        """Infinite at nothing."""
        if usd <= 0.0:
            return math.inf
        return self.worth * self.exponent * usd ** (self.exponent - 1.0)

    def bought(self, price: float) -> tuple[float, float]:
        """Where the slope is the price."""
        at = (self.worth * self.exponent / price) ** (1.0 / (1.0 - self.exponent))
        at = min(at, self.most_usd)
        return at, at


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturatingCurve:
    """`worth * (1 - exp(-usd / scale_usd))`: tries that each succeed with the same chance.

    Raises:
        InputError: worth or scale are not above zero.

    Example:
        >>> round(SaturatingCurve(worth=1.0, scale_usd=2.0).value(2.0), 3)
        0.632
    """

    worth: float
    scale_usd: float
    most_usd: float = math.inf

    def __post_init__(self) -> None:
        _require(self.worth > 0.0 < self.scale_usd and self.most_usd > 0.0, self)

    def value(self, usd: float) -> float:
        """Worth."""
        return -self.worth * math.expm1(-usd / self.scale_usd)

    def slope(self, usd: float) -> float:
        """Falls by a factor of e with each scale."""
        return self.worth / self.scale_usd * math.exp(-usd / self.scale_usd)

    def bought(self, price: float) -> tuple[float, float]:
        """Nothing at prices above the first slope."""
        at = self.scale_usd * math.log(max(self.worth / (self.scale_usd * price), 1.0))
        at = min(at, self.most_usd)
        return at, at


@dataclass(frozen=True, slots=True, kw_only=True)
class OddsCurve:
    """`worth * o / (1 + o)` with odds of passing `o = (usd / even_usd) ** elasticity`.

    What a logit in logarithms of tokens says (`weft.tokens.micro`); concave up to an elasticity of
    1.

    Raises:
        InputError: the elasticity is not above 0 and at most 1, or another number not above zero.

    Example:
        >>> OddsCurve(worth=1.0, even_usd=0.5, elasticity=0.5).value(0.5)
        0.5
    """

    worth: float
    even_usd: float
    elasticity: float
    most_usd: float = math.inf

    def __post_init__(self) -> None:
        positive = self.worth > 0.0 < self.even_usd and self.most_usd > 0.0
        _require(positive and 0.0 < self.elasticity <= 1.0, self)

    def value(self, usd: float) -> float:
        """Worth of the chance."""
        odds = (usd / self.even_usd) ** self.elasticity
        return self.worth * odds / (1.0 + odds) if odds < math.inf else self.worth

    def slope(self, usd: float) -> float:
        """Elasticity times p (1 - p) over dollars."""
        if usd <= 0.0:
            return math.inf if self.elasticity < 1.0 else self.worth / self.even_usd
        odds = (usd / self.even_usd) ** self.elasticity
        return self.worth * self.elasticity * odds / (1.0 + odds) ** 2 / usd

    def bought(self, price: float) -> tuple[float, float]:
        """Where the slope is the price, by halving: it falls throughout."""
        if self.slope(0.0) <= price:
            return 0.0, 0.0
        low, high = 0.0, min(self.most_usd, self.worth / price)
        # A dollar that has to bring `price` is not spent beyond worth / price.
        if self.slope(high) >= price:
            return high, high
        while high - low > max(1e-14 * high, NOTHING * self.even_usd):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.slope(middle) > price else (low, middle)
        return low, low


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCurve:
    """Straight from point to point, from (0, 0): measured, for example a hull of arms.

    Attributes:
        points: dollars and worth, both rising, by slopes that fall.

    Raises:
        InputError: they do not.

    Example:
        >>> StepCurve(points=((1.0, 3.0), (2.0, 4.0))).bought(1.0)
        (1.0, 2.0)
    """

    points: Sequence[tuple[float, float]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", tuple((float(u), float(v)) for u, v in self.points))
        spans = [b[0] - a[0] for a, b in self._runs()]
        slopes = [_slope(*run) for run in self._runs()] if min(spans, default=0) > 0 else []
        falls = all(a >= b for a, b in pairwise(slopes))
        _require(bool(slopes) and falls and slopes[-1] >= 0.0, self)

    @staticmethod
    def hull(points: Sequence[tuple[float, float]]) -> StepCurve:
        """The best mixes of measured points, from nothing on.

        Args:
            points: dollars and worth, in any order.

        Raises:
            InputError: none is worth anything.

        Example:
            >>> StepCurve.hull([(4.0, 3.5), (3.0, 1.0), (1.0, 2.0)]).points
            ((1.0, 2.0), (4.0, 3.5))
        """
        chain = [(0.0, 0.0)]
        for usd, worth in sorted(points):
            if worth <= chain[-1][1]:
                continue
            if usd <= chain[-1][0] and len(chain) > 1:
                chain.pop()  # as dear, and worth less
            while len(chain) > 1 and _slope(chain[-2], chain[-1]) <= _slope(
                chain[-1], (usd, worth)
            ):
                chain.pop()
            chain.append((usd, worth))
        return StepCurve(points=chain[1:])

    @property
    def most_usd(self) -> float:
        """Of the last point [usd]."""
        return self.points[-1][0]

    def value(self, usd: float) -> float:
        """Between the points on either side."""
        for (a, low), (b, high) in self._runs():
            if usd <= b:
                return low + (high - low) * (usd - a) / (b - a)
        return self.points[-1][1]

    def slope(self, usd: float) -> float:
        """Of the run that begins there, or goes on."""
        for a, b in self._runs():
            if usd < b[0]:
                return _slope(a, b)
        return 0.0

    def bought(self, price: float) -> tuple[float, float]:
        """All runs that are steeper, and at most those as steep."""
        least = most = 0.0
        for a, b in self._runs():
            steepness = _slope(a, b)
            least = b[0] if steepness > price * (1.0 + AS_STEEP) else least
            most = b[0] if steepness >= price * (1.0 - AS_STEEP) else most
        return least, most

    def _runs(self) -> list[tuple[tuple[float, float], tuple[float, float]]]:
        return list(pairwise([(0.0, 0.0), *self.points]))


def _slope(a: tuple[float, float], b: tuple[float, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])


def _require(holds: bool, curve: object) -> None:
    if not holds:
        raise InputError(
            need="a curve that rises and ever more slowly",
            got=f"{curve}",
            hint="take the hull of measured points: a mix of two arms has what is between them",
        )
