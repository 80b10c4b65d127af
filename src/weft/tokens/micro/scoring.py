"""Least loss by Newton's steps, damped where one goes wrong.

A criterion says, at given parameters, its loss, gradient and a positive curvature (the expected
second derivative, or Gauss and Newton's). Where it is quadratic the first step is the last.

Source: Levenberg 1944 and Marquardt 1963 for the damping; Fisher's scoring for the curvature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from weft.core.errors import InputError
from weft.tokens.micro.estimate import Floats

__all__ = ["Point", "minimise", "require_identified"]

MOST_STEPS = 200
"""Steps before giving up. Measured: well-posed fits of this package take 3 to 40."""
STILL = 1e-11
"""A step that promises less than this share of the loss is the last one. Chosen: well below any
standard error, well above rounding."""
LARGEST_CONDITION = 1e10
"""Of the scaled curvature, beyond which parameters cannot be told apart. Derived: standard errors
would be 1e5 times those of parameters that can."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Point:
    """A criterion at given parameters: loss, gradient [p] and curvature [p, p]."""

    loss: float
    gradient: Floats
    curvature: Floats


def minimise(criterion: Callable[[Floats], Point], start: Floats, hint: str) -> Floats:
    """Parameters of least loss [p].

    Args:
        criterion: to be least.
        start: first parameters [p].
        hint: what to try where there is no single best.

    Raises:
        InputError: several parameters do equally well, or none does best within a bound.
    """
    here, at = criterion(start), start
    damping = 0.0
    for _ in range(MOST_STEPS):
        if damping == 0.0:
            require_identified(here.curvature, hint)
        scale = np.diag(np.maximum(np.diag(here.curvature), 1e-12))
        step = -np.linalg.solve(here.curvature + damping * scale, here.gradient)
        promised = -float(here.gradient @ step)
        if promised <= STILL * (1.0 + abs(here.loss)):
            return at + step if damping == 0.0 else at
        there = criterion(at + step)
        if there.loss <= here.loss:
            here, at = there, at + step
            damping = 0.0 if damping < 1e-6 else damping / 10.0
        else:
            damping = max(1e-4, damping * 10.0)
    raise InputError(
        need="parameters that fit best",
        got=f"no best ones after {MOST_STEPS} steps: the fit still improves towards an edge",
        hint=hint,
    )


def require_identified(curvature: Floats, hint: str) -> None:
    """Check that no combination of parameters is without effect on the loss.

    Raises:
        InputError: one is.
    """
    diagonal = np.diag(curvature)
    scaled = np.zeros_like(curvature)
    if np.all(np.isfinite(curvature)) and float(diagonal.min()) > 0.0:
        scaled = curvature / np.sqrt(np.outer(diagonal, diagonal))
    values = np.linalg.eigvalsh(scaled)
    if values[0] * LARGEST_CONDITION < max(values[-1], 1e-300):
        raise InputError(
            need="trials that tell all parameters apart",
            got="several sets of parameters that fit equally well",
            hint=hint,
        )
