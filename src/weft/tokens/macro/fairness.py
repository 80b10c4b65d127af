"""Proportional fairness: shares of capacities that maximise the sum of w[i] log x[i].

    max  sum w[i] log x[i]   such that   A x <= b,  x <= most

User i takes A[r, i] of resource r for each unit of x. At the optimum each pays w[i]: resources have
prices p, and x[i] = w[i] / (p A)[i], or less where that is all that it wants. It is Nash's bargain,
and what an auction comes to in which everybody bids w and gets in proportion.

Found by Newton's method on prices, of which there are as many as resources; the gap to the dual
bound is reported, so that the answer proves itself.

Source: Kelly, Maulloo and Tan, Journal of the Operational Research Society 1998; Boyd and
Vandenberghe, Convex Optimization, 2004, section 11.7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from weft.core.errors import InputError, VerifyError
from weft.tokens.micro.estimate import Floats

__all__ = ["FairShares", "fair_shares"]

CLOSE = 1e-13
"""Gap to the bound, by the sum of weights, at which prices are taken. Chosen: a hundred times what
rounding leaves."""
ENOUGH = 1e-9
"""Gap that is taken where rounding allows for no less. Chosen: nobody sees a billionth."""
_ROUNDS, _HALVINGS = 200, 60
_FLAT = 1e-14
"""Differences of bounds that may be rounding."""
_RIDGE = 1e-14
"""Least part of the curvature that is added to it, since the bound may be flat along some prices;
far from the optimum it is the square of the gap (Levenberg and Marquardt)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FairShares:
    """Who gets how much.

    Attributes:
        shares: by user [users].
        prices: of a unit of each resource; zero where some is left over [resources].
        value: the sum of w log x.
        bound: that no shares go beyond.
    """

    shares: Floats
    prices: Floats
    value: float
    bound: float


def fair_shares(
    weights: Floats, uses: Floats, capacities: Floats, most: Floats | None = None
) -> FairShares:
    """The fair shares, with the prices that they are paid at.

    Args:
        weights: of users, above zero [users].
        uses: of each resource, for a unit of each user's share [resources, users].
        capacities: of resources, above zero [resources].
        most: that each user wants [users]; None where all want as much as they can get.

    Raises:
        InputError: a number is negative, or somebody takes nothing that is limited.

    Example:
        >>> found = fair_shares(np.array([1.0, 3.0]), np.array([[1.0, 1.0]]), np.array([8.0]))
        >>> found.shares.round(6).tolist(), found.prices.round(6).tolist()
        ([2.0, 6.0], [0.5])
    """
    wants = np.full(len(weights), math.inf) if most is None else most
    _require(weights, uses, capacities, wants)
    whole = float(weights.sum())
    # In what is there of each resource, and in weights of one in all.
    market = _Market(weights / whole, uses / capacities[:, None], wants)
    prices = market.solved()
    shares = market.feasible(market.chosen(prices))
    value = float(weights @ np.log(shares))
    return FairShares(
        shares=shares,
        prices=whole * prices / capacities,
        value=value,
        bound=max(value, whole * market.dual(prices)),
    )


def _require(weights: Floats, uses: Floats, capacities: Floats, wants: Floats) -> None:
    is_good = (
        uses.shape == (len(capacities), len(weights))
        and wants.shape == weights.shape
        and bool((weights > 0).all() and (capacities > 0).all() and (wants > 0).all())
        and bool((uses >= 0).all() and np.isfinite(uses).all())
        and bool((uses.any(axis=0) | np.isfinite(wants)).all())
    )
    if not is_good:
        raise InputError(
            need="weights, capacities and wants above zero, and something that limits each user",
            got=f"{len(weights)} weights, uses {uses.shape}, {len(capacities)} capacities",
            hint="leave out who weighs nothing; give `most` to who takes nothing that is limited",
        )


@dataclass(frozen=True, slots=True)
class _Market:
    """Users and resources, of each of which there is one."""

    weights: Floats
    uses: Floats
    most: Floats

    def chosen(self, prices: Floats) -> Floats:
        """What each takes at some prices."""
        with np.errstate(divide="ignore"):
            return np.minimum(self.most, self.weights / (prices @ self.uses))

    def dual(self, prices: Floats) -> float:
        """A bound on the value of all shares: of what users would do best with at these prices."""
        taken = self.chosen(prices)
        if not np.isfinite(taken).all():
            return math.inf
        best = self.weights @ np.log(taken) - (prices @ self.uses) @ taken
        return float(prices.sum() + best)

    def feasible(self, shares: Floats) -> Floats:
        """Shares cut to what is there, all by the same factor."""
        return shares / max(1.0, float((self.uses @ shares).max()))

    def gap(self, prices: Floats) -> float:
        """Between that bound and what the shares come to that are taken at these prices."""
        shares = self.feasible(self.chosen(prices))
        return self.dual(prices) - float(self.weights @ np.log(shares))

    def solved(self) -> Floats:
        """Prices at which nothing that costs anything is left over."""
        prices = np.full(len(self.uses), 1.0 / len(self.uses))
        gap = self.gap(prices)
        for _ in range(_ROUNDS):
            if gap < CLOSE:
                break
            found = self._searched(prices, self._way(prices, gap), gap)
            if found is None:
                break
            prices, gap = found
        if gap > ENOUGH:
            raise VerifyError(
                need=f"fair shares within {ENOUGH} of their bound",
                got=f"{gap:.2g}",
                hint="are there weights or uses that differ by twelve orders of magnitude?",
            )
        return prices

    def _way(self, prices: Floats, gap: float) -> Floats:
        """Newton's step on prices; those that are zero and would fall are left."""
        taken = self.chosen(prices)
        left = 1.0 - self.uses @ taken
        free = (prices > 0.0) | (left < 0.0)
        own = self.uses[free]
        follows = np.where(taken < self.most, taken**2 / self.weights, 0.0)
        curve = (own * follows) @ own.T
        ridge = max(_RIDGE, min(gap, 1.0) ** 2)
        curve += ridge * max(1.0, float(np.trace(curve))) * np.eye(len(own))
        way = np.zeros(len(prices))
        way[free] = -np.linalg.solve(curve, left[free])
        return way

    def _searched(self, prices: Floats, way: Floats, gap: float) -> tuple[Floats, float] | None:
        """As far along the way as brings the bound down; None where nothing does.

        In the end the bound is flat to the last digit, and it is the gap that goes down.
        """
        bound = self.dual(prices)
        for halving in range(_HALVINGS):
            there = np.maximum(prices + 0.5**halving * way, 0.0)
            found = self.dual(there)
            if found < bound + _FLAT and math.isfinite(found):
                closer = self.gap(there)
                if found < bound - _FLAT or closer < gap:
                    return there, closer
        return None
