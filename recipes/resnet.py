"""Residual network with batch normalisation on handwritten digits.

Batch normalisation takes its statistics over the whole batch of a step, however a plan
splits it, so a run on many devices learns what one device learns.

Names of tensors end in their dims: B batch, C channel, Y row, X column, K class.

Source: He et al. 2015, arXiv 1512.03385, section 4.2 (basic blocks, as for CIFAR-10).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from real_data import digits_batch
from torch import Tensor, nn

from weft.capture import SGD, Workload

__all__ = ["Config", "ResNet", "resnet_tiny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Channels of each stage and blocks in it; every stage but the first halves the image."""

    channels: tuple[int, ...]
    blocks: int
    image_channels: int = 1
    classes: int = 10


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut = (
            nn.Identity()
            if channels_in == channels_out
            else nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
        )

    def forward(self, x_BCYX: Tensor) -> Tensor:
        y_BCYX = F.relu(self.norm1(self.conv1(x_BCYX)))
        y_BCYX = self.norm2(self.conv2(y_BCYX))
        return F.relu(y_BCYX + self.shortcut(x_BCYX))


class ResNet(nn.Module):
    """A convolution, residual blocks, mean over the image, head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        first = config.channels[0]
        self.conv = nn.Conv2d(config.image_channels, first, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(first)
        self.layers = nn.ModuleList()
        channels_in = first
        for stage, channels in enumerate(config.channels):
            for block in range(config.blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                self.layers.append(Block(channels_in, channels, stride))
                channels_in = channels
        self.head = nn.Linear(channels_in, config.classes)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Logits of the classes [B,K]."""
        x_BCYX = F.relu(self.norm(self.conv(x_BCYX)))
        for layer in self.layers:
            x_BCYX = layer(x_BCYX)
        return self.head(x_BCYX.mean(dim=(2, 3)))


def class_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the class [scalar]."""
    logits_BK = model(batch["images"])
    return F.cross_entropy(logits_BK, batch["labels"])


def resnet_tiny(*, batch: int = 32) -> Workload:
    """Two stages of one block, 8 and 16 channels: milliseconds a step."""
    config = Config(channels=(8, 16), blocks=1)
    return Workload(
        name="resnet_tiny",
        model=lambda: ResNet(config),
        loss=class_loss,
        batch=lambda step: digits_batch(step, batch),
        optimizer=SGD(lr=0.05, momentum=0.9, weight_decay=1e-4),
    )
