"""Least squares in a subspace: ordinary, instrumental and within tasks are one estimator.

    min (y - f)' P (y - f)

with a projection P: of everything (ordinary), onto instruments (two-stage least squares, or its
nonlinear form where f is not linear), off task means (within), or both. An observation's influence
is H^-1 (P J)_i e_i with J = df/dtheta, H = J' P J / n and the residual e itself, not projected.

Source: Theil 1953; nonlinear: Amemiya, Journal of Econometrics 1974; standard text: Wooldridge,
Econometric Analysis of Cross Section and Panel Data, 2010, chapters 5, 10 and 14.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from weft.core.errors import InputError
from weft.tokens.micro.estimate import Floats, Ints, inverse
from weft.tokens.micro.index import Index
from weft.tokens.micro.scoring import Point, minimise, require_identified

__all__ = ["Projection", "everything", "least_squares", "off_means", "onto"]

Projection: TypeAlias = Callable[[Floats], Floats]


def everything(columns: Floats) -> Floats:
    """The whole space: ordinary least squares."""
    return columns


def onto(instruments: Floats) -> Projection:
    """The space that columns span [n, z]."""
    base, sizes, _ = np.linalg.svd(instruments, full_matrices=False)
    # Dummies of cells and tasks overlap; directions that are rounding alone are none.
    base = base[:, sizes > sizes[0] * 1e-10]
    return lambda columns: base @ (base.T @ columns)


def off_means(groups: Ints) -> Projection:
    """Deviations from the means of groups [n]."""
    counts = np.bincount(groups).astype(np.float64)

    def project(columns: Floats) -> Floats:
        wide = columns.reshape(len(groups), -1)
        sums = np.zeros((len(counts), wide.shape[1]))
        np.add.at(sums, groups, wide)
        return (wide - (sums / counts[:, None])[groups]).reshape(columns.shape)

    return project


def least_squares(
    y: Floats, index: Index, project: Projection, starts: list[Floats], hint: str
) -> tuple[Floats, Floats]:
    """Parameters [p] and influences of observations [n, p].

    Raises:
        InputError: parameters cannot be told apart, or no search ends.
    """

    def criterion(theta: Floats) -> Point:
        off, slopes = project(y - index.value(theta)), project(index.slopes(theta))
        return Point(
            loss=0.5 * float(off @ off), gradient=-slopes.T @ off, curvature=slopes.T @ slopes
        )

    theta = first_end(criterion, starts, hint)
    slopes = project(index.slopes(theta))
    require_identified(slopes.T @ slopes, hint)
    residual = y - index.value(theta)
    bread = inverse(slopes.T @ slopes / len(y))
    return theta, (slopes * residual[:, None]) @ bread


def first_end(criterion: Callable[[Floats], Point], starts: list[Floats], hint: str) -> Floats:
    """Where the first search ends that does.

    Raises:
        InputError: none ends.
    """
    failed: InputError | None = None
    for start in starts:
        try:
            return minimise(criterion, start, hint)
        except InputError as error:
            failed = failed or error
    assert failed is not None, "a family has a start"
    raise failed
