"""Which arms to try next, so that each dollar tells most; and when to stop.

What an attempt under arm a tells of the parameters is I_a = w_a g_a g_a', with the index's
derivative g at the arm's inputs and w = p (1 - p) for log odds. Dollars are split so that, with
what is known already,

    c-optimal    the variance of one number, c' M^-1 c, is least
    D-optimal    ln det M is largest

for M = M_0 + sum over arms of dollars_a / cost_a I_a. Both are convex, and are solved by moving
dollars from the arm that tells least to the one that tells most (pairwise steps of Frank and
Wolfe), whose gap bounds how much better any other split could be.

Source: Kiefer and Wolfowitz 1960; Atkinson, Donev and Tobias, Optimum Experimental Designs, 2007,
chapters 9 to 11 and 22; pairwise steps: Lacoste-Julien and Jaggi, NIPS 2015; the bound:
Jaggi, ICML 2013.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from weft.core.errors import InputError
from weft.tokens.micro.estimate import Floats, Interval, inverse, jacobian
from weft.tokens.micro.families import Family
from weft.tokens.micro.identification import Link
from weft.tokens.micro.logit import logistic
from weft.tokens.micro.production import Production

__all__ = ["Candidate", "Criterion", "Design", "Knowledge", "Verdict", "design", "verdict"]

ENOUGH = 1e-4
"""Of the relative gap, at which steps end. Chosen: far below what rounding to whole attempts
costs."""
MOST_STEPS = 500
"""Measured: designs of up to ten arms are within 1e-4 after 5 to 60 steps."""


class Criterion(StrEnum):
    """What a design is to tell."""

    MARGINAL = "marginal"
    """One number: the logarithm of a factor's marginal product, and so of dollars per pass."""
    ALL = "all"
    """Every parameter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An arm that could be drawn.

    Attributes:
        name: as trials will call it.
        tokens: that an attempt under it uses, typically, by factor.
        usd: what that costs [usd].
    """

    name: str
    tokens: Mapping[str, float]
    usd: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Knowledge:
    """What is known before: from a pilot, or supposed.

    Attributes:
        family, factors, centre, link: as of a fit.
        values: the level, then the family's parameters [p].
        information: inverse of their covariance [p, p].
        worth: of an attempt, as a share of what independent ones would tell; and for link log and
            identity over the variance of a residual.
    """

    family: Family
    factors: tuple[str, ...]
    centre: Floats
    link: Link
    values: Floats
    information: Floats
    worth: float = 1.0

    @staticmethod
    def of(pilot: Production) -> Knowledge:
        """From a fit with one model.

        `worth` is what makes as many independent attempts as the pilot's, at its centre, tell as
        much of the level as the pilot did: attempts at one task tell less than at several.

        Raises:
            InputError: the fit is observational or has levels of several models.
        """
        pilot.require_effect("a design that builds on it")
        if len(pilot.models) != 1:
            raise InputError(
                need="a pilot with one model",
                got=f"{len(pilot.models)}",
                hint="design for each model by itself",
            )
        kept = np.array([0, *range(pilot.own, len(pilot.parameters.values))])
        covariance = pilot.parameters.covariance[np.ix_(kept, kept)]
        level = float(pilot.parameters.values[0])
        weight = _weight(pilot.link, level)
        return Knowledge(
            family=pilot.family,
            factors=pilot.factors,
            centre=pilot.centre,
            link=pilot.link,
            values=pilot.parameters.values[kept],
            information=inverse(covariance),
            worth=1.0 / (float(covariance[0, 0]) * weight * pilot.num_trials),
        )

    @staticmethod
    def supposed(
        family: Family,
        centre: Mapping[str, float],
        guess: Sequence[float],
        doubt: Sequence[float],
        link: Link = Link.LOGIT,
    ) -> Knowledge:
        """Without a pilot.

        Args:
            family: shape.
            centre: tokens by factor at which the level is.
            guess: of the level, then of the family's parameters.
            doubt: standard deviation of each.
            link: of the index; for log and identity residuals count as of variance 1.
        """
        return Knowledge(
            family=family,
            factors=tuple(centre),
            centre=np.log(list(centre.values())),
            link=link,
            values=np.array(guess, dtype=np.float64),
            information=np.diag(np.asarray(doubt, dtype=np.float64) ** -2.0),
        )

    def told_by(self, arm: Candidate) -> Floats:
        """Information of one attempt [p, p]."""
        logs = (np.log([arm.tokens[name] for name in self.factors]) - self.centre)[None, :]
        own = jacobian(lambda theta: self.family.index(theta, logs), self.values[1:])[0]
        slopes = np.concatenate([[1.0], own])
        eta = float(self.values[0] + self.family.index(self.values[1:], logs)[0])
        return self.worth * _weight(self.link, eta) * np.outer(slopes, slopes)

    def log_marginal(self, factor: str) -> Floats:
        """Derivative by the parameters of the logarithm of a marginal product at the centre [p].

        Raises:
            InputError: there is no such factor, or it is supposed to do nothing.
        """
        if factor not in self.factors:
            raise InputError(need=f"one of {self.factors}", got=repr(factor), hint="name a factor")
        place, zero = self.factors.index(factor), np.zeros((1, len(self.factors)))

        def log_product(theta: Floats) -> Floats:
            elasticity = self.family.elasticities(theta[1:], zero)[0, place]
            slope = _weight(self.link, float(theta[0]), of_slope=True)
            return np.array([math.log(max(abs(elasticity), 1e-6) * slope)])

        return jacobian(log_product, self.values)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What to try next.

    Attributes:
        attempts: by arm.
        usd: what they cost, typically [usd].
        before, after: relative standard error of the marginal product, now and predicted then.
        efficiency: share of what the best split of as much would tell, at least.
    """

    attempts: Mapping[str, int]
    usd: float
    before: float
    after: float
    efficiency: float

    def explain(self) -> str:
        """In words."""
        tried = ", ".join(f"{count} of {arm}" for arm, count in self.attempts.items() if count)
        return (
            f"next {self.usd:.4g} usd: {tried or 'nothing'}\n"
            f"  marginal product known to +-{self.before:.0%} now, +-{self.after:.0%} then "
            "(one standard error)\n"
            f"  no other split tells more than {1.0 / self.efficiency:.4f} times as much"
        )


def design(
    known: Knowledge,
    arms: Sequence[Candidate],
    *,
    usd: float,
    factor: str,
    criterion: Criterion = Criterion.MARGINAL,
) -> Design:
    """Split dollars over arms.

    Args:
        known: from a pilot, or supposed.
        arms: that could be drawn; two at least, since one tells nothing of a slope.
        usd: to be spent [usd].
        factor: whose marginal product is wanted.
        criterion: what is to be told.

    Raises:
        InputError: there are fewer than two arms, or one costs nothing.
    """
    if len(arms) < 2 or min(arm.usd for arm in arms) <= 0.0 or usd <= 0.0:
        raise InputError(
            need="two arms or more, dollars above zero to spend, and an arm's price above zero",
            got=f"{len(arms)} arms, {usd} usd",
            hint="offer at least a tight and a loose cap",
        )
    direction = known.log_marginal(factor)
    told = np.stack([known.told_by(arm) * (usd / arm.usd) for arm in arms])
    split, gap = _split(known.information, told, direction, criterion)
    counts = {
        arm.name: int(share * usd / arm.usd + 1e-9) for arm, share in zip(arms, split, strict=True)
    }
    made = np.array([counts[arm.name] * arm.usd / usd for arm in arms])
    after = known.information + np.einsum("a,apq->pq", made, told)
    return Design(
        attempts=counts,
        usd=sum(counts[arm.name] * arm.usd for arm in arms),
        before=_error(known.information, direction),
        after=_error(after, direction),
        efficiency=_efficiency(gap, criterion, len(direction)),
    )


def _split(
    known: Floats, told: Floats, direction: Floats, criterion: Criterion
) -> tuple[Floats, float]:
    """Shares of the dollars by arm, and the gap: relative for c, absolute for ln det."""
    share = np.full(len(told), 1.0 / len(told))
    gap = math.inf
    for _ in range(MOST_STEPS):
        spread = inverse(known + np.einsum("a,apq->pq", share, told))
        if criterion is Criterion.MARGINAL:
            at = spread @ direction
            gains = np.einsum("p,apq,q->a", at, told, at) / float(direction @ at)
        else:
            gains = np.einsum("pq,aqp->a", spread, told)
        best = int(np.argmax(gains))
        gap = float(gains[best] - share @ gains)
        if gap < ENOUGH:
            break
        worst = int(np.argmin(np.where(share > 0.0, gains, math.inf)))
        toward = np.zeros(len(share))
        toward[best], toward[worst] = share[worst], -share[worst]
        length = _length(known, told, direction, criterion, share, toward)
        share = np.maximum(share + length * toward, 0.0)
    return share, gap


def _length(
    known: Floats,
    told: Floats,
    direction: Floats,
    criterion: Criterion,
    share: Floats,
    toward: Floats,
) -> float:
    """Of the best step, by golden section: the criterion is convex along it."""

    def worse(length: float) -> float:
        matrix: Floats = known + np.einsum("a,apq->pq", share + length * toward, told)
        if criterion is Criterion.MARGINAL:
            return float(direction @ np.linalg.solve(matrix, direction))
        return -2.0 * float(np.log(np.diag(np.linalg.cholesky(matrix))).sum())

    low, high, golden = 0.0, 1.0, (math.sqrt(5.0) - 1.0) / 2.0
    for _ in range(40):
        a, b = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, b) if worse(a) < worse(b) else (a, high)
    middle = 0.5 * (low + high)
    # An arm that is worth nothing is left for good, not in ever smaller steps.
    return 1.0 if worse(1.0) <= worse(middle) else middle


def _efficiency(gap: float, criterion: Criterion, size: int) -> float:
    # c: the least variance is at least (1 - gap) times that found. D: det^(1/p) is what counts.
    return max(1.0 - gap, 0.0) if criterion is Criterion.MARGINAL else math.exp(-gap / size)


def _error(information: Floats, direction: Floats) -> float:
    return math.sqrt(float(direction @ np.linalg.solve(information, direction)))


def _weight(link: Link, eta: float, of_slope: bool = False) -> float:
    if link is Link.LOGIT:
        chance = float(logistic(np.array([eta]))[0])
        return chance * (1.0 - chance)
    return math.exp(eta) if of_slope and link is Link.LOG else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether enough is known.

    Attributes:
        stop: yes.
        usd_per_outcome: what one more pass costs, as known now [usd].
        reason: in words.
    """

    stop: bool
    usd_per_outcome: Interval
    reason: str


