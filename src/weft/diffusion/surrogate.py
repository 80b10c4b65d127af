"""What a plan does to the result, from recorded runs, without running it.

All of a plan's shortcuts are predictions of what a full run computes: the output c with the prompt
and the offset o of the one without. In a recorded full run both are known at every step, so what a
prediction is off by is known, too, as a vector. From there on errors travel
(`weft.diffusion.dynamics`):

    off_i = gain_i missed_i + sum over values that are predicted from of weight_n a_n error_n
    off_i = a_i error_i                                        in a step that is computed
    error_{i+1} = A_i error_i + B_i off_i + C_i off_{i-1} + D_i off_{i-2}

with missed_i the prediction's own error, guidance included, a the denoiser's response, and gains
measured by predicting one step alone. Vectors are added, not their lengths: errors of neighbouring
steps point the same way, and those of steps around a bend cancel out. They are kept as sketches of
some hundred numbers (`weft.diffusion.sketching`), which preserve sums and, nearly, lengths. What is
recorded differs from what another prompt would show, and a search would find plans whose errors
happen to cancel out; so each error is taken to be uncertain by a share of itself, which adds a
share of the sum of squares. Fitted predictions are judged by those prompts that they were not
fitted to.

Knows recordings and plans; does not know pipelines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from weft.diffusion.dynamics import solver_factors
from weft.diffusion.extrapolate import weights
from weft.diffusion.fitting import Fitting
from weft.diffusion.plan import Mode, Predictor, StepPlan, Weights
from weft.diffusion.recording import Recording

__all__ = ["Surrogate"]

Vectors: TypeAlias = NDArray[np.float64]
_Used: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Steps whose outputs, offsets and sums of blocks a step predicts from."""
Error = TypeVar("Error", float, NDArray[np.float64])
NOTHING: _Used = ((), (), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """Steps whose values are kept when a step begins, the last three of each kind."""

    outputs: tuple[int, ...] = ()
    offsets: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()

    def after(self, step: int, kind: _Kind) -> _Known:
        """When the next one begins."""
        if not (kind.is_full or kind.keeps_outputs):
            return self
        outputs = (*self.outputs[-2:], step)
        if not kind.is_full:
            return replace(self, outputs=outputs)
        return _Known(
            outputs=outputs, offsets=(*self.offsets[-2:], step), blocks=(*self.blocks[-2:], step)
        )


_Before: TypeAlias = "tuple[Vectors | None, Vectors | None, Vectors | None, float, _Known]"
"""When a step begins: error of the latents, of the last two outputs, uncertainty, what is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Error:
    """What predicting a step is off by.

    Attributes:
        own: where what it predicts from is exact [prompts, numbers].
        carried: steps whose latents' errors it takes in, with factors.
        square: of all of `own`, by what becomes of it until the end.
    """

    own: Vectors
    carried: tuple[tuple[int, float], ...]
    square: float


@dataclass(slots=True, kw_only=True)
class _Kind:
    """A way to do a step.

    Attributes:
        own: the way.
        few: values that it predicts from, at most.
        is_full: whether it predicts nothing.
        of_outputs, of_offsets, of_blocks: what it predicts.
        keeps_outputs: whether its output with the prompt is computed.
        errors: by step, and by what is predicted from.
    """

    own: StepPlan
    few: int
    is_full: bool
    of_outputs: bool
    of_offsets: bool
    of_blocks: bool
    keeps_outputs: bool
    errors: dict[tuple[int, _Used], _Error] = field(
        default_factory=dict["tuple[int, _Used]", _Error]
    )


class Surrogate:
    """Errors of plans, from recordings of some prompts.

    Args:
        recordings: of runs that differ in their prompts and noise only.
        doubt: share of itself that a recorded error is taken to be off by for another prompt and
            noise. Measured: of the recorded errors of two prompts, 0.3 is not common to both; what
            becomes of errors is known less well.
    """

    def __init__(self, recordings: Sequence[Recording], doubt: float = 1.0) -> None:
        assert recordings, "at least one run was recorded"
        self.recordings = tuple(recordings)
        self.num_steps = recordings[0].num_steps
        self.has_guidance = recordings[0].offsets is not None
        self.ranges = tuple(recordings[0].blocks)
        self._doubt = doubt
        self._kinds: dict[int, _Kind] = {}
        self._last: Sequence[StepPlan] = ()
        self._trail: list[_Before] = [(None, None, None, 0.0, _Known())]
        positions = recordings[0].positions
        offsets = [r.offsets for r in recordings if r.offsets is not None]
        self._outputs = Fitting([r.outputs for r in recordings], positions)
        self._offsets = Fitting(offsets, positions) if offsets else None
        self._blocks = {
            blocks: Fitting([r.blocks[blocks] for r in recordings], positions, is_affine=True)
            for blocks in self.ranges
        }
        self._scales = [(r.elements * len(recordings)) ** -0.5 for r in recordings]
        self._free = 1.0 - recordings[0].guidance if self.has_guidance else 0.0
        of_outputs, of_offsets = np.mean([r.responses for r in recordings], axis=0)
        self._of_outputs: list[float] = of_outputs.tolist()
        self._of_offsets: list[float] = (self._free * of_offsets).tolist()
        self._of_all: list[float] = (of_outputs + self._free * of_offsets).tolist()
        factors = solver_factors(recordings)
        self._solver: list[list[float]] = factors.tolist()
        self._reach = _reach(self._solver, self._of_all)

    def mean_square(self, plan: Sequence[StepPlan]) -> float:
        """Mean square of the error of the results' elements.

        Infinite for a plan that predicts from nothing.

        A search asks for plans that differ in a step or two: the steps that a plan begins with as
        the one before did are not looked at again.
        """
        begun = self._shared(plan)
        trail = self._trail
        del trail[begun + 1 :]
        self._last = plan
        for step in range(begun, len(plan)):
            after = self._after(step, plan[step])
            if after is None:
                self._last = plan[:step]
                return float("inf")
            trail.append(after)
        now, _, _, doubt, _ = trail[-1]
        return 0.0 if now is None else float(np.vdot(now, now)) + self._doubt**2 * doubt

    def _shared(self, plan: Sequence[StepPlan]) -> int:
        """How many first steps a plan has in common with the one before."""
        for step, (own, other) in enumerate(zip(plan, self._last, strict=False)):
            if own is not other:
                return step
        return min(len(plan), len(self._last))

    def _after(self, step: int, own: StepPlan) -> _Before | None:
        """What there is when a step is done; None if it predicts from nothing."""
        now, last, older, doubt, known = self._trail[step]
        kind = self._kinds.get(id(own)) or self._kind(own)
        used = _used(kind, known)
        if used is None:
            return None
        a, b, c, d = self._solver[step]
        if kind.is_full:
            off = None if now is None else self._of_all[step] * now
        else:
            error = kind.errors.get((step, used))
            if error is None:
                error = kind.errors[step, used] = self._error(step, kind, used)
            off = error.own
            for at, factor in error.carried:
                carried = self._trail[at][0]
                if carried is not None:
                    off = off + factor * carried
            doubt += error.square
        now = _sum((a, now), (b, off), (c, last), (d, older))
        return now, off, last, doubt, known.after(step, kind)

    def handed_over(self, small: Vectors, switch: int) -> float:
        """Mean square of the results' error if a small model computes from a step on.

        Args:
            small: its guided outputs in the recorded run, of one prompt [steps, numbers].
            switch: its first step.
        """
        (recording,) = self.recordings
        missed = (small - recording.guided) * self._scales[0]
        handed = {step: missed[step] for step in range(switch, self.num_steps)}
        now = _arriving(self._solver, self._of_all, handed)
        return 0.0 if now is None else float(np.vdot(now, now))

    def fitted(self, plan: Sequence[StepPlan]) -> tuple[StepPlan, ...]:
        """The plan with the weights of its fitted predictions."""
        return tuple(
            replace(kind.own, weights=self._weights(step, kind.own, used))
            if used is not None and kind.own.predictor is Predictor.FITTED and not kind.is_full
            else kind.own
            for step, kind, used in self._walk(plan)
        )

    def _walk(self, plan: Sequence[StepPlan]) -> Iterator[tuple[int, _Kind, _Used | None]]:
        """Steps, and what each predicts from; None if something lacks that."""
        known = _Known()
        for step, own in enumerate(plan):
            kind = self._kinds.get(id(own)) or self._kind(own)
            yield step, kind, _used(kind, known)
            known = known.after(step, kind)

    def _kind(self, own: StepPlan) -> _Kind:
        """Found by identity, which is quicker than by value; the step is kept, so that it lasts."""
        is_step = own.mode is Mode.STEP
        made = _Kind(
            own=own,
            few=own.predictor.order + 1,
            is_full=own.mode is Mode.FULL,
            of_outputs=is_step,
            of_offsets=own.mode is Mode.CFG or (is_step and self.has_guidance),
            of_blocks=own.mode is Mode.BLOCK,
            keeps_outputs=own.mode is Mode.CFG,
        )
        self._kinds[id(own)] = made
        return made

    def _error(self, step: int, kind: _Kind, used: _Used) -> _Error:
        own = np.stack(
            [self._one(number, step, kind.own, used) for number in range(len(self.recordings))]
        )
        weights = self._weights(step, kind.own, used)
        carried: dict[int, float] = {}
        for steps, factors, response in (
            (used[0], weights.outputs, self._of_outputs),
            (used[1], weights.offsets, self._of_offsets),
        ):
            for at, factor in zip(steps, factors, strict=True):
                carried[at] = carried.get(at, 0.0) + factor * response[at]
        if kind.keeps_outputs:
            carried[step] = self._of_outputs[step]
        if kind.of_blocks:
            carried[step] = self._of_all[step]
        reach = self._reach[step]
        return _Error(
            own=own, carried=tuple(carried.items()), square=reach**2 * float(np.vdot(own, own))
        )

    def _one(self, number: int, step: int, own: StepPlan, used: _Used) -> Vectors:
        """The error of a step's guided output for one prompt [numbers].

        Scaled so that the squares of all prompts' numbers sum up to the mean square of elements.
        """
        recording = self.recordings[number]
        found = np.zeros(recording.outputs.shape[1])
        weights = self._weights(step, own, used, but=number)
        c, o, r = used
        if c:
            predicted = np.asarray(weights.outputs) @ recording.outputs[list(c)]
            found = found + predicted - recording.outputs[step]
        if o:
            assert recording.offsets is not None, "there is guidance"
            predicted = np.asarray(weights.offsets) @ recording.offsets[list(o)]
            missed = predicted - recording.offsets[step]
            found = found + self._free * missed
        if r:
            assert own.blocks is not None, "checked when the step was made"
            values = recording.blocks[own.blocks]
            found = found + np.asarray(weights.blocks) @ values[list(r)] - values[step]
        return found * (recording.gains[step] * self._scales[number])

    def _weights(self, step: int, own: StepPlan, used: _Used, but: int | None = None) -> Weights:
        """How much each value counts in a step's predictions.

        Args:
            step: its number.
            own: what is done in it.
            used: what it predicts from.
            but: a prompt that weights are not fitted to.
        """

        def of(fitting: Fitting | None, steps: tuple[int, ...]) -> tuple[float, ...]:
            if fitting is None or not steps:
                return ()
            if own.predictor is Predictor.FITTED:
                return tuple(fitting.weights(step, steps, but).tolist())
            positions = self.recordings[0].positions
            return weights([float(positions[n]) for n in steps], float(positions[step]))

        c, o, r = used
        ranged = self._blocks[own.blocks] if own.blocks is not None and r else None
        return Weights(
            outputs=of(self._outputs, c), offsets=of(self._offsets, o), blocks=of(ranged, r)
        )


def _used(kind: _Kind, known: _Known) -> _Used | None:
    """What a step predicts from; None if something lacks that."""
    if kind.is_full:
        return NOTHING
    outputs = known.outputs[-kind.few :] if kind.of_outputs else ()
    offsets = known.offsets[-kind.few :] if kind.of_offsets else ()
    blocks = known.blocks[-kind.few :] if kind.of_blocks else ()
    lacks = (
        (kind.of_outputs and not outputs)
        or (kind.of_offsets and not offsets)
        or (kind.of_blocks and not blocks)
    )
    return None if lacks else (outputs, offsets, blocks)


def _sum(*terms: tuple[float, Error | None]) -> Error | None:
    """Of factors times errors, of which some are zero."""
    found: Error | None = None
    for factor, error in terms:
        if error is not None and factor != 0.0:
            found = factor * error if found is None else found + factor * error
    return found


def _arriving(
    solver: Sequence[Sequence[float]], responses: Sequence[float], missed: Mapping[int, Error]
) -> Error | None:
    """What becomes of errors of some steps' outputs until the end; all other steps are computed."""
    now: Error | None = None
    past: list[Error | None] = [None, None]
    for step, (a, b, c, d) in enumerate(solver):
        off = _sum((responses[step], now), (1.0, missed.get(step)))
        now = _sum((a, now), (b, off), (c, past[0]), (d, past[1]))
        past = [off, past[0]]
    return now


def _reach(solver: Sequence[Sequence[float]], responses: Sequence[float]) -> list[float]:
    """What an error of a step's output is of the result, where all later steps are computed."""
    found = (_arriving(solver, responses, {step: 1.0}) for step in range(len(solver)))
    return [abs(arrived or 0.0) for arrived in found]
