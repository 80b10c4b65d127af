"""Bias and coverage of an estimator over many worlds of which the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from weft.core.errors import InputError
from weft.tokens.micro import Family, Interval, Link, Mode, Production, World, fit_production

__all__ = ["Case", "Tally", "band", "tally"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One estimator of one number.

    Attributes:
        name: in words.
        world: that trials are drawn from.
        mode, family, link: how they are fitted; a family or link of None is that of the world.
        asked: the number, of a fit.
        truth: what it is.
        tasks, attempts: how many in each world, and at each.
    """

    name: str
    world: World
    mode: Mode
    asked: Callable[[Production], Interval]
    truth: float
    family: Family | None = None
    link: Link | None = None
    tasks: int = 150
    attempts: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Over all worlds.

    Attributes:
        case: of what.
        mean: of the estimates.
        error: Monte-Carlo error of the mean.
        spread: standard deviation of the estimates.
        covered: share of intervals that hold the truth.
        wrong: share of estimates with the other sign than the truth.
        failed: worlds that gave no estimate; they count as not covered.
        worlds: all of them.
    """

    case: Case
    mean: float
    error: float
    spread: float
    covered: float
    wrong: float
    failed: int
    worlds: int

    @property
    def bias_in_errors(self) -> float:
        """Distance of the mean from the truth, in Monte-Carlo errors."""
        return abs(self.mean - self.case.truth) / self.error

    @property
    def bias_in_spreads(self) -> float:
        """The same in standard deviations of one estimate, which is what a reader sees."""
        return abs(self.mean - self.case.truth) / self.spread


def band(worlds: int, estimators: int) -> tuple[float, float]:
    """Where all coverages of right intervals lie in 99 of 100 such benchmarks (Bonferroni)."""
    reach = NormalDist().inv_cdf(1.0 - 0.005 / estimators)
    half = reach * math.sqrt(0.95 * 0.05 / worlds)
    return 0.95 - half, min(0.95 + half, 1.0)


def tally(case: Case, worlds: int) -> Tally:
    """Draw worlds 0 to `worlds` - 1 and fit each."""
    values: list[float] = []
    covered = failed = 0
    for seed in range(worlds):
        trials = case.world.trials(case.tasks, case.attempts, np.random.default_rng(seed))
        try:
            fit = fit_production(
                trials, mode=case.mode, family=case.family or case.world.family, link=case.link
            )
            found = case.asked(fit)
        except InputError:
            failed += 1
            continue
        values.append(found.value)
        covered += case.truth in found
    some = np.array(values)
    return Tally(
        case=case,
        mean=float(some.mean()),
        error=float(some.std(ddof=1) / math.sqrt(len(some))),
        spread=float(some.std(ddof=1)),
        covered=covered / worlds,
        wrong=float(np.mean(np.sign(some) != math.copysign(1.0, case.truth))),
        failed=failed,
        worlds=worlds,
    )