def verdict(
    production: Production,
    factor: str,
    prices: Mapping[str, float],
    *,
    tolerance: float,
    worth_usd: float | None = None,
) -> Verdict:
    """Whether to stop: the interval of dollars per pass is narrow, or leaves the decision no doubt.

    Args:
        production: from all trials so far.
        factor: whose marginal dollars are asked.
        prices: by factor [usd / token].
        tolerance: half width of the interval over its middle, in logarithms, that is narrow enough.
        worth_usd: what a pass is worth; an interval on one side of it is enough at any width [usd].

    Raises:
        InputError: the fit is observational, or a price is missing.
    """
    found = production.usd_per_outcome(factor, prices)
    narrow = found.high < math.inf and 0.5 * math.log(found.high / found.low) <= tolerance
    if narrow:
        return Verdict(stop=True, usd_per_outcome=found, reason=f"{found} usd is narrow enough")
    if worth_usd is not None and worth_usd not in found:
        side = "less" if found.high < worth_usd else "more"
        reason = f"one more pass costs {side} than the {worth_usd:g} usd that it is worth: {found}"
        return Verdict(stop=True, usd_per_outcome=found, reason=reason)
    reason = f"one more pass may cost {found.low:.3g} to {found.high:.3g} usd"
    return Verdict(stop=False, usd_per_outcome=found, reason=reason)
