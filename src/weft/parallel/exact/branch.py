"""Branch and bound, for the rare programme whose optimum leaves units undecided.

A branch gives an undecided unit one state, or forbids that state. Depth first, the state of most
weight first, and each branch warm from the last: where solutions tie, which is what leaves
units undecided, deciding a few settles the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

import highspy
import numpy as np

from weft.parallel.reshard import Floats, Ints

__all__ = ["Branching", "undecided_units"]

INTEGRAL = 1e-6
"""A weight this close to 0 or 1 counts as decided. Derived: ten times HiGHS' feasibility
tolerance of 1e-7."""
GAP = 1e-6
"""A branch is given up if it cannot better the best choice by more than this share of it."""
MOST_BRANCHES = 60
"""Branches solved before the best choice so far is taken. Derived: 2 to 10 sufficed in all
measured cases."""

Span = tuple[int, int]


def undecided_units(weights: Floats, spans: Sequence[Span]) -> list[int]:
    """Units whose weight is spread over several states."""
    split = (weights > INTEGRAL) & (weights < 1.0 - INTEGRAL)
    return [unit for unit, (a, b) in enumerate(spans) if split[a:b].any()]


@dataclass(frozen=True)
class _Branch:
    """A lower bound of what is in a branch, and the columns that it forbids."""

    bound: float
    forbidden: Ints


class Branching:
    """One search over branches of a programme that HiGHS holds; leaves it as it was.

    Args:
        highs: holds the programme, solved.
        run: has HiGHS solve it again.
        spans: columns of each unit.
        costs: of all columns.
        relaxed: the solution, with units undecided.

    Attributes:
        weights: of the best choice.
        bound: that no choice goes below.
    """

    def __init__(
        self,
        highs: highspy.Highs,
        run: Callable[[], object],
        spans: Sequence[Span],
        costs: Floats,
        relaxed: Floats,
    ) -> None:
        self._highs = highs
        self._run = run
        self._spans = spans
        self._costs = costs
        self._forbidden: Ints = np.zeros(0, dtype=np.int64)
        self._best = inf
        self.weights = relaxed
        bound = highs.getInfo().objective_function_value
        self.bound = self._search(_Branch(bound, self._forbidden), relaxed)
        self._forbid(np.zeros(0, dtype=np.int64))

    def _search(self, root: _Branch, relaxed: Floats) -> float:
        """Search below the root; returns the bound that holds for all of it."""
        waiting = self._split(root, relaxed)
        solved, given_up = 0, inf
        while waiting and (solved < MOST_BRANCHES or self._best == inf):
            branch = waiting.pop()
            if branch.bound >= self._worth:
                given_up = min(given_up, branch.bound)
                continue
            solved += 1
            objective, weights = self._solved(branch)
            if objective >= self._worth:
                given_up = min(given_up, objective)
            elif undecided_units(weights, self._spans):
                waiting += self._split(_Branch(objective, branch.forbidden), weights)
            else:
                self._best, self.weights = objective, weights
        return min([self._best, given_up, *(branch.bound for branch in waiting)])

    @property
    def _worth(self) -> float:
        """What a branch has to promise to be worth solving."""
        return inf if self._best == inf else self._best - GAP * abs(self._best)

    def _split(self, branch: _Branch, weights: Floats) -> list[_Branch]:
        """The branch without the heaviest undecided state, and with it alone, to solve first."""
        units = undecided_units(weights, self._spans)
        # What differs most in cost settles most of the rest.
        first, end = self._spans[max(units, key=lambda unit: self._spread(unit, weights))]
        state = first + int(np.argmax(weights[first:end]))
        others = np.setdiff1d(np.arange(first, end), [state])
        return [
            _Branch(branch.bound, np.union1d(branch.forbidden, columns))
            for columns in (np.array([state]), others)
        ]

    def _spread(self, unit: int, weights: Floats) -> float:
        """How far apart the costs of a unit's undecided states are."""
        first, end = self._spans[unit]
        costs = self._costs[first:end][weights[first:end] > INTEGRAL]
        return float(costs.max() - costs.min())

    def _solved(self, branch: _Branch) -> tuple[float, Floats]:
        """Optimum of a branch and its weights; infinite if nothing is in it."""
        self._forbid(branch.forbidden)
        self._run()
        if self._highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return inf, self.weights
        weights = np.array(self._highs.getSolution().col_value)[: self._spans[-1][1]]
        return self._highs.getInfo().objective_function_value, weights

    def _forbid(self, columns: Ints) -> None:
        """Keep exactly these columns at 0."""
        freed = np.setdiff1d(self._forbidden, columns)
        self._bound_above(freed, highspy.kHighsInf)
        self._bound_above(columns, 0.0)
        self._forbidden = columns

    def _bound_above(self, columns: Ints, most: float) -> None:
        number = len(columns)
        self._highs.changeColsBounds(
            number, columns.astype(np.int32), np.zeros(number), np.full(number, most)
        )
