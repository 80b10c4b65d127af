"""One curve that answers every memory budget: the programme's optima at all prices of memory.

Each price of a byte has an optimum with a time and a size. Those that are optimal at some price
lie on a convex curve, and between two neighbours of it no price finds anything else. So a
handful of solves, each between two known points at the slope of their chord, give the curve
whole; a budget is then looked up, with the bound that the curve itself gives:

    bound(limit) = max over points of  seconds + price * (bytes - limit)

Layers that are alike share their placements in the programme, so neighbours may lie far apart. A
budget between them is answered by a mix of both, layer by layer.

Source: Everett's multipliers (Operations Research 11, 1963); points by chords as in Eisner and
Severance (Journal of the ACM 23, 1976).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from weft.parallel.exact.flow import Solution
from weft.parallel.exact.unfolded import Mix, Unfolded

__all__ = ["Curve", "Point", "memory_curve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The optimum at a price.

    Attributes:
        price_s_per_byte: the price [s/byte].
        solution: the optimum; its bound includes the price of its memory.
    """

    price_s_per_byte: float
    solution: Solution


@dataclass(frozen=True)
class Curve:
    """Optima at rising prices: ever smaller and slower."""

    points: tuple[Point, ...]

    def answer(self, limit_bytes: float, layers: Unfolded) -> Mix | None:
        """The fastest mix of neighbours that fits a budget; none if the smallest is larger.

        Args:
            limit_bytes: the budget [bytes].
            layers: the programme's problem without folding.
        """
        solutions = [point.solution for point in self.points]
        mixes = (
            layers.mix(small, large, number)
            for large, small in pairwise(solutions)
            if small.num_bytes <= limit_bytes
            for number in range(layers.num_layers + 1)
        )
        fitting = (mix for mix in mixes if mix.num_bytes <= limit_bytes * (1 + 1e-12))
        return min(fitting, key=lambda mix: mix.objective_s, default=None)

    def bound_s(self, limit_bytes: float) -> float:
        """No choice of placements within a budget is faster [s]."""
        return max(
            point.solution.bound_s - point.price_s_per_byte * limit_bytes for point in self.points
        )


def memory_curve(
    solve: Callable[[float], Solution], dearest_s_per_byte: float, most_points: int = 64
) -> Curve:
    """The curve of a programme.

    Args:
        solve: its optimum at a price.
        dearest_s_per_byte: a price at which memory alone decides.
        most_points: solves after which the curve is left as it is.
    """
    found = {0.0: solve(0.0), dearest_s_per_byte: solve(dearest_s_per_byte)}
    open_chords = [(found[0.0], found[dearest_s_per_byte])]
    while open_chords and len(found) < most_points:
        large, small = open_chords.pop(0)
        saved, paid = large.num_bytes - small.num_bytes, small.objective_s - large.objective_s
        if saved <= 0 or paid <= 0:
            continue
        price = paid / saved
        middle = solve(price)
        cost = middle.objective_s + price * middle.num_bytes
        chord = large.objective_s + price * large.num_bytes
        if price in found or cost >= chord - 1e-9 * abs(chord):
            continue
        found[price] = middle
        open_chords += [(large, middle), (middle, small)]
    return Curve(tuple(Point(price_s_per_byte=p, solution=found[p]) for p in sorted(found)))
