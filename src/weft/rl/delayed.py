"""Gradient descent on a quadratic with gradients that arrive late: what is stable, and how fast.

Along a direction of curvature h, with x = step size * h, what a step does is a linear filter:

    g(t) = h w(t - lag)                                a late gradient
    u(t) = g(t) - (what GAC takes out)                 `Lead`, a filter on gradients
    m(t) = beta m(t - 1) + (1 - beta) u(t)             momentum, of gain 1
    w(t + 1) = w(t) - step m(t)

and it is stable where all roots of its characteristic polynomial lie inside the unit circle:

    (z - 1) (1 - beta / z) D(1/z) + x (1 - beta) N(1/z) z^-lag = 0,     Lead = N / D

`torch.optim.SGD(momentum=beta, dampening=beta)` is this, and so is Adam once its second moment
stands still, with x = step size * h / sqrt(v).

Knows polynomials. Does not know tensors or optimizers: GAC is a linear filter only as long as its
factors do not depend on the direction in question, which docs/explain/stale_gradients.md discusses
and `weft bench gac-phase` puts to the test with the optimizers themselves.

Source: delayed heavy ball without a filter is a classical delay equation; its threshold at beta = 0
is 2 sin(pi / (4 lag + 2)) (Levin and May 1976, Theoretical Population Biology 9, for the same
recursion). Everything with a filter is derived in the page above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, pi, sqrt

import numpy as np
from numpy.polynomial import polynomial as ascending
from numpy.typing import NDArray

from weft.core.errors import InputError

__all__ = [
    "PLAIN",
    "Delayed",
    "Lead",
    "applied_factor",
    "guaranteed_step",
    "mean_factor",
    "momentum_cosine",
]

Taps = tuple[float, ...]
Floats = NDArray[np.float64]

_PER_TURN = 48
"""Points at which the phase is looked at, for each half turn it makes at most.
Chosen: crossings are then far apart beside the grid; 192 moved no threshold of the tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """A filter on gradients, as what GAC takes out is one as long as its factors stand still.

    Attributes:
        over: coefficients of 1, 1/z, 1/z^2, ... above the line.
        under: the same below it; the first is 1.

    Raises:
        InputError: coefficients that are not finite, or a filter that is unstable by itself.

    Example:
        >>> Lead.previous(0.5).over, Lead.previous(0.5).gain
        ((1.0, -0.5), 0.5)
    """

    over: Taps = (1.0,)
    under: Taps = (1.0,)

    def __post_init__(self) -> None:
        taps = (*self.over, *self.under)
        if not self.over or not self.under or not all(map(isfinite, taps)) or self.under[0] != 1.0:
            raise InputError(
                need="finite coefficients, the first of those under the line being 1",
                got=f"over {self.over}, under {self.under}",
                hint="Lead() changes nothing, Lead.previous(0.5) takes out half of the one before",
            )
        if len(self.under) > 1 and _radius(np.array(self.under[::-1])) >= 1.0:
            raise InputError(
                need="a filter that is stable by itself",
                got=f"under {self.under}",
                hint="factors on applied gradients that are all alike and below 1 always are",
            )

    @property
    def gain(self) -> float:
        """What is left of a gradient that stays the same."""
        return sum(self.over) / sum(self.under)

    @classmethod
    def previous(cls, factor: float, *, back: int = 1) -> Lead:
        """u(t) = g(t) - factor * g(t - back); the reference of `Previous` at back = 1."""
        _check(back >= 1, "a gradient at least one step back", f"back {back}")
        return cls(over=(1.0, *(0.0,) * (back - 1), -factor))

    @classmethod
    def mean(cls, factor: float, decay: float) -> Lead:
        """u(t) = g(t) - factor * r(t - 1), with r the running mean of `Ema(decay)`."""
        return cls(over=(1.0, -decay - factor * (1.0 - decay)), under=(1.0, -decay))

    @classmethod
    def applied(cls, factor: float, count: int) -> Lead:
        """u(t) = g(t) - factor * (u(t - 1) + ... + u(t - count)), as with `Applied(count)`."""
        _check(count >= 0, "a count of at least 0", f"count {count}")
        return cls(under=(1.0, *(factor,) * count))


