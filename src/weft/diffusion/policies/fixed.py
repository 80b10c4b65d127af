"""A plan that was made before the run, followed step by step."""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import InputError, MismatchError
from weft.diffusion.plan import DenoisePlan, Mode, Model, StepPlan
from weft.diffusion.policy import Decider, Moment, Policy, RunFacts

__all__ = ["Fixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed(Policy):
    """Do as a plan says.

    Attributes:
        plan: one step for each of the scheduler's.
    """

    plan: DenoisePlan

    @property
    def name(self) -> str:
        """The plan's own."""
        return self.plan.policy or "a fixed plan"

    def ranges(self, num_blocks: int) -> frozenset[tuple[int, int]]:
        """All that the plan has."""
        return frozenset(step.blocks for step in self.plan.steps if step.blocks is not None)

    def begin(self, facts: RunFacts) -> Decider:
        """Check that the plan is for such a run.

        Raises:
            MismatchError: it has another number of steps, or blocks that the model lacks.
            InputError: it predicts guidance where there is none, or wants a small model.
        """
        if len(self.plan.steps) != facts.num_steps:
            raise MismatchError(
                need=f"a plan of as many steps as the run: {facts.num_steps}",
                got=f"{len(self.plan.steps)} steps in {self.name}",
                hint=f"run with num_inference_steps={len(self.plan.steps)}, or make a plan for"
                f" {facts.num_steps} steps",
            )
        last = max((blocks[1] for blocks in self.ranges(facts.num_blocks)), default=0)
        if last > facts.num_blocks:
            raise MismatchError(
                need=f"ranges within the {facts.num_blocks} blocks of the denoiser",
                got=f"a range up to block {last - 1}",
                hint="calibrate for this model",
            )
        if facts.has_guidance is False and any(s.mode is Mode.CFG for s in self.plan.steps):
            raise without_guidance(facts.pipeline)
        if not facts.has_small and any(s.model is Model.SMALL for s in self.plan.steps):
            raise InputError(
                need="a small model for the steps that the plan gives to one",
                got=f"{facts.pipeline} alone",
                hint="pass sketch_to=small_pipe to weft.diffusion.accelerate",
            )
        return _Following(self.plan)


def without_guidance(pipeline: str) -> InputError:
    """The error of a policy that predicts guidance in a run that has none."""
    return InputError(
        need="a run with classifier-free guidance, for steps of mode cfg",
        got=f"{pipeline} with one output a step: guidance is off, or is an input of the model",
        hint="use modes step and block, or raise guidance_scale (true_cfg_scale) above 1",
    )


class _Following(Decider):
    def __init__(self, plan: DenoisePlan) -> None:
        self._plan = plan

    def decide(self, moment: Moment) -> StepPlan:
        return self._plan.steps[moment.step]
