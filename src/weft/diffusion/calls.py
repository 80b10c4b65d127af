"""What is read off pipelines and the calls of their denoisers, and answers in their form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from weft.core.digest import digest
from weft.core.errors import InputError
from weft.diffusion.families import Family, Guidance

__all__ = [
    "answer_of",
    "configuration_of",
    "distance",
    "is_guided",
    "levels_of",
    "output_of",
    "position_of",
    "with_prompt",
]


def distance(predicted: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> Tensor:
    """|predicted - found| / |found|, in mean absolute values, of the first stream."""
    scale = found[0].abs().mean().clamp_min(1e-12)
    return (predicted[0] - found[0]).abs().mean() / scale


def position_of(kwargs: dict[str, Any]) -> float:
    """Noise level of a call; of several, as where frames are given, the highest."""
    level = kwargs.get("timestep")
    if not isinstance(level, Tensor):
        raise InputError(
            need="a denoiser that is told the noise level as its argument timestep",
            got=f"timestep of type {type(level).__name__}",
            hint="weft knows the pipelines in weft.diffusion.FAMILIES",
        )
    return float(level.max())


def levels_of(pipeline: object) -> Tensor:
    """The scheduler's timesteps: another tensor in each run."""
    levels = getattr(getattr(pipeline, "scheduler", None), "timesteps", None)
    if not isinstance(levels, Tensor) or levels.ndim != 1 or not len(levels):
        raise InputError(
            need="a pipeline whose scheduler holds its timesteps while it runs",
            got=f"timesteps of type {type(levels).__name__}",
            hint="weft knows the schedulers of diffusers",
        )
    return levels


def configuration_of(part: Any) -> str:
    """Class and digest of the configuration of a part of a pipeline."""
    own = {key: str(value) for key, value in part.config.items() if not key.startswith("_")}
    return f"{type(part).__name__} {digest(own)}"


def is_guided(pipeline: object, family: Family) -> bool | None:
    """Whether a pipeline computes two outputs a step; None if only its calls can tell."""
    found = getattr(pipeline, "do_classifier_free_guidance", None)
    if isinstance(found, bool):
        return found
    if family.guidance is Guidance.TWO_PASSES:
        return None
    scale = getattr(pipeline, "guidance_scale", None)
    return isinstance(scale, int | float) and scale > 1.0


def with_prompt(kwargs: dict[str, Any], batched: Sequence[str]) -> dict[str, Any]:
    """The arguments of a call with the prompt alone, of those of a call with and without."""
    return {
        name: value[len(value) // 2 :] if name in batched and isinstance(value, Tensor) else value
        for name, value in kwargs.items()
    }


def output_of(answer: Any) -> Tensor:
    """The output in what a denoiser returned."""
    return answer[0] if isinstance(answer, tuple) else answer.sample


def answer_of(output: Tensor, kwargs: dict[str, Any]) -> Any:
    """An output as a denoiser returns it."""
    if kwargs.get("return_dict", True) is False:
        return (output,)
    from diffusers.models.modeling_outputs import Transformer2DModelOutput

    return Transformer2DModelOutput(sample=output)
