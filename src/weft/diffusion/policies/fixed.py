"""A plan that was made before the run, followed step by step."""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import InputError, MismatchError
from weft.diffusion.plan import DenoisePlan, Mode, Model, Predictor, StepPlan
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

    @property
    def mixes(self) -> bool:
        """If the plan does."""
        return any(step.mode is Mode.MIXED for step in self.plan.steps)

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
            raise without_small(facts.pipeline)
        if any(_lacks_weights(step) for step in self.plan.steps):
            raise InputError(
                need="weights for all predictions that are fitted",
                got=f"a step of {self.name} without",
                hint="profile.plan(...) fits them; other predictors need none",
            )
        return _Following(self.plan)


def _lacks_weights(step: StepPlan) -> bool:
    is_fitted = step.mode is not Mode.FULL and step.predictor is Predictor.FITTED
    return is_fitted and step.weights is None


def without_guidance(pipeline: str) -> InputError:
    """The error of a policy that predicts guidance in a run that has none."""
    return InputError(
        need="a run with classifier-free guidance, for steps of mode cfg",
        got=f"{pipeline} with one output a step: guidance is off, or is an input of the model",
        hint="use modes step and block, or raise guidance_scale (true_cfg_scale) above 1",
    )


def without_small(pipeline: str) -> InputError:
    """The error of a policy that gives steps to a small model where there is none."""
    return InputError(
        need="a small model for the steps that are given to one",
        got=f"{pipeline} alone",
        hint="pass sketch_to=small_pipe to weft.diffusion.accelerate",
    )


class _Following(Decider):
    def __init__(self, plan: DenoisePlan) -> None:
        self._plan = plan

    def decide(self, moment: Moment) -> StepPlan:
        return self._plan.steps[moment.step]

    def needs(self, model: Model, step: int) -> bool:
        return any(s.model is model and s.mode is not Mode.STEP for s in self._plan.steps[step:])
