"""A full run as it was recorded: everything that was computed in it, in sketches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import InputError

__all__ = ["Recording", "as_kept", "with_end"]

Vectors = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A full run, in sketches.

    Attributes:
        positions: noise level of each step, and where the last one leads, see `with_end`
            [steps + 1].
        states: latents before each step, and behind the last; not a number where that is unknown
            [steps + 1, numbers].
        outputs: with the prompt [steps, numbers].
        offsets: of those without the prompt; None without guidance [steps, numbers].
        blocks: by range, what the range adds, as it shows in the guided output: values of which
            each differs from the one before by the measured error of the output if the range's
            sum of the step before is used again [steps, numbers].
        guidance: factor of the prompt's influence.
        responses: what outputs and offsets are off by, along what the latents are off by
            [2, steps].
        gains: what an error in a step does to the result, over what responses say [steps].
        elements: of a result.

    Raises:
        InputError: values are missing or not finite, or noise levels are repeated.
    """

    positions: Vectors
    states: Vectors
    outputs: Vectors
    offsets: Vectors | None
    blocks: Mapping[tuple[int, int], Vectors] = field(
        default_factory=dict[tuple[int, int], Vectors]
    )
    guidance: float
    responses: Vectors
    gains: Vectors
    elements: int

    def __post_init__(self) -> None:
        steps = len(self.outputs)
        values = [self.outputs, *([] if self.offsets is None else [self.offsets])]
        values += [self.responses.T, self.gains[:, None], *self.blocks.values()]
        is_whole = (
            len(self.positions) == len(self.states) == steps + 1
            and all(len(own) == steps for own in values)
            and all(np.isfinite(own).all() for own in (*values, self.states[:-1], self.positions))
            and math.isfinite(self.guidance)
            and self.elements > 0
        )
        if not is_whole or not steps:
            raise InputError(
                need="a run of one finite value for each of its steps",
                got=f"{steps} steps, of which some are missing or not finite",
                hint="look at what the model gives without weft; calibrate again",
            )
        if len(set(self.positions[:-1].tolist())) < steps:
            raise InputError(
                need="a solver that asks the model once at each noise level",
                got="the same noise level in more than one step",
                hint="use a solver of one evaluation a step, such as Euler, UniPC or DPM-Solver++",
            )

    @property
    def guided(self) -> Vectors:
        """What the solver is given [steps, numbers]."""
        if self.offsets is None:
            return self.outputs
        return self.outputs + (1.0 - self.guidance) * self.offsets

    @property
    def num_steps(self) -> int:
        """Of the run."""
        return len(self.outputs)


def as_kept(values: Vectors) -> Vectors:
    """Values as they are in a profile's file, so that plans made before and after are the same."""
    return values.astype("<f4").astype(np.float64)


def with_end(positions: Sequence[float]) -> NDArray[np.float64]:
    """Noise levels of steps, and where the last one leads: to 0, or, from about there, beyond.

    Example:
        >>> with_end((3.0, 2.0, 1.0)).tolist(), with_end((2.0, 1.0, 0.0)).tolist()
        ([3.0, 2.0, 1.0, 0.0], [2.0, 1.0, 0.0, -1.0])
    """
    last = positions[-1]
    length = abs(positions[-2] - last) if len(positions) > 1 else last
    return np.asarray([*positions, 0.0 if last > length / 2 else last - length])
