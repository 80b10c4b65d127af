"""Capacity that is reserved in whole pieces: who gets it, and what that costs them.

Bidders name bundles, such as four replicas from nine to five, and what each is worth to them; they
win one of their bundles or none. Vickrey, Clarke and Groves: the most valuable feasible set wins,
and each winner pays what it costs the others that it is there,

    pays[i] = best value without i - value of the others with i

which is at most what it bid and at least zero. As that does not depend on i's own bid, saying the
truth is best whatever others say. Paying one's own bid (first price) invites bids below the truth.

Winners are found exactly, by dynamic programming over what is left or, where that is too much, by
an integer programme (HiGHS), which tells bids apart that differ by more than a billionth of the
largest. All amounts are whole billionths, so that payments add up.

Source: Vickrey, Journal of Finance 1961; Clarke, Public Choice 1971; Groves, Econometrica 1973;
Nisan et al., Algorithmic Game Theory, 2007, chapters 9 and 11.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import highspy
import numpy as np
from numpy.typing import NDArray

from weft.core.errors import InputError, VerifyError
from weft.tokens.money import Money

__all__ = ["Bid", "Bidder", "Sale", "first_price", "vcg", "winners"]

MANY = 1_000_000
"""States of what is left, by bidders, up to which dynamic programming is taken. Chosen: a million
are 8 MB and some 10 ms."""
FEASIBLE = 1e-9
"""Of the largest row, by which the solver may go over. Source: HiGHS's least tolerance is 1e-10."""
LARGEST = 1e3
"""What the largest bid is scaled to: the solver then tells bids apart that differ by a millionth of
a millionth of it. Chosen: beyond it, its sums lose digits of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bid:
    """A bundle and what is bid for it.

    Attributes:
        units: of each thing that is sold; of each hour, for example.
        worth: of all of them together.

    Raises:
        InputError: a number is negative.
    """

    units: tuple[int, ...]
    worth: Money

    def __post_init__(self) -> None:
        if min(self.units, default=0) < 0 or self.worth.nano < 0:
            raise InputError(
                need="units and worth of at least zero",
                got=f"{self.units} for {self.worth}",
                hint="leave out a bundle that is worth less than nothing",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bidder:
    """Somebody and the bundles of which they want one."""

    name: str
    bids: tuple[Bid, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """Who gets what.

    Attributes:
        won: number of the bundle that each bidder gets, None for none.
        pays: what each pays.
        worth: of what is sold, by the bids.
    """

    won: tuple[int | None, ...]
    pays: tuple[Money, ...]
    worth: Money


def vcg(bidders: Sequence[Bidder], supply: Sequence[int]) -> Sale:
    """Sell, so that nobody does better than to bid what a bundle is worth to them.

    Args:
        bidders: with their bids, in one currency.
        supply: how many units there are of each thing.

    Raises:
        InputError: bundles and supply are of different things, or currencies differ.
        VerifyError: the best set was not found within the time there is.

    Example:
        >>> from weft.tokens import usd
        >>> one = [Bidder(name=n, bids=(Bid(units=(2,), worth=usd(w)),)) for n, w in
        ...        (("a", 9), ("b", 7), ("c", 4))]
        >>> sold = vcg(one, [4])
        >>> sold.won, sold.pays
        ((0, 0, None), (4 usd, 4 usd, 0 usd))
    """
    won, worth = winners(bidders, supply)
    pays: list[Money] = []
    for place, pick in enumerate(won):
        if pick is None:
            pays.append(Money(0, worth.currency))
            continue
        own = bidders[place].bids[pick].worth.nano
        without = winners([*bidders[:place], *bidders[place + 1 :]], supply)[1]
        pays.append(Money(without.nano - (worth.nano - own), worth.currency))
    return Sale(won=won, pays=tuple(pays), worth=worth)


def first_price(bidders: Sequence[Bidder], supply: Sequence[int]) -> Sale:
    """Sell to the same winners, at what they bid; for comparison.

    Args, Raises: as of `vcg`.
    """
    won, worth = winners(bidders, supply)
    pays = [
        Money(0, worth.currency) if pick is None else bidder.bids[pick].worth
        for bidder, pick in zip(bidders, won, strict=True)
    ]
    return Sale(won=won, pays=tuple(pays), worth=worth)


def winners(
    bidders: Sequence[Bidder], supply: Sequence[int], *, seconds: float = 60.0
) -> tuple[tuple[int | None, ...], Money]:
    """The most valuable set that there is enough for, and its worth.

    Args:
        bidders: with their bids.
        supply: how many units there are of each thing.
        seconds: for the integer programme, where one is needed.

    Raises:
        InputError: bundles and supply are of different things, or currencies differ.
        VerifyError: it was not found within `seconds`.
    """
    currencies = {bid.worth.currency for bidder in bidders for bid in bidder.bids}
    odd = [bid for own in bidders for bid in own.bids if len(bid.units) != len(supply)]
    if odd or len(currencies) > 1 or min(supply, default=-1) < 0:
        raise InputError(
            need=f"bundles of the {len(supply)} things that are sold, in one currency",
            got=f"{odd[0].units}" if odd else f"{', '.join(sorted(currencies))}, supply {supply}",
            hint="a bundle says how many units it takes of each, zeros too",
        )
    states = math.prod(have + 1 for have in supply)
    is_small = states * max(len(bidders), 1) <= MANY
    picks = _dynamic(bidders, supply) if is_small else _programme(bidders, supply, seconds)
    nano = sum(
        own.bids[pick].worth.nano
        for own, pick in zip(bidders, picks, strict=True)
        if pick is not None
    )
    return tuple(picks), Money(nano, *currencies)


def _dynamic(bidders: Sequence[Bidder], supply: Sequence[int]) -> list[int | None]:
    """By what is left for the bidders so far."""
    best: NDArray[np.int64] = np.zeros([have + 1 for have in supply], dtype=np.int64)
    taken: list[NDArray[np.int64]] = []
    for bidder in bidders:
        pick = np.full(best.shape, -1)
        reached = best.copy()
        for number, bid in enumerate(bidder.bids):
            if any(want > have for want, have in zip(bid.units, supply, strict=True)):
                continue
            to = tuple(slice(want, None) for want in bid.units)
            start = tuple(
                slice(0, have + 1 - want) for want, have in zip(bid.units, supply, strict=True)
            )
            value = best[start] + bid.worth.nano
            is_more = value > reached[to]
            reached[to] = np.where(is_more, value, reached[to])
            pick[to] = np.where(is_more, number, pick[to])
        best = reached
        taken.append(pick)
    left, picks = list(supply), list[int | None]()
    for bidder, pick in zip(reversed(bidders), reversed(taken), strict=True):
        number = int(pick[tuple(left)])
        picks.append(None if number < 0 else number)
        if number >= 0:
            left = [a - b for a, b in zip(left, bidder.bids[number].units, strict=True)]
    return picks[::-1]


def _programme(
    bidders: Sequence[Bidder], supply: Sequence[int], seconds: float
) -> list[int | None]:
    """By HiGHS: a column for each bid, a row for each bidder and for each thing."""
    bids = [bid for own in bidders for bid in own.bids]
    ends = [0, *accumulate(len(own.bids) for own in bidders)]
    highest = max((bid.worth.nano for bid in bids), default=0) or 1
    units = np.array([bid.units for bid in bids], dtype=np.float64).reshape(len(bids), len(supply))
    rows = np.zeros((len(bidders) + len(supply), len(bids)))
    for place in range(len(bidders)):
        rows[place, ends[place] : ends[place + 1]] = 1.0
    scale = np.maximum(np.array(supply, dtype=np.float64), 1.0)
    rows[len(bidders) :] = units.T / scale[:, None]
    limits = np.concatenate([np.ones(len(bidders)), np.array(supply) / scale])
    values = np.array([LARGEST * bid.worth.nano / highest for bid in bids])
    chosen = _solved(values, rows, limits, seconds)
    picks: list[int | None] = []
    for place in range(len(bidders)):
        own = np.flatnonzero(chosen[ends[place] : ends[place + 1]])
        picks.append(int(own[0]) if len(own) else None)
    if bool((units[chosen].sum(axis=0) > np.array(supply)).any()):
        raise VerifyError(
            need="winners that there is enough for",
            got=f"{units[chosen].sum(axis=0).tolist()} of {list(supply)}",
            hint="fewer units: sell them by the dozen",
        )
    return picks


def _solved(
    values: NDArray[np.float64],
    rows: NDArray[np.float64],
    limits: NDArray[np.float64],
    seconds: float,
) -> NDArray[np.bool_]:
    """Which columns make up the best set."""
    highs = highspy.Highs()
    for name, option in (
        ("output_flag", False),
        ("threads", 1),
        ("mip_rel_gap", 0.0),
        ("mip_abs_gap", 0.0),
        ("time_limit", seconds),
        ("primal_feasibility_tolerance", FEASIBLE),
        ("mip_feasibility_tolerance", FEASIBLE),
        ("dual_feasibility_tolerance", FEASIBLE),
    ):
        highs.setOptionValue(name, option)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(values), len(limits)
    model.sense_ = highspy.ObjSense.kMaximize
    model.col_cost_ = values
    model.col_lower_, model.col_upper_ = np.zeros(len(values)), np.ones(len(values))
    model.row_lower_, model.row_upper_ = np.full(len(limits), -math.inf), limits
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.concatenate([[0], np.cumsum((rows != 0.0).sum(axis=1))])
    model.a_matrix_.index_ = np.nonzero(rows)[1]
    model.a_matrix_.value_ = rows[rows != 0.0]
    model.integrality_ = [highspy.HighsVarType.kInteger] * len(values)
    highs.passModel(model)
    highs.run()
    if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise VerifyError(
            need="the best set of winners, without which nobody is sure to do best by the truth",
            got=f"none within {seconds:g} s",
            hint="more seconds, fewer bundles, or units by the dozen",
        )
    return np.array(highs.getSolution().col_value) > 0.5
