"""How like two videos are, and whether a video shows what was asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.moving_shapes import Prompt, seen

__all__ = ["RANGE", "adherence", "psnr", "ssim"]

RANGE = 2.0
"""Of a video's values, which are from -1 to 1."""
WINDOW, LUMINANCE, CONTRAST = 7, 0.01, 0.03
"""Source: Wang et al. 2004, "Image quality assessment"; a square window, as scikit-image has it."""


def psnr(videos: Tensor, wanted: Tensor) -> float:
    """Peak signal-to-noise ratio of each video's mean error, the mean over all videos [dB].

    Args:
        videos, wanted: [B,C,T,H,W].
    """
    errors = (videos.double() - wanted.double()).square().flatten(1).mean(1).clamp_min(1e-12)
    return float((10 * torch.log10(RANGE**2 / errors)).mean())


def ssim(videos: Tensor, wanted: Tensor) -> float:
    """Structural similarity, the mean over all frames of all videos.

    Args:
        videos, wanted: [B,C,T,H,W].
    """
    frames = [v.double().transpose(1, 2).flatten(0, 1) for v in (videos, wanted)]

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, WINDOW, stride=1)

    x, y = frames
    mx, my = mean(x), mean(y)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    xx, yy = sample * (mean(x * x) - mx * mx), sample * (mean(y * y) - my * my)
    xy = sample * (mean(x * y) - mx * my)
    c1, c2 = (LUMINANCE * RANGE) ** 2, (CONTRAST * RANGE) ** 2
    like = (2 * mx * my + c1) * (2 * xy + c2) / ((mx**2 + my**2 + c1) * (xx + yy + c2))
    return float(like.mean())


def adherence(videos: Tensor, asked: Sequence[Prompt]) -> float:
    """Share of what was asked for that is seen: shape, colour and direction of each video."""
    told = [seen(video) for video in videos.float()]
    right = [
        (a.shape is b.shape) + (a.colour is b.colour) + (a.direction is b.direction)
        for a, b in zip(told, asked, strict=True)
    ]
    return sum(right) / (3 * len(asked))
