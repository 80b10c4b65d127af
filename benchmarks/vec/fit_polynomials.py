"""Coefficients of the polynomials in src/weft/fusion/emit/functions.h.

    python benchmarks/vec/fit_polynomials.py

Each polynomial is the minimax approximation, in relative error, of what is left of a function
beyond the terms that are written out: by the exchange of Remez on Chebyshev points, in 40 digits.
Coefficients are rounded to the type that they are used in afterwards; the error that is printed is
that with rounded coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import mpmath as mp
import numpy as np

Real = Any  # of mpmath, which has no stubs
Function = Callable[[Real], Real]

POINTS = 200
"""Where the error is looked at."""
DIGITS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """f(x) as terms(x) + x^power P(x), or P(x^2).

    Attributes:
        f: the function.
        terms: what is written out.
        power: of x before the polynomial.
        even: whether the polynomial is one in x^2.
        low, high: the interval.
        degree: of the polynomial.
        double: whether coefficients are doubles.
    """

    f: Function
    terms: Function
    power: int
    low: float
    high: float
    degree: int
    even: bool = False
    double: bool = False


def _zero(x: Real) -> Real:
    return mp.mpf(0)


def _log2_ratio(s: Real) -> Real:
    return 2 * mp.atanh(s) / mp.log(2)


HALF_LN2 = 0.347
"""A little more than half of ln 2, as rounding decides which multiple is nearest."""
RIGHT_ANGLE_8TH = 0.786
"""A little more than pi/4."""
STEP = 65 / 256
"""Between the points around which the error function is approximated: sixteen reach to 3.93, from
where on it is 1 in float32; a whole multiple of it has few bits."""

FITS: Mapping[str, Fit] = MappingProxyType(
    {
        "exponential": Fit(
            f=mp.expm1,
            terms=lambda r: r + r * r / 2,
            power=3,
            low=-HALF_LN2,
            high=HALF_LN2,
            degree=3,
        ),
        "exponential in doubles": Fit(
            f=mp.expm1,
            terms=lambda r: r + r * r / 2,
            power=3,
            low=-HALF_LN2,
            high=HALF_LN2,
            degree=9,
            double=True,
        ),
        "logarithm": Fit(
            f=mp.log1p, terms=lambda f: f - f * f / 2, power=3, low=-0.25, high=0.5, degree=7
        ),
        "sine": Fit(
            f=mp.sin,
            terms=lambda r: r,
            power=3,
            low=0.0,
            high=RIGHT_ANGLE_8TH,
            degree=2,
            even=True,
        ),
        "cosine": Fit(
            f=mp.cos,
            terms=lambda r: 1 - r * r / 2,
            power=4,
            low=0.0,
            high=RIGHT_ANGLE_8TH,
            degree=2,
            even=True,
        ),
        "log2 of a ratio": Fit(
            f=_log2_ratio,
            terms=_zero,
            power=1,
            low=0.0,
            high=0.2001,
            degree=4,
            even=True,
            double=True,
        ),
        "power of two": Fit(
            f=lambda f: mp.mpf(2) ** f,
            terms=lambda f: mp.mpf(1),
            power=1,
            low=-0.5,
            high=0.5,
            degree=5,
            double=True,
        ),
        "error function 0": Fit(
            f=mp.erf, terms=lambda t: t, power=1, low=0.0, high=STEP * 0.501, degree=4
        ),
    }
    | {
        f"error function {n}": Fit(
            f=lambda t, n=n: mp.erf(n * STEP + t),
            terms=_zero,
            power=0,
            low=-STEP * 0.501,
            high=STEP * 0.501,
            degree=5,
        )
        for n in range(1, 16)
    }
)


def fitted(fit: Fit) -> tuple[list[float], float]:
    """Rounded coefficients, of the constant first, and the largest relative error with them."""
    with mp.workdps(DIGITS):
        low, high = mp.mpf(fit.low), mp.mpf(fit.high)
        if fit.even:
            low, high = low**2, high**2
        middle, half = (low + high) / 2, (high - low) / 2
        points = [middle - half * mp.cos(mp.pi * (2 * k + 1) / (2 * POINTS)) for k in range(POINTS)]
        xs = [mp.sqrt(t) for t in points] if fit.even else points
        factors = [x**fit.power for x in xs]
        values = [fit.f(x) for x in xs]
        terms = [fit.terms(x) for x in xs]
        goals = [(v - t) / c for v, t, c in zip(values, terms, factors, strict=True)]
        weights = [abs(c / v) for v, c in zip(values, factors, strict=True)]
        exact = _remez(points, goals, weights, fit.degree)
        kind = float if fit.double else np.float32
        rounded = [float(kind(float(c))) for c in exact]
        errors = [
            w * abs(mp.polyval(rounded[::-1], t) - g)
            for t, g, w in zip(points, goals, weights, strict=True)
        ]
        return rounded, float(max(errors))


def _remez(points: list[Real], goals: list[Real], weights: list[Real], degree: int) -> list[Real]:
    """Coefficients of the polynomial whose weighted error at the points is least."""
    count = degree + 2
    last = len(points) - 1
    chosen = [round(last * (1 - float(mp.cos(mp.pi * k / (count - 1)))) / 2) for k in range(count)]
    while True:
        system, right = mp.matrix(count, count), mp.matrix(count, 1)
        for row, at in enumerate(chosen):
            for power in range(degree + 1):
                system[row, power] = points[at] ** power
            system[row, count - 1] = (-1) ** row / weights[at]
            right[row] = goals[at]
        found = list(mp.lu_solve(system, right))[:-1]
        errors = [
            w * (mp.polyval(found[::-1], t) - g)
            for t, g, w in zip(points, goals, weights, strict=True)
        ]
        extremes = _extremes(errors, count)
        if extremes == chosen or len(extremes) < count:
            return found
        chosen = extremes


def _extremes(errors: list[Real], count: int) -> list[int]:
    """Where the error is largest between changes of its sign; as many as are needed."""
    found: list[int] = []
    for at, error in enumerate(errors):
        if found and (error > 0) == (errors[found[-1]] > 0):
            if abs(error) > abs(errors[found[-1]]):
                found[-1] = at
        else:
            found.append(at)
    while len(found) > count:
        found.pop(0 if abs(errors[found[0]]) < abs(errors[found[-1]]) else -1)
    return found


def main() -> None:
    """Print the coefficients."""
    for name, fit in FITS.items():
        coefficients, error = fitted(fit)
        digits = 17 if fit.double else 9
        words = ", ".join(f"{c:.{digits}g}" for c in coefficients)
        print(f"{name}, off by {error:.2g}: {words}")


if __name__ == "__main__":
    main()
