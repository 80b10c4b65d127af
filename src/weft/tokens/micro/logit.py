"""Log odds of passing, by Bernoulli's likelihood.

    P(y = 1) = 1 / (1 + exp(-index))

An observation's influence is H^-1 (y - p) g with the index's derivative g and
H = mean of p (1 - p) g g'.

Source: McFadden 1974; robust errors: White, Econometrica 1982; separation: Albert and Anderson,
Biometrika 1984.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weft.core.errors import InputError
from weft.tokens.micro.estimate import Floats, inverse
from weft.tokens.micro.index import Index
from weft.tokens.micro.least_squares import first_end
from weft.tokens.micro.scoring import Point, require_identified

__all__ = ["LogitFit", "logistic", "logit_fit"]

CERTAIN = 1e-6
"""Fitted chances closer than this to 0 and 1 for every trial are a rule without exceptions: the
likelihood has no best parameters. Chosen: real chances that small need a million trials to see."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogitFit:
    """Parameters [p], chances [n], slopes of the index [n, p] and the inverse of H [p, p]."""

    theta: Floats
    chance: Floats
    slopes: Floats
    bread: Floats

    def influence(self, y: Floats) -> Floats:
        """Of each observation [n, p]."""
        return (self.slopes * (y - self.chance)[:, None]) @ self.bread


def logistic(index: Floats) -> Floats:
    """Chances from log odds, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * index))


def logit_fit(y: Floats, index: Index, starts: list[Floats], hint: str) -> LogitFit:
    """The most likely parameters.

    Raises:
        InputError: outcomes are all the same or follow a rule without exceptions, or parameters
            cannot be told apart.
    """
    require_both(y)

    def criterion(theta: Floats) -> Point:
        eta = index.value(theta)
        chance, slopes = logistic(eta), index.slopes(theta)
        if np.all(np.abs(y - chance) < CERTAIN):
            raise separated()
        weight = chance * (1.0 - chance)
        return Point(
            loss=float(np.sum(np.logaddexp(0.0, eta) - y * eta)),
            gradient=slopes.T @ (chance - y),
            curvature=(slopes * weight[:, None]).T @ slopes,
        )

    theta = first_end(criterion, starts, hint)
    chance, slopes = logistic(index.value(theta)), index.slopes(theta)
    curvature = (slopes * (chance * (1.0 - chance))[:, None]).T @ slopes
    require_identified(curvature, hint)
    return LogitFit(theta=theta, chance=chance, slopes=slopes, bread=inverse(curvature / len(y)))


def require_both(y: Floats) -> None:
    """Check that some pass and some do not.

    Raises:
        InputError: they do not.
    """
    if not 0.0 < float(y.mean()) < 1.0:
        raise InputError(
            need="some attempts that passed and some that did not",
            got=f"{len(y)} attempts that all {'passed' if y[0] else 'failed'}",
            hint="add tasks that are harder, or easier, or tighter and looser caps",
        )


def separated() -> InputError:
    """What is raised where outcomes follow a rule without exceptions."""
    return InputError(
        need="outcomes that overlap: some failures with many tokens, some passes with few",
        got="passes and failures that a rule tells apart without exception (separation)",
        hint="add attempts between the caps that were tried; such a fit has no end",
    )
