"""What decides a run: asked what to do at each step, and told how predictions would have done.

A policy is frozen data; what it remembers of a run lies in the decider that it makes for it, so
that runs on one pipeline do not mix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from weft.diffusion.plan import Mode, Model, Predictor, StepPlan
from weft.diffusion.record import StepRecord
from weft.diffusion.validity import Validity

__all__ = ["Decider", "Moment", "Policy", "RunFacts", "Watcher", "inner_blocks"]

CHANGE = "change"
"""Name of the distance between two consecutive outputs, beside those of modes."""
TURN = "turn"
"""Name of what directions of a small model have turned by, in mixed steps."""


def inner_blocks(num_blocks: int) -> tuple[int, int] | None:
    """All of so many blocks but the first and the last; None if there are none between."""
    return (1, num_blocks - 1) if num_blocks > 2 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is known when a run begins.

    Attributes:
        pipeline: class of the pipeline.
        num_steps: of the scheduler.
        num_blocks: of the denoiser, over all of its lists.
        has_small: whether a small relative is at hand.
        small_share: work of the small relative's step over that of a large one's.
        has_guidance: whether there are two outputs a step; None where only the first step shows.
        positions: noise level of each step.
        validity: what tells one kind of run from another.
    """

    pipeline: str
    num_steps: int
    num_blocks: int
    has_small: bool
    has_guidance: bool | None
    positions: tuple[float, ...]
    validity: Validity
    small_share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A step that is about to begin.

    Attributes:
        step: its number, from 0.
        position: noise level, as the denoiser is told.
        possible: modes for which everything that has to be predicted was computed before.
        has_guidance: whether there are two outputs; None in a first step that has yet to show.
    """

    step: int
    position: float
    possible: frozenset[Mode]
    has_guidance: bool | None


class Watcher(Protocol):
    """Sees what a run computes, for calibration."""

    ranges: Sequence[tuple[int, int]]
    """Of blocks, of which steps are computed without them, too."""

    def computed(self, step: int, kind: str, value: tuple[Any, ...]) -> None:
        """Told of what a full step computes, and of what it computes it.

        That is an output, an offset, the latents that the denoiser is given, what the small model
        would answer, or the error of an output if a range of blocks is left out.

        Args:
            step: number of the step.
            kind: "output", "offset", "state", "small BRANCH" or "without FIRST-LAST BRANCH".
            value: what was computed, as tensors.
        """
        ...


class Decider(ABC):
    """What one run is decided by.

    Attributes:
        watcher: who sees what is computed; None for nobody.
        asks_small: whether the watcher is told what the small model would answer, too; it is not
            asked where it may be elsewhere.
    """

    watcher: Watcher | None = None
    asks_small: bool = False

    @abstractmethod
    def decide(self, moment: Moment) -> StepPlan:
        """What to do in a step, of what is possible."""

    def observe(  # noqa: B027 a decider may have nothing to learn
        self, step: int, done: StepPlan, distances: Mapping[str, float]
    ) -> None:
        """Learn from a step in which something was computed.

        Args:
            step: its number.
            done: what was done.
            distances: by mode, how far the prediction would have been from what was computed, for
                each that was computed: the mean absolute error over the mean absolute value.
                Under `CHANGE` the same for the output of the step before.
        """

    def needs(self, model: Model, step: int) -> bool:
        """Whether a model may compute anything from a step on; if not, it can be moved away."""
        return True

    def end(self, steps: Sequence[StepRecord]) -> None:  # noqa: B027 nor then
        """The run has come to its end.

        Args:
            steps: what it did.
        """


class Policy(ABC):
    """How steps are decided."""

    @abstractmethod
    def begin(self, facts: RunFacts) -> Decider:
        """Start a run.

        Raises:
            WeftError: the policy cannot work here; the error says why.
        """

    @property
    @abstractmethod
    def name(self) -> str:
        """In words, for reports."""

    def ranges(self, num_blocks: int) -> frozenset[tuple[int, int]]:
        """Ranges of blocks, of so many, whose sums are kept for block steps."""
        return frozenset()

    @property
    def mixes(self) -> bool:
        """Whether there are mixed steps, for which what the large model adds has to be kept."""
        return False

    @property
    def judged(self) -> Predictor | None:
        """The predictor of which deciders are told the distances; None if they ask for none."""
        return None
