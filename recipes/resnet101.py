"""ResNet-101: bottleneck blocks with batch normalisation, at 224 x 224.

Names of tensors end in their dims: B batch, C channel, Y row, X column, K class.

Source: He et al. 2015, arXiv 1512.03385, table 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.capture import SGD, Workload

__all__ = ["Bottlenecks", "Config", "bottlenecks_of_two_stages", "resnet101"]

EXPANSION = 4
"""Channels of a block's result for each of its narrow ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Narrow channels and blocks of each stage; every stage but the first halves the image."""

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    stem: int
    image: int
    classes: int


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        wide = channels * EXPANSION
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, wide, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(wide)
        self.shortcut = (
            nn.Identity()
            if channels_in == wide
            else nn.Sequential(
                nn.Conv2d(channels_in, wide, 1, stride, bias=False), nn.BatchNorm2d(wide)
            )
        )

    def forward(self, x_BCYX: Tensor) -> Tensor:
        y_BCYX = F.relu(self.norm1(self.conv1(x_BCYX)))
        y_BCYX = F.relu(self.norm2(self.conv2(y_BCYX)))
        return F.relu(self.norm3(self.conv3(y_BCYX)) + self.shortcut(x_BCYX))


class Bottlenecks(nn.Module):
    """A convolution and a pool, bottleneck blocks, mean over the image, head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, config.stem, 7, 2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(config.stem)
        self.layers = nn.ModuleList()
        channels_in = config.stem
        for stage, (channels, blocks) in enumerate(
            zip(config.channels, config.blocks, strict=True)
        ):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                self.layers.append(Bottleneck(channels_in, channels, stride))
                channels_in = channels * EXPANSION
        self.head = nn.Linear(channels_in, config.classes)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Logits of the classes [B,K]."""
        x_BCYX = F.max_pool2d(F.relu(self.norm(self.conv(x_BCYX))), 3, 2, padding=1)
        for layer in self.layers:
            x_BCYX = layer(x_BCYX)
        return self.head(x_BCYX.mean(dim=(2, 3)))


def class_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the class [scalar]."""
    return F.cross_entropy(model(batch["images"]), batch["labels"])


def random_batch(step: int, batch: int, config: Config) -> dict[str, Tensor]:
    """Images without meaning, for sizes at which only the time of a step matters."""
    generator = torch.Generator().manual_seed(step)
    images_BCYX = torch.randn(batch, 3, config.image, config.image, generator=generator)
    labels_B = torch.randint(config.classes, (batch,), generator=generator)
    return {"images": images_BCYX, "labels": labels_B}


def _workload(name: str, config: Config, batch: int) -> Workload:
    return Workload(
        name=name,
        model=lambda: Bottlenecks(config),
        loss=class_loss,
        batch=lambda step: random_batch(step, batch, config),
        optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=1e-4),
    )


def resnet101(*, batch: int = 120) -> Workload:
    """ResNet-101 (44.5 M parameters), for planning."""
    config = Config(
        channels=(64, 128, 256, 512), blocks=(3, 4, 23, 3), stem=64, image=224, classes=1000
    )
    return _workload("resnet101", config, batch)


def bottlenecks_of_two_stages(*, batch: int = 8) -> Workload:
    """Two stages of one block: milliseconds a step."""
    config = Config(channels=(4, 8), blocks=(1, 1), stem=8, image=16, classes=10)
    return _workload("bottlenecks_of_two_stages", config, batch)
