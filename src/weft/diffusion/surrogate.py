"""What a plan does to the result, from one recorded run, without running it.

All of a plan's shortcuts are predictions of what a full run computes: the output c with the
prompt and the offset o of the one without. In a recorded full run both are known at every step,
so the error of any prediction is known, too, as a vector; and what errors of the guided output do
to the result is nearly linear:

    error of the result = sum over steps of gain_i d_i (e(c_i) + (1 - g) e(o_i))

with d_i the step's length in noise level, g the guidance, and gains measured by injecting such
errors in some steps. Vectors are added, not their lengths: errors of neighbouring steps point the
same way, and those of steps around a bend cancel out. They are kept as sketches of some hundred
numbers (`weft.diffusion.sketching`), which preserve sums and, nearly, lengths. What is recorded
differs from what another prompt would show, and a search would find plans whose errors happen to
cancel out; so each error is taken to be uncertain by a share of itself, which adds a share of the
sum of squares.

Knows recordings and plans; does not know pipelines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from weft.diffusion.extrapolate import weights
from weft.diffusion.plan import Mode, StepPlan

__all__ = ["Recording", "Surrogate", "with_end"]

Vectors = NDArray[np.float64]
DOUBT = 0.3
"""Share of itself that a recorded error is off by for another prompt and noise. Derived: of the
recorded errors of two prompts, this much is not common to both."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A full run, in sketches.

    Attributes:
        positions: noise level of each step, and where the last one leads, see `with_end`
            [steps + 1].
        outputs: with the prompt [steps, numbers].
        offsets: of those without the prompt; None without guidance [steps, numbers].
        blocks: by range, what the range adds, as it shows in the guided output: values of which
            each differs from the one before by the measured error of the output if the range's
            sum of the step before is used again [steps, numbers].
        guidance: factor of the prompt's influence.
        gains: what an error of the guided output, times the step's length, does to the result
            [steps].
        elements: of a result.
    """

    positions: NDArray[np.float64]
    outputs: Vectors
    offsets: Vectors | None
    blocks: Mapping[tuple[int, int], Vectors] = field(
        default_factory=dict[tuple[int, int], Vectors]
    )
    guidance: float
    gains: NDArray[np.float64]
    elements: int

    @property
    def num_steps(self) -> int:
        """Of the run."""
        return len(self.outputs)


class Surrogate:
    """Errors of plans, from recordings of some prompts.

    Args:
        recordings: of runs that differ in their prompts and noise only.
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        assert recordings, "at least one run was recorded"
        self.recordings = tuple(recordings)
        self.num_steps = recordings[0].num_steps
        self.has_guidance = recordings[0].offsets is not None
        self.ranges = tuple(recordings[0].blocks)
        self._errors: dict[tuple[object, ...], Vectors] = {}
        self._elements = np.asarray([recording.elements for recording in recordings])
        self._lengths = np.abs(np.diff(recordings[0].positions))

    def mean_square(self, plan: Sequence[StepPlan]) -> float:
        """Mean square of the error of the results' elements.

        Infinite for a plan that predicts from nothing.
        """
        known_c: list[int] = []
        known_o: list[int] = []
        known_r: list[int] = []
        total: Vectors | None = None
        doubt = 0.0
        for step, own in enumerate(plan):
            found = self._error(step, own, known_c, known_o, known_r)
            if found is None:
                return float("inf")
            if own.mode in (Mode.FULL, Mode.CFG):
                known_c.append(step)
            if own.mode is Mode.FULL:
                known_o.append(step)
                known_r.append(step)
            else:
                total = found if total is None else total + found
                doubt += self._squares(found)
        return 0.0 if total is None else self._squares(total) + DOUBT**2 * doubt

    def _squares(self, errors: Vectors) -> float:
        """Mean square of the results' elements, of errors of each prompt."""
        return float((np.einsum("pn,pn->p", errors, errors) / self._elements).mean())

    def _error(
        self,
        step: int,
        own: StepPlan,
        known_c: list[int],
        known_o: list[int],
        known_r: list[int],
    ) -> Vectors | None:
        """What a step does to each result; None if it predicts from nothing."""
        if own.mode is Mode.FULL:
            return np.zeros(0)
        few = own.predictor.order + 1
        c, o = tuple(known_c[-few:]), tuple(known_o[-few:])
        if own.mode is Mode.BLOCK:
            assert own.blocks is not None, "checked when the step was made"
            return self._of_blocks(step, own.blocks, tuple(known_r[-few:]))
        if own.mode is Mode.CFG:
            return self._of(step, None, o) if o else None
        if not c or (self.has_guidance and not o):
            return None
        return self._of(step, c, o)

    def _of(self, step: int, c: tuple[int, ...] | None, o: tuple[int, ...]) -> Vectors:
        """Of predicting from outputs and offsets of these steps [prompts, numbers]."""
        key = (step, c, o)
        if key not in self._errors:
            self._errors[key] = np.stack([self._one(r, step, c, o) for r in self.recordings])
        return self._errors[key]

    def _one(
        self, recording: Recording, step: int, c: tuple[int, ...] | None, o: tuple[int, ...]
    ) -> Vectors:
        found = np.zeros(recording.outputs.shape[1])
        if c is not None:
            found = found + _missed(recording.outputs, recording.positions, step, c)
        if recording.offsets is not None and o:
            missed = _missed(recording.offsets, recording.positions, step, o)
            found = found + (1.0 - recording.guidance) * missed
        return found * recording.gains[step] * self._lengths[step]

    def _of_blocks(self, step: int, blocks: tuple[int, int], r: tuple[int, ...]) -> Vectors | None:
        """Of predicting what a range adds [prompts, numbers]."""
        if not r:
            return None
        key = (step, blocks, r)
        if key not in self._errors:
            self._errors[key] = np.stack(
                [
                    _missed(own.blocks[blocks], own.positions, step, r)
                    * own.gains[step]
                    * self._lengths[step]
                    for own in self.recordings
                ]
            )
        return self._errors[key]


def with_end(positions: Sequence[float]) -> NDArray[np.float64]:
    """Noise levels of steps, and where the last one leads: to 0, or, from about there, beyond.

    Example:
        >>> with_end((3.0, 2.0, 1.0)).tolist(), with_end((2.0, 1.0, 0.0)).tolist()
        ([3.0, 2.0, 1.0, 0.0], [2.0, 1.0, 0.0, -1.0])
    """
    last = positions[-1]
    length = abs(positions[-2] - last) if len(positions) > 1 else last
    return np.asarray([*positions, 0.0 if last > length / 2 else last - length])


def _missed(values: Vectors, positions: Vectors, step: int, used: tuple[int, ...]) -> Vectors:
    """A prediction from some steps, less what was computed."""
    factors = weights([float(positions[n]) for n in used], float(positions[step]))
    return np.asarray(factors) @ values[list(used)] - values[step]
