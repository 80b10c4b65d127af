"""Ask a small model beside the large one, and measure how far it is from it at each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weft.core.errors import InputError
from weft.diffusion.accelerating import accelerate, controller_of, restore
from weft.diffusion.calls import configuration_of, distance
from weft.diffusion.families import Family
from weft.diffusion.pair import Disagreement
from weft.diffusion.plan import DenoisePlan, StepPlan
from weft.diffusion.policies.fixed import Fixed
from weft.diffusion.policy import Decider, Policy, RunFacts

__all__ = ["disagreement"]


def disagreement(
    pipe: Any,
    small_pipe: Any,
    prompts: Sequence[Mapping[str, Any]],
    *,
    family: Family | None = None,
) -> Disagreement:
    """Run a pipeline on some prompts in full, and ask the small model at every step, too.

    The small model is asked as it is by `accelerate(pipe, sketch_to=small_pipe)`, and what it
    answers is not used: the large one's runs are what they are without it.

    Args:
        pipe: the large model's pipeline, not accelerated.
        small_pipe: the small one's, or its denoiser.
        prompts: what the pipeline is called with, for each of some runs; each should have a
            generator, or latents, so that runs can be repeated.
        family: what the pipeline is like, if weft does not know it.

    Raises:
        InputError: there is no prompt, prompts differ in steps, or the two models are no pair.
        MismatchError: prompts differ in guidance or size.
    """
    if not prompts:
        raise InputError(
            need="at least one prompt",
            got="none",
            hint="two or three prompts tell enough",
        )
    runs = [_run(pipe, small_pipe, prompt, family) for prompt in prompts]
    facts, _, small = runs[0]
    for other, _, _ in runs:
        facts.validity.require(other.validity)
        if other.positions != facts.positions:
            raise InputError(
                need="prompts with one number of steps",
                got=f"{facts.num_steps} and {other.num_steps} steps, or other noise levels",
                hint="give all of them the same num_inference_steps",
            )
    values = np.mean([found for _, found, _ in runs], axis=0)
    return Disagreement(
        holds_for=facts.validity,
        small=small,
        positions=facts.positions,
        values=tuple(float(value) for value in values),
        prompts=len(runs),
    )


def _run(
    pipe: Any, small_pipe: Any, prompt: Mapping[str, Any], family: Family | None
) -> tuple[RunFacts, list[float], str]:
    """What a run was, the disagreement at each of its steps, and who the small model was."""
    asked = _Asked(lambda facts, step: _guidance(pipe, prompt, facts.positions[step]))
    accelerate(pipe, policy=_Everything(asked=asked), sketch_to=small_pipe, family=family)
    try:
        small = configuration_of(controller_of(pipe).denoisers["small"].module)
        with torch.no_grad():
            pipe(**{"output_type": "latent", **prompt})
    finally:
        restore(pipe)
    assert asked.facts is not None, "the pipeline has called its denoiser"
    return asked.facts, asked.values(), small


def _guidance(pipe: Any, prompt: Mapping[str, Any], position: float) -> float:
    """The factor of the prompt's influence at a noise level, where there are two outputs."""
    boundary = getattr(getattr(pipe, "config", None), "boundary_ratio", None)
    second = prompt.get("guidance_scale_2")
    if boundary is not None and second is not None:
        level = boundary * pipe.scheduler.config.num_train_timesteps
        if position < level:
            return float(second)
    given = prompt.get("true_cfg_scale", prompt.get("guidance_scale"))
    return float(pipe.guidance_scale if given is None else given)


class _Asked:
    """Sees both models' answers, a step at a time.

    Args:
        guidance: factor of the prompt's influence in a step.
    """

    ranges: Sequence[tuple[int, int]] = ()

    def __init__(self, guidance: Callable[[RunFacts, int], float]) -> None:
        self.facts: RunFacts | None = None
        self._guidance = guidance
        self._step = -1
        self._parts: dict[str, Tensor] = {}
        self._found: dict[int, float] = {}

    def computed(self, step: int, kind: str, value: tuple[Any, ...]) -> None:
        """One more value, see `weft.diffusion.policy.Watcher`."""
        if step != self._step:
            self._close()
            self._step = step
        self._parts[kind] = value[0].to(torch.float32, copy=True)

    def values(self) -> list[float]:
        """The disagreement of each step."""
        self._close()
        return [self._found[step] for step in sorted(self._found)]

    def _close(self) -> None:
        """Compare the answers of the step that is over."""
        parts = self._parts
        if not parts:
            return
        assert self.facts is not None, "the run has begun"
        large = parts["output"]
        if "offset" not in parts:
            (small,) = (own for kind, own in parts.items() if kind.startswith("small"))
        else:
            without, small = (
                parts["small cond_uncond"].chunk(2)
                if "small cond_uncond" in parts
                else (parts["small uncond"], parts["small cond"])
            )
            less = 1.0 - self._guidance(self.facts, self._step)
            small = small + less * (without - small)
            large = large + less * parts["offset"]
        self._found[self._step] = float(distance((small,), (large,)))
        self._parts = {}


@dataclass(frozen=True, kw_only=True)
class _Everything(Policy):
    """Everything by the large model, and the small one asked."""

    asked: _Asked

    @property
    def name(self) -> str:
        return "everything, and the small model asked"

    def begin(self, facts: RunFacts) -> Decider:
        self.asked.facts = facts
        made = Fixed(plan=DenoisePlan(steps=(StepPlan(),) * facts.num_steps)).begin(facts)
        made.watcher, made.asks_small = self.asked, True
        return made
