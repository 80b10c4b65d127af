"""What decides a run: asked what to do at each step, and told how predictions would have done.

A policy is frozen data; what it remembers of a run lies in the decider that it makes for it, so
that runs on one pipeline do not mix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from weft.diffusion.plan import Mode, Predictor, StepPlan
from weft.diffusion.validity import Validity

__all__ = ["Decider", "Moment", "Policy", "RunFacts"]

CHANGE = "change"
"""Name of the distance between two consecutive outputs, beside those of modes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is known when a run begins.

    Attributes:
        pipeline: class of the pipeline.
        num_steps: of the scheduler.
        num_blocks: of the denoiser, over all of its lists.
        has_small: whether a small relative is at hand.
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


class Decider(ABC):
    """What one run is decided by."""

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
    def judged(self) -> Predictor | None:
        """The predictor of which deciders are told the distances; None if they ask for none."""
        return None
