"""Runs as they might have been recorded."""

from __future__ import annotations

import numpy as np

from weft.diffusion.surrogate import Recording

__all__ = ["recording"]


def recording(steps=12, numbers=24, *, seed=0, guided=True, degree=None):
    """Smooth random outputs; polynomials of a degree in the noise level, if one is given."""
    rng = np.random.default_rng(seed)
    positions = np.linspace(1000.0, 0.0, steps + 1) ** 1.2

    def smooth():
        x = positions[:-1] / positions[0]
        powers = range(6 if degree is None else degree + 1)
        return sum(np.outer(x**n, rng.normal(size=numbers)) for n in powers)

    return Recording(
        positions=positions,
        outputs=smooth(),
        offsets=smooth() if guided else None,
        blocks={(1, 5): smooth()},
        guidance=5.0 if guided else 1.0,
        gains=np.exp(rng.normal(size=steps) * 0.2),
        elements=1000,
    )
