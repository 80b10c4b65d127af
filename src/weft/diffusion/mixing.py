"""Directions of one model with the magnitudes of another, at each place of a video.

A value at a place is a vector over the channels. Of a mixed output

    v = |small| (x + r) / |x + r|     r: output minus latents x of the large model, when it last
                                      computed

the small model says how much, and the large one's last residual whereto.

Source: MDD, as others describe it: the magnitude of the small model's output with
the prompt, and the direction of the large model's cached residual. That vectors are those over
channels is our own reading.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from weft.diffusion.plan import Predictor
from weft.diffusion.policy import TURN
from weft.diffusion.request import Request

__all__ = ["mixed", "mixed_step", "residual", "turn"]


def mixed_step(
    request: Request, found: Tensor, latents: Tensor, large: str, channels: int
) -> Tensor:
    """The output of a mixed step, which notes how far the small model's directions have turned.

    Args:
        request: the run.
        found: the small model's output with the prompt.
        latents: that it was computed from.
        large: name of the large model, of which a residual is kept.
        channels: the dimension that vectors lie along.
    """
    own = request.denoising("small").outputs
    if len(own):
        (last,) = own.predict(request.position, Predictor.REUSE)
        request.distances.setdefault(TURN, []).append(turn(last, found, channels))
    own.push(request.position, (found,))
    kept = request.denoising(large).residuals
    (added,) = kept.predict(request.position, request.plan.predictor)
    return mixed(found, _own(latents, added, channels) + added, channels)


def residual(output: Tensor, latents: Tensor, channels: int) -> Tensor:
    """What a model adds to its latents; conditions may follow them in the channels."""
    return output - _own(latents, output, channels)


def mixed(magnitude: Tensor, direction: Tensor, channels: int) -> Tensor:
    """Vectors as long as those of one tensor, with the directions of another's.

    Args:
        magnitude: whose lengths are taken.
        direction: whose directions are.
        channels: the dimension that vectors lie along.

    Example:
        >>> mixed(torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0, 0.0]]), 1)
        tensor([[2., 0.]])
    """
    own = direction.float()
    length = torch.linalg.vector_norm(own, dim=channels, keepdim=True).clamp_min(1e-12)
    wanted = torch.linalg.vector_norm(magnitude.float(), dim=channels, keepdim=True)
    return (own * (wanted / length)).to(magnitude.dtype)


def turn(before: Tensor, after: Tensor, channels: int) -> Tensor:
    """How far directions have turned: 1 minus the cosine, the mean over places."""
    return (1.0 - cosine_similarity(before.float(), after.float(), dim=channels)).mean()


def _own(latents: Tensor, like: Tensor, channels: int) -> Tensor:
    return latents.narrow(channels, 0, like.shape[channels]).to(like.dtype)
