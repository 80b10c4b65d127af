"""Runs as they might have been recorded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from weft.diffusion.recording import Recording

__all__ = ["changed", "euler", "recording"]


def euler(positions, given):
    """Where Euler's method goes from ones."""
    moves = np.diff(positions)[:, None] * given
    return 1.0 + np.concatenate([np.zeros((1, given.shape[1])), moves.cumsum(0)])


def changed(own, **changes):
    """Another run, that goes where its outputs lead."""
    made = replace(own, **changes)
    return replace(made, states=euler(made.positions, made.guided))


def recording(steps=12, numbers=24, *, seed=0, guided=True, degree=None):
    """Smooth random outputs; polynomials of a degree in the noise level, if one is given."""
    rng = np.random.default_rng(seed)
    positions = np.linspace(1000.0, 0.0, steps + 1) ** 1.2

    def smooth():
        x = positions[:-1] / positions[0]
        powers = range(6 if degree is None else degree + 1)
        return sum(np.outer(x**n, rng.normal(size=numbers)) for n in powers)

    outputs, offsets, guidance = smooth(), smooth() if guided else None, 5.0 if guided else 1.0
    given = outputs if offsets is None else outputs + (1.0 - guidance) * offsets
    return Recording(
        positions=positions,
        states=euler(positions, given),
        responses=np.zeros((2, steps)),
        outputs=outputs,
        offsets=offsets,
        blocks={(1, 5): smooth()},
        guidance=guidance,
        gains=np.exp(rng.normal(size=steps) * 0.2),
        elements=1000,
    )
