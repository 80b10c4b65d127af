"""Conditional logit: how odds move with tokens within a task, whatever the task is like.

Given how many of a task's attempts passed, its difficulty drops out of which ones did:

    P(these | as many) = exp(sum of z over those that passed) / sum over all sets of that size

Tasks that always pass or always fail say nothing. The denominator is an elementary symmetric
polynomial, built up attempt by attempt, with its two derivatives carried along.

Source: Chamberlain, Review of Economic Studies 1980; recursion: Gail, Lubin and Rubinstein,
Biometrika 1981.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weft.core.errors import InputError
from weft.tokens.micro.estimate import Floats, Ints, inverse
from weft.tokens.micro.index import Index
from weft.tokens.micro.least_squares import first_end
from weft.tokens.micro.logit import separated
from weft.tokens.micro.scoring import Point, require_identified

__all__ = ["conditional_fit", "informative"]

LARGEST_INDEX = 40.0
"""Differences of log odds between attempts at one task beyond which one is certain. Derived: odds
of 2e17, more than doubles resolve beside 1."""


def informative(y: Floats, tasks: Ints) -> Floats:
    """Of each attempt, whether others at its task ended otherwise: 1 or 0 [n]."""
    passed, tried = np.bincount(tasks, weights=y), np.bincount(tasks)
    return ((passed > 0) & (passed < tried)).astype(np.float64)[tasks]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Padded:
    """Rows of attempts by task [tasks, longest], -1 where a task has fewer; passes of each."""

    rows: Ints
    passed: Ints

    @staticmethod
    def of(y: Floats, tasks: Ints) -> _Padded:
        counts = np.bincount(tasks)
        rows = np.full((len(counts), int(counts.max())), -1, dtype=np.int64)
        order = np.argsort(tasks, kind="stable")
        places = np.arange(len(tasks)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows[tasks[order], places] = order
        passed = np.bincount(tasks, weights=y).astype(np.int64)
        some = (passed > 0) & (passed < counts)
        if not some.any():
            raise InputError(
                need="tasks with attempts that passed and others that did not",
                got=f"{len(counts)} tasks, each with one outcome",
                hint="repeat tasks; what always passes or never does says nothing within itself",
            )
        return _Padded(rows=rows[some], passed=passed[some])

    def moments(self, eta: Floats, slopes: Floats) -> tuple[Floats, Floats, Floats]:
        """By task: ln of the denominator [t], its gradient [t, p] and curvature [t, p, p]."""
        tasks, width, p = len(self.rows), int(self.passed.max()), slopes.shape[1]
        held = self.rows >= 0
        z = np.where(held, eta[self.rows], -np.inf)
        top = z.max(axis=1, keepdims=True)
        weights = np.exp(z - top)
        value, first = np.zeros((tasks, width + 1)), np.zeros((tasks, width + 1, p))
        second = np.zeros((tasks, width + 1, p, p))
        value[:, 0] = 1.0
        for place in range(self.rows.shape[1]):
            w = weights[:, place, None]
            g = np.where(held[:, place, None], slopes[self.rows[:, place]], 0.0)[:, None, :]
            v, f, s = value[:, :-1], first[:, :-1], second[:, :-1]
            cross = f[..., :, None] * g[..., None, :]
            outer = v[..., None, None] * g[..., :, None] * g[..., None, :]
            added = s + cross + np.swapaxes(cross, -1, -2) + outer
            new_first = w[..., None] * (f + g * v[..., None])
            new_value = w * v
            second[:, 1:] += w[..., None, None] * added
            first[:, 1:] += new_first
            value[:, 1:] += new_value
        at = (np.arange(tasks), self.passed)
        total = value[at]
        mean = first[at] / total[:, None]
        spread = second[at] / total[:, None, None] - mean[:, :, None] * mean[:, None, :]
        return np.log(total) + self.passed * top[:, 0], mean, spread

    def sums(self, columns: Floats) -> Floats:
        """Columns [n, p] summed by task [t, p]."""
        held = (self.rows >= 0)[..., None]
        return np.where(held, columns[self.rows], 0.0).sum(axis=1)


def conditional_fit(
    y: Floats, tasks: Ints, index: Index, starts: list[Floats], hint: str
) -> tuple[Floats, Floats]:
    """Parameters [p], and influences of attempts [n, p], of which only sums by task mean anything.

    Raises:
        InputError: no task has both outcomes, they follow a rule without exceptions, or parameters
            cannot be told apart.
    """
    padded = _Padded.of(y, tasks)

    def parts(theta: Floats) -> tuple[Floats, Floats, Floats]:
        eta, slopes = index.value(theta), index.slopes(theta)
        log_all, mean, spread = padded.moments(eta, slopes)
        chosen = padded.sums(np.column_stack([y * eta, y[:, None] * slopes]))
        return log_all - chosen[:, 0], chosen[:, 1:] - mean, spread

    def criterion(theta: Floats) -> Point:
        losses, scores, spread = parts(theta)
        if np.all(losses < 1e-6):
            raise separated()
        return Point(
            loss=float(losses.sum()), gradient=-scores.sum(0), curvature=spread.sum(axis=0)
        )

    theta = first_end(criterion, starts, hint)
    _, scores, spread = parts(theta)
    require_identified(spread.sum(axis=0), hint)
    bread = inverse(spread.sum(axis=0) / len(y))
    influence = np.zeros((len(y), len(theta)))
    influence[padded.rows[:, 0]] = scores @ bread
    return theta, influence
