"""From the large model's latents to the small one's, and back, at every call.

Models of one family may scale their latents and their noise differently, as CogVideoX 5 B and 2 B
do. What the large one sees is, at its time t,

    x = a clean + s noise                    a^2 + s^2 = 1, from the scheduler
    x' = (s' / s) x                          where a' / s' = (a / s) / k

the latter being just what the small one would see at its own time t', of latents k times as
large. Its answer there says what is clean and what is noise, from which follows what the large
one would answer. Nothing of this is seen by the pipeline: its latents, its solver and the solver's
history stay the large model's.

Source: derived; the two decoders' scales and the schedulers' shifts are in the models' own
configurations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from weft.core.errors import InputError
from weft.diffusion.compat import Call
from weft.diffusion.control import Controls, controls

__all__ = ["Handover", "Noise", "handover"]

SHARED = ("in_channels", "out_channels", "patch_size", "text_dim", "text_embed_dim")
"""What two denoisers have to agree in to take each other's inputs."""
SPACE = ("z_dim", "latent_channels", "latents_mean", "latents_std", "invert_scale_latents")
"""What two decoders have to agree in for their latents to be of one space, but for a scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Noise of a scheduler of variance-preserving diffusion.

    Attributes:
        kept: share of the clean signal's variance at each time, falling [T].
        predicts: "v_prediction" or "epsilon".
    """

    kept: Tensor
    predicts: str

    def at(self, time: float) -> tuple[float, float]:
        """Factors of what is clean and of the noise at a time."""
        low = min(int(time), len(self.kept) - 1)
        high = min(low + 1, len(self.kept) - 1)
        share = time - low
        kept = float(self.kept[low]) * (1 - share) + float(self.kept[high]) * share
        return kept**0.5, (1 - kept) ** 0.5

    def time_of(self, kept: float) -> float:
        """The time at which so much of the clean signal's variance is left."""
        falling = self.kept.tolist()
        if kept >= falling[0]:
            return 0.0
        for time in range(1, len(falling)):
            if falling[time] <= kept:
                above, below = falling[time - 1], falling[time]
                return time - 1 + (above - kept) / (above - below)
        return float(len(falling) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Translates calls of a large denoiser to a small one.

    Attributes:
        large, small: their noise.
        scale: of the small one's latents over the large one's.
        rotates: whether the small one takes rotary embeddings.
        dtype: of the small one.
    """

    large: Noise
    small: Noise
    scale: float
    rotates: bool
    dtype: torch.dtype

    def __call__(self, call: Call) -> tuple[Call, Callable[[Tensor], Tensor]]:
        """The call of the small one, and what makes the large one's answer of its answer."""
        given, level = call.kwargs["hidden_states"], call.kwargs["timestep"]
        a, s = self.large.at(float(level.flatten()[0]))
        ratio = a / (s * self.scale)
        kept = ratio**2 / (1 + ratio**2)
        time = self.small.time_of(kept)
        own_a, own_s = kept**0.5, (1 - kept) ** 0.5
        latents = given * (own_s / s)
        kwargs = dict(call.kwargs)
        kwargs["hidden_states"] = latents.to(self.dtype)
        kwargs["timestep"] = torch.full_like(level, time, dtype=torch.float32)
        kwargs["encoder_hidden_states"] = kwargs["encoder_hidden_states"].to(self.dtype)
        if not self.rotates and "image_rotary_emb" in kwargs:
            kwargs["image_rotary_emb"] = None

        def back(answer: Tensor) -> Tensor:
            noise, clean = _parts(answer.float(), latents.float(), own_a, own_s, self.small)
            return _answer(noise, clean / self.scale, a, s, self.large).to(given.dtype)

        return replace(call, kwargs=kwargs), back


def _parts(answer: Tensor, x: Tensor, a: float, s: float, noise: Noise) -> tuple[Tensor, Tensor]:
    """Noise and what is clean, of a denoiser's answer."""
    if noise.predicts == "v_prediction":
        return s * x + a * answer, a * x - s * answer
    return answer, (x - s * answer) / max(a, 1e-6)


def _answer(noise: Tensor, clean: Tensor, a: float, s: float, of: Noise) -> Tensor:
    return a * noise - s * clean if of.predicts == "v_prediction" else noise


def handover(
    large: nn.Module, pipe: object, sketch_to: object
) -> tuple[nn.Module, Handover | Controls | None]:
    """The small denoiser of a pipeline, and how calls are translated; None where they need not be.

    Args:
        large: the large denoiser.
        pipe: its pipeline.
        sketch_to: the small one's pipeline, or the small denoiser alone, which then is taken to
            have the large one's latents and noise.

    Raises:
        InputError: the two do not share a latent space; the error names what differs.
    """
    small = (
        sketch_to if isinstance(sketch_to, nn.Module) else getattr(sketch_to, "transformer", None)
    )
    if not isinstance(small, nn.Module):
        raise InputError(
            need="a small pipeline, or its denoiser",
            got=type(sketch_to).__name__,
            hint="load the small model of the family with from_pretrained",
        )
    if type(large) is not type(small):
        raise _strangers("class", type(large).__name__, type(small).__name__)
    _require_equal(large, small, SHARED)
    if small is sketch_to:
        return small, controls(large, small)
    decoders = [getattr(p, "vae", None) for p in (pipe, sketch_to)]
    if all(decoder is not None for decoder in decoders):
        _require_equal(decoders[0], decoders[1], SPACE)
    noises = [_noise(getattr(p, "scheduler", None)) for p in (pipe, sketch_to)]
    if noises[0] is None and noises[1] is None:
        # Flows between clean and noise are the same for all models.
        return small, controls(large, small)
    if noises[0] is None or noises[1] is None:
        kinds = ["a flow" if noise is None else "a diffusion" for noise in noises]
        raise _strangers("kind of scheduler", *kinds)
    scales: list[Any] = [
        getattr(getattr(d, "config", None), "scaling_factor", 1.0) for d in decoders
    ]
    rotates = bool(getattr(small.config, "use_rotary_positional_embeddings", False))
    if rotates:
        _require_equal(large, small, ("attention_head_dim", "use_rotary_positional_embeddings"))
    dtype = next(small.parameters()).dtype
    return small, Handover(
        large=noises[0],
        small=noises[1],
        scale=scales[1] / scales[0],
        rotates=rotates,
        dtype=dtype,
    )


def _noise(scheduler: Any) -> Noise | None:
    """Noise of a scheduler; None of one whose latents flow in straight lines.

    Raises:
        InputError: what its models predict is not known.
    """
    kept = getattr(scheduler, "alphas_cumprod", None)
    predicts = getattr(getattr(scheduler, "config", None), "prediction_type", "flow_prediction")
    if not isinstance(kept, Tensor) or predicts == "flow_prediction":
        return None
    if predicts not in ("v_prediction", "epsilon"):
        raise _strangers("prediction_type", "v_prediction or epsilon", predicts)
    return Noise(kept=kept, predicts=predicts)


def _require_equal(large: Any, small: Any, names: tuple[str, ...]) -> None:
    for name in names:
        own, other = (getattr(model.config, name, None) for model in (large, small))
        if own != other:
            raise _strangers(name, own, other)


def _strangers(name: str, own: object, other: object) -> InputError:
    return InputError(
        need=f"a small model with the large one's {name}: {own}",
        got=f"{other}",
        hint="models of one family share their latent space, as Wan 2.1 14B and 1.3B do;"
        " others do not",
    )
