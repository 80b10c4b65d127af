"""A U-Net that removes noise from handwritten digits: down, up, and skips between equal sizes.

What comes down on one side is read again on the other, so that no cut of the model in two has a
single tensor across it. Normalisation is by groups of channels of one image, never over the batch.

Names of tensors end in their dims:

    B batch   C channel   Y, X row and column

Source: Ronneberger, Fischer and Brox 2015, arXiv 1505.04597; trained to predict noise as in
Ho, Jain and Abbeel 2020, arXiv 2006.11239.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from real_data import digits_batch
from torch import Tensor, nn

from weft.capture import AdamW, Workload

__all__ = ["Config", "UNet", "unet_tiny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a U-Net; each level halves the image and doubles the channels."""

    levels: int
    width: int
    groups: int = 4


class Block(nn.Module):
    """Two convolutions, each normalised before, and the input added."""

    def __init__(self, config: Config, channels_in: int, channels: int) -> None:
        super().__init__()
        self.match = nn.Conv2d(channels_in, channels, 1)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.first_norm = ChannelNorm(config.groups, channels)
        self.second_norm = ChannelNorm(config.groups, channels)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        x_BCYX = self.match(x_BCYX)
        h_BCYX = self.first(F.silu(self.first_norm(x_BCYX)))
        return x_BCYX + self.second(F.silu(self.second_norm(h_BCYX)))


class ChannelNorm(nn.Module):
    """Group normalisation: mean 0 and variance 1 over each group of channels of an image."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.groups = groups
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        grouped = x_BCYX.unflatten(1, (self.groups, -1))
        mean = grouped.mean(dim=(2, 3, 4), keepdim=True)
        variance = (grouped - mean).square().mean(dim=(2, 3, 4), keepdim=True)
        normal = ((grouped - mean) * torch.rsqrt(variance + 1e-5)).flatten(1, 2)
        return normal * self.scale[:, None, None] + self.shift[:, None, None]


class UNet(nn.Module):
    """Blocks on the way down, one at the bottom, blocks on the way up that read the skips."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths = [config.width * 2**level for level in range(config.levels + 1)]
        self.enter = nn.Conv2d(1, widths[0], 3, padding=1)
        self.down = nn.ModuleList(Block(config, w, w) for w in widths[:-1])
        self.shrink = nn.ModuleList(nn.Conv2d(w, 2 * w, 2, stride=2) for w in widths[:-1])
        self.bottom = Block(config, widths[-1], widths[-1])
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1])
        )
        self.up = nn.ModuleList(Block(config, 2 * w, w) for w in reversed(widths[:-1]))
        self.leave = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """The noise in an image [B,1,Y,X]."""
        h_BCYX = self.enter(x_BCYX)
        skips: list[Tensor] = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            h_BCYX = block(h_BCYX)
            skips.append(h_BCYX)
            h_BCYX = shrink(h_BCYX)
        h_BCYX = self.bottom(h_BCYX)
        for grow, block in zip(self.grow, self.up, strict=True):
            h_BCYX = block(torch.cat((grow(h_BCYX), skips.pop()), dim=1))
        return self.leave(h_BCYX)


def noise_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean square error of the predicted noise [scalar]."""
    return F.mse_loss(model(batch["images"] + batch["noise"]), batch["noise"])


def noisy_batch(step: int, batch: int) -> dict[str, Tensor]:
    """The next digits, and noise that is the same for the same step [batch, 1, 8, 8]."""
    images = digits_batch(step, batch)["images"]
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(step))
    return {"images": images, "noise": noise}


def unet_tiny(*, batch: int = 16) -> Workload:
    """Two levels of 16 and 32 channels on digits of 8 x 8: for tests."""
    config = Config(levels=2, width=16)
    return Workload(
        name="unet_tiny",
        model=lambda: UNet(config),
        loss=noise_loss,
        batch=lambda step: noisy_batch(step, batch),
        optimizer=AdamW(lr=1e-3),
    )