PLAIN = Lead()
"""Gradients as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delayed:
    """Descent with late gradients along one direction of a quadratic.

    Attributes:
        lag: steps between the weights that a gradient belongs to and those it is used on.
        beta: decay of the momentum, 0 for none.
        lead: what is done to gradients first.
        known: share of lag * curvature that delay compensation knows: it adds
            known * h * (w(t) - w(t - lag)) to the gradient. 1 is exact, 0 is none.

    Raises:
        InputError: a lag below 0, a beta outside of [0, 1), or a share that is not finite.

    Example:
        >>> round(Delayed(lag=4).largest_step(), 3), Delayed(lag=0).largest_step()
        (0.347, 2.0)
    """

    lag: int
    beta: float = 0.0
    lead: Lead = PLAIN
    known: float = 0.0

    def __post_init__(self) -> None:
        if self.lag < 0 or not 0.0 <= self.beta < 1.0 or not isfinite(self.known):
            raise InputError(
                need="a lag of at least 0, 0 <= beta < 1, and a finite share that is known",
                got=f"lag {self.lag}, beta {self.beta}, known {self.known}",
                hint="Delayed(lag=4, beta=0.9)",
            )

    def polynomial(self, x: float) -> Floats:
        """The characteristic polynomial, coefficients of ascending powers of z.

        Args:
            x: step size times curvature.

        Raises:
            InputError: it is not finite.
        """
        _check(isfinite(x), "a finite step size times curvature", str(x))
        still, moved = self._parts()
        return np.asarray(ascending.polytrim(still + x * moved), dtype=np.float64)

    def growth(self, x: float) -> float:
        """By what an error is multiplied each step in the long run; below 1 where it is stable."""
        return _radius(self.polynomial(x))

    def largest_step(self) -> float:
        """Up to which x = step size times curvature every smaller x is stable, too.

        Where a root leaves the unit circle, at an angle w, x = -still(e^iw) / moved(e^iw) is real
        and positive; the smallest of these is the answer.

        Returns:
            The threshold; infinity if there is none, 0 if no step is stable however small.
        """
        if self.lead.gain <= 0.0:
            return 0.0
        still, moved = self._parts()

        def ratio(angles: Floats) -> NDArray[np.complex128]:
            z = np.exp(1j * angles)
            with np.errstate(divide="ignore", invalid="ignore"):
                found = -ascending.polyval(z, still) / ascending.polyval(z, moved)
            return np.asarray(found, dtype=np.complex128)

        count = _PER_TURN * (len(still) + 1)
        angles = np.linspace(0.0, pi, count + 1)[1:]
        found = ratio(angles)
        sides = np.signbit(found.imag)
        at = np.flatnonzero(sides[1:] != sides[:-1])
        low, high, side = angles[at], angles[at + 1], sides[at]
        for _ in range(48):
            middle = (low + high) / 2
            is_low = np.signbit(ratio(middle).imag) == side
            low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
        # Where half a turn is reached, the ratio is real without crossing.
        candidates = np.append(ratio(low).real, found[-1].real)
        return float(min(candidates[candidates > 0.0], default=inf))

    def net_step(self) -> float:
        """The threshold as the step that a gradient which stays the same would make with it.

        Taking something out of gradients makes steps shorter, and so does a smaller step size. Only
        what is gained in this unit is gained beyond that.
        """
        return self.largest_step() * self.lead.gain

    def slowest(self, x: float, spread: float, *, points: int = 12) -> float:
        """The largest growth over curvatures from h / spread to h.

        Args:
            x: step size times h, the largest curvature.
            spread: the condition number.
            points: curvatures to look at, evenly apart in their logarithm.
        """
        return max(self.growth(float(one)) for one in x * np.geomspace(1.0 / spread, 1.0, points))

    def best_growth(self, spread: float) -> tuple[float, float]:
        """The step at which the slowest direction is fastest, and how fast it is there.

        Args:
            spread: the condition number.

        Returns:
            Step size times the largest curvature, and the growth of an error in each step.

        Raises:
            InputError: a condition number below 1.
        """
        _check(1.0 <= spread < inf, "a condition number of at least 1", f"spread {spread}")
        high = self.largest_step()
        if not 0.0 < high < inf:
            return 0.0, 1.0
        coarse = [high * share for share in np.linspace(0.06, 0.96, 16)]
        best = min(coarse, key=lambda x: self.slowest(x, spread))
        fine = [best * (1.0 + 0.01 * n) for n in range(-6, 7)]
        best = min(fine, key=lambda x: self.slowest(x, spread))
        return best, self.slowest(best, spread)

    def _parts(self) -> tuple[Floats, Floats]:
        """What the curvature does not move, and what it is multiplied by, in powers of z."""
        under, over = np.array(self.lead.under), np.array(self.lead.over)
        # In powers of 1/z, with 1 - 1/z for z - 1 and one more step of lag.
        still = _product(np.array([1.0, -1.0 - self.beta, self.beta]), under)
        seen = np.zeros(self.lag + 1)
        seen[0] += self.known
        seen[-1] += 1.0 - self.known
        moved = _product(_product(np.array([0.0, 1.0 - self.beta]), seen), over)
        size = max(len(still), len(moved))
        return _reverse(still, size), _reverse(moved, size)


def guaranteed_step(lag: int, beta: float = 0.0) -> float:
    """Step size times smoothness below which descent is certain, GAC or not, quadratic or not.

        1 / (lag + 1/2 + beta / (1 - beta))

    Proved in docs/explain/stale_gradients.md: momentum counts as beta / (1 - beta) more steps of
    lag. Exact at lag 0 without momentum, and within a factor of pi / 2 at any lag.

    Example:
        >>> guaranteed_step(0), round(guaranteed_step(4, 0.9), 3)
        (2.0, 0.074)
    """
    _check(lag >= 0 and 0.0 <= beta < 1.0, "lag >= 0 and 0 <= beta < 1", f"{lag}, {beta}")
    return 1.0 / (lag + 0.5 + beta / (1.0 - beta))


def mean_factor(cosine: float, decay: float = 0.0) -> float:
    """What GAC takes out with `Ema(decay)`, of gradients that are one signal and fresh noise.

    Args:
        cosine: of one gradient with the next, from 0 to below 1: the signal's share of the square.
        decay: of the mean; 0 for `Previous`.

    Returns:
        The mean of <g, r> over the mean of <r, r>: a factor for `Lead.mean`.

    Raises:
        InputError: a cosine or a decay out of range.
    """
    _check_cosine(cosine)
    _check(0.0 <= decay < 1.0, "0 <= decay < 1", f"decay {decay}")
    return cosine / (cosine + (1.0 - cosine) * (1.0 - decay) / (1.0 + decay))


def applied_factor(cosine: float, count: int) -> float:
    """The same with `Applied(count)`: one factor a for all of them.

    Applied gradients are orthogonal to the `count` before them, and fresh noise tells none of them
    apart, so count * (1 - cosine) * a^2 + a = cosine.

    Returns:
        A factor for `Lead.applied`.

    Raises:
        InputError: a cosine out of range, or a count below 0.
    """
    _check_cosine(cosine)
    _check(count >= 0, "a count of at least 0", f"count {count}")
    noise = 1.0 - cosine
    if count * noise == 0.0:
        return cosine
    return (sqrt(1.0 + 4.0 * count * noise * cosine) - 1.0) / (2.0 * count * noise)


def momentum_cosine(cosine: float, beta: float) -> float:
    """The cosine of one step of momentum with the next, where gradients have the one given."""
    _check_cosine(cosine)
    _check(0.0 <= beta < 1.0, "0 <= beta < 1", f"beta {beta}")
    noise = (1.0 - cosine) * (1.0 - beta) / (1.0 + beta)
    return (cosine + noise * beta) / (cosine + noise)


def _radius(coefficients: Sequence[float] | Floats) -> float:
    """The largest absolute value of a root; coefficients of ascending powers."""
    taps = np.asarray(coefficients, dtype=np.float64)
    # Roots at 0, which there are many of, are found as a wide circle unless they are taken out.
    counts = np.flatnonzero(np.abs(taps) > 1e-15 * np.abs(taps).max())
    roots = ascending.polyroots(taps[counts[0] :])
    return float(np.abs(roots).max()) if len(roots) else 0.0


def _product(one: Floats, other: Floats) -> Floats:
    return np.asarray(np.convolve(one, other), dtype=np.float64)


def _reverse(taps: Floats, size: int) -> Floats:
    """From powers of 1/z to powers of z, with the same power of z multiplied into each."""
    return np.concatenate((taps, np.zeros(size - len(taps))))[::-1].copy()


def _check_cosine(cosine: float) -> None:
    _check(0.0 <= cosine < 1.0, "0 <= cosine < 1", f"cosine {cosine}")


def _check(is_fit: bool, need: str, got: str) -> None:
    if not is_fit:
        raise InputError(need=need, got=got, hint="see weft.rl.delayed for what numbers mean")
