"""What has to be known of a pipeline to leave out parts of its steps.

    two passes   the denoiser is called with the prompt, then without
    one batch    it is called once, on a batch of which the second half has the prompt
    none         guidance is an input of the model, or there is none

Source: the pipelines' `__call__` in diffusers 0.42.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType

from weft.core.errors import InputError

__all__ = ["FAMILIES", "Family", "Guidance", "family_of"]


class Guidance(Enum):
    """How a pipeline asks for its two outputs."""

    TWO_PASSES = "two passes"
    ONE_BATCH = "one batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A kind of pipeline.

    Attributes:
        guidance: how the two outputs are asked for, if there are two.
        denoisers: names of its denoisers, of which a step uses one.
        batched: arguments of the denoiser that have an entry for each row of a batch, and with both
            outputs in one batch for each output.
        channels: the dimension of latents that their channels lie along.
    """

    guidance: Guidance
    denoisers: tuple[str, ...] = ("transformer",)
    batched: tuple[str, ...] = ()
    channels: int = 1


_BATCHED = ("hidden_states", "encoder_hidden_states", "timestep", "encoder_attention_mask")
_HUNYUAN = Family(
    guidance=Guidance.TWO_PASSES, batched=(*_BATCHED, "pooled_projections", "guidance")
)
_WAN = Family(
    guidance=Guidance.TWO_PASSES,
    denoisers=("transformer", "transformer_2"),
    batched=(*_BATCHED, "encoder_hidden_states_image", "control_hidden_states"),
)
_ONE_BATCH = Family(guidance=Guidance.ONE_BATCH, batched=_BATCHED)
_COGVIDEOX = replace(_ONE_BATCH, channels=2)  # behind the frames
_LTX = replace(_ONE_BATCH, channels=2)  # behind all tokens

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "CogVideoXImageToVideoPipeline": _COGVIDEOX,
        "CogVideoXPipeline": _COGVIDEOX,
        "HunyuanVideoPipeline": _HUNYUAN,
        "LTXImageToVideoPipeline": _LTX,
        "LTXPipeline": _LTX,
        "MochiPipeline": _ONE_BATCH,
        "WanImageToVideoPipeline": _WAN,
        "WanPipeline": _WAN,
        "WanVACEPipeline": _WAN,
    }
)


def family_of(pipeline: object) -> Family:
    """The family of a pipeline.

    Raises:
        InputError: it is of a class that is not known.
    """
    for kind in type(pipeline).__mro__:
        if kind.__name__ in FAMILIES:
            return FAMILIES[kind.__name__]
    raise InputError(
        need=f"a pipeline that weft knows: {', '.join(FAMILIES)}",
        got=type(pipeline).__name__,
        hint="if its denoiser is called under cache_context, say how with"
        " weft.diffusion.accelerate(pipe, family=Family(guidance=...))",
    )
