"""Numbers with what each cluster of trials contributes to them, hence intervals of what they make.

An estimator is, up to terms that vanish faster, a mean over trials of an influence. Trials of one
task are not independent, so influences are summed by cluster, and the sums are:

    covariance = G / (G - 1) * sum over clusters of s s'

A smooth function of estimates is an estimate (the delta method): its influence is theirs times the
derivative. Intervals take Student's t with G - 1 degrees of freedom.

Source: Huber 1967; Liang and Zeger, Biometrika 1986; Cameron and Miller, Journal of Human Resources
2015, sections II and VI (t and the factor for few clusters).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import InputError
from weft.core.quantiles import student_t

__all__ = [
    "Estimate",
    "Floats",
    "Interval",
    "Ints",
    "cluster_sums",
    "inverse",
    "jacobian",
]

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

STEP = 1e-5
"""Of central differences. Chosen: rounding (1e-16 / step) and curvature (step^2) both stay below
1e-9 for parameters of size one, which all of them are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A number and where it lies.

    Attributes:
        value: the estimate.
        low, high: ends of the interval; infinite where nothing limits them.
        level: how often such intervals hold the truth.
    """

    value: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high

    def mapped(self, function: Callable[[float], float]) -> Interval:
        """Through a function that rises or falls throughout."""
        ends = sorted((function(self.low), function(self.high)))
        return Interval(value=function(self.value), low=ends[0], high=ends[1], level=self.level)

    def inverted(self) -> Interval:
        """One over a gain: infinite where that may be zero or less."""
        value, low, high = (
            1.0 / gain if gain > 0.0 else math.inf for gain in (self.value, self.high, self.low)
        )
        return Interval(value=value, low=low, high=high, level=self.level)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimate:
    """Estimates that were made together.

    Attributes:
        values: [p].
        influence: of each cluster, the sum over its trials divided by the number of all trials
            [clusters, p].

    Raises:
        InputError: trials of fewer than two clusters: nothing says how far they vary.
    """

    values: Floats
    influence: Floats

    def __post_init__(self) -> None:
        if len(self.influence) < 2:
            raise InputError(
                need="trials of at least two tasks",
                got=f"{len(self.influence)}",
                hint="name tasks one by one; trials of one task say nothing about others",
            )

    @property
    def covariance(self) -> Floats:
        """[p, p]."""
        groups = len(self.influence)
        return self.influence.T @ self.influence * (groups / (groups - 1))

    @property
    def errors(self) -> Floats:
        """Standard errors [p]."""
        return np.sqrt(np.diag(self.covariance))

    def interval(self, at: int = 0, level: float = 0.95) -> Interval:
        """Of one of the values.

        Example:
            >>> some = Estimate(values=np.array([1.0]), influence=np.array([[0.3], [-0.4], [0.1]]))
            >>> print(some.interval())
            1 [-1.69, 3.69]
        """
        value = float(self.values[at])
        half = student_t(level, len(self.influence) - 1) * float(self.errors[at])
        return Interval(value=value, low=value - half, high=value + half, level=level)

    def through(self, function: Callable[[Floats], Floats]) -> Estimate:
        """A smooth function of the values, from [p] to [q]."""
        slope = jacobian(function, self.values)
        return Estimate(values=function(self.values), influence=self.influence @ slope.T)

    def joined(self, other: Estimate) -> Estimate:
        """Both, one after the other; they have to be of the same trials."""
        return Estimate(
            values=np.concatenate([self.values, other.values]),
            influence=np.hstack([self.influence, other.influence]),
        )


def jacobian(function: Callable[[Floats], Floats], at: Floats) -> Floats:
    """Derivatives of a function from [p] to [q], by central differences [q, p].

    Example:
        >>> jacobian(lambda x: x**2, np.array([1.0, 2.0])).round(6).tolist()
        [[2.0, 0.0], [0.0, 4.0]]
    """
    columns: list[Floats] = []
    for place in range(len(at)):
        step = np.zeros(len(at))
        step[place] = STEP * max(1.0, abs(float(at[place])))
        columns.append((function(at + step) - function(at - step)) / (2.0 * step[place]))
    return np.stack(columns, axis=-1)


def inverse(matrix: Floats) -> Floats:
    """Of a matrix that has one [p, p]."""
    return np.linalg.inv(matrix).astype(np.float64)


def cluster_sums(influence: Floats, clusters: Ints) -> Floats:
    """Influences of trials [n, p], summed by cluster, over the number of trials [clusters, p]."""
    sums = np.zeros((int(clusters.max()) + 1, influence.shape[1]))
    np.add.at(sums, clusters, influence)
    return sums / len(influence)
