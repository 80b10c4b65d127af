"""How errors travel: what a solver makes of an output, and what a denoiser makes of an error.

    x_{i+1} = A_i x_i + B_i g_i + C_i g_{i-1} + D_i g_{i-2}    a solver's step, g: the guided output
    error of a computed output = a_i times the error of x_i    a denoiser's response

The factors of a solver's step are the same whatever the prompt, and least squares find them in
recorded runs: exactly for solvers of one step, closely for those of several. Responses are found in
runs that were disturbed: what an output is off by, along what the latents are off by. A step that
is predicted does not respond, so that errors which computed steps take back go on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from weft.diffusion.recording import Recording

__all__ = ["PAST", "Responses", "solver_factors"]

Vectors = NDArray[np.float64]
PAST = 3
"""Outputs that a solver's step may take in: those of solvers of third order."""


def solver_factors(recordings: Sequence[Recording]) -> Vectors:
    """Factors A, B, C, D of each step [steps, 4].

    Where a step leads to what is unknown, it is taken to be like the one before, but of its length.
    """
    steps = recordings[0].num_steps
    found = np.zeros((steps, 1 + PAST))
    guided = np.concatenate([own.guided for own in recordings], axis=1)
    states = np.concatenate([own.states for own in recordings], axis=1)
    lengths = np.abs(np.diff(recordings[0].positions))
    for step in range(steps):
        wanted = states[step + 1]
        if np.isnan(wanted).any():
            own = found[step - 1].copy() if step else np.eye(1, 1 + PAST)[0]
            own[1:] *= lengths[step] / lengths[step - 1] if step else 1.0
            found[step] = own
            continue
        past = [guided[step - n] for n in range(min(step + 1, PAST))]
        given = np.stack([states[step], *past], axis=1)
        found[step, : given.shape[1]] = np.linalg.lstsq(given, wanted, rcond=1e-9)[0]
    return found


class Responses:
    """What a denoiser makes of errors, from runs that were disturbed in one step.

    Args:
        steps: of a run.
    """

    def __init__(self, steps: int) -> None:
        self._along = np.zeros((2, steps))
        self._lengths = np.zeros(steps)

    def add(self, disturbed: Recording, exact: Recording, step: int) -> None:
        """One more run.

        Args:
            disturbed: in a step.
            exact: the same, undisturbed.
            step: which one.
        """
        for at in range(step + 1, len(self._lengths)):
            error = disturbed.states[at] - exact.states[at]
            self._lengths[at] += error @ error
            self._along[0, at] += error @ (disturbed.outputs[at] - exact.outputs[at])
            if exact.offsets is not None and disturbed.offsets is not None:
                self._along[1, at] += error @ (disturbed.offsets[at] - exact.offsets[at])

    def found(self) -> Vectors:
        """Responses of outputs and offsets; before the first disturbance, the first [2, steps]."""
        known = np.flatnonzero(self._lengths > 0)
        if not len(known):
            return np.zeros_like(self._along)
        steps = np.arange(len(self._lengths))
        return np.stack(
            [np.interp(steps, known, own[known] / self._lengths[known]) for own in self._along]
        )
