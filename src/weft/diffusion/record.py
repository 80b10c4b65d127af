"""What a run did, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from weft.core.records import Record
from weft.diffusion.plan import DenoisePlan, Model, StepPlan

__all__ = ["Run", "StepRecord"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One step.

    Attributes:
        step: its number, from 0.
        position: noise level, as the denoiser is told.
        done: what was done.
        why: why not what the policy wanted; empty if it was.
        outputs: computed by a denoiser, of one or two.
        blocks: computed, for all outputs together.
        distances: of predictions from what was computed, by mode.
        seconds: in calls of the denoiser [s].
    """

    step: int
    position: float
    done: StepPlan
    why: str = ""
    outputs: int = 0
    blocks: int = 0
    distances: Mapping[str, float]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All steps of a run.

    Attributes:
        pipeline: class of the pipeline.
        policy: that decided, in words.
        steps: in order.
        has_guidance: whether there are two outputs a step.
        num_blocks: of the denoiser.
        small_share: work of a small model's block over that of a large one's.
        kept_bytes: most that was kept at a time [bytes].
        row: of a batch whose rows are decided each by itself; None if all are together.
    """

    pipeline: str
    policy: str
    steps: tuple[StepRecord, ...]
    has_guidance: bool
    num_blocks: int
    small_share: float
    kept_bytes: int
    row: int | None = None

    @property
    def plan(self) -> DenoisePlan:
        """The plan that was taken: run again, it gives the same result."""
        return DenoisePlan(steps=tuple(step.done for step in self.steps), policy=self.policy)

    @property
    def work(self) -> float:
        """Blocks that were computed, over those of all steps in full by the large model."""
        full = len(self.steps) * self.num_blocks * (2 if self.has_guidance else 1)
        return sum(self._work(step) for step in self.steps) / full

    def _work(self, step: StepRecord) -> float:
        return step.blocks * (self.small_share if step.done.model is Model.SMALL else 1.0)

    def records(self) -> tuple[Record, ...]:
        """One record for each step."""
        return tuple(
            Record(
                kind="denoise_step",
                fields={
                    "pipeline": self.pipeline,
                    "policy": self.policy,
                    **({} if self.row is None else {"row": self.row}),
                    "step": step.step,
                    "position": step.position,
                    "done": str(step.done),
                    "why": step.why,
                    "outputs": step.outputs,
                    "blocks": step.blocks,
                    "distances": dict(step.distances),
                    "seconds": step.seconds,
                },
            )
            for step in self.steps
        )
