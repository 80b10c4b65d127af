"""Polynomials through the last values that were computed, read where the next one would be.

    value(x) = sum of weight_i value_i,   weight_i = product over j != i of (x - x_j) / (x_i - x_j)

Positions are the noise levels that the scheduler gives the denoiser, so that steps of unequal
length are no trouble. Degree 0 reuses the last value.

Source: Lagrange's form of the interpolating polynomial; used for cached features as a Taylor
series of finite differences by TaylorSeer (Liu et al. 2025, arXiv 2503.06923).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

__all__ = ["weights"]


def weights(positions: Sequence[float], at: float) -> tuple[float, ...]:
    """How much each value counts; they sum up to 1.

    Args:
        positions: of the values, no two equal.
        at: where the polynomial is read.

    Example:
        >>> weights((1.0, 2.0), 3.0)
        (-1.0, 2.0)
    """
    return tuple(
        prod((at - other) / (own - other) for n, other in enumerate(positions) if n != number)
        for number, own in enumerate(positions)
    )
