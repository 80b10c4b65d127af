"""Least squares without negative unknowns, for a handful of them."""

from __future__ import annotations

from itertools import combinations
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["nonnegative_fit"]

_Floats: TypeAlias = NDArray[np.float64]
_ALIKE = 1e-9
"""Share by which a larger subset has to do better: below it is rounding. Chosen."""


def nonnegative_fit(columns: _Floats, wanted: _Floats) -> _Floats:
    """The unknowns, none below zero, whose combination comes nearest to what is wanted.

    The best of all subsets, so there should be no more than about eight columns.

    Args:
        columns: what one of each unknown gives [rows, unknowns].
        wanted: [rows].

    Returns:
        The unknowns [unknowns].

    Example:
        >>> nonnegative_fit(np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([2.0, 1.0])).tolist()
        [1.5, 0.0]
    """
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-300)
    scaled = columns / scale
    count = columns.shape[1]
    best, least = np.zeros(count), float(wanted @ wanted)
    for size in range(1, count + 1):
        for chosen in combinations(range(count), size):
            part = scaled[:, chosen]
            found = cast("_Floats", np.linalg.lstsq(part, wanted, rcond=None)[0])
            left = wanted - part @ found
            if bool((found >= 0.0).all()) and float(left @ left) < least * (1.0 - _ALIKE):
                least = float(left @ left)
                best = np.zeros(count)
                best[list(chosen)] = found
    return best / scale
