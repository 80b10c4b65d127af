"""Wide residual networks of a quarter to thirteen billion parameters.

    weft plan recipes/wide_resnet.py:wide_resnet_1b --machine dgx-h100x8 -o plan.json

Early blocks hold large images and few weights, late blocks small images and most of the weights,
so that no single way to split suits all. Widths grow in two ways: every channel count with the
base, and the 3x3 convolution inside a block once more with the width factor.

As published the network normalises over the batch, which mixes its samples. A plan without
micro-batches takes those statistics over the whole batch of a step, however it is split. The
functions that end in `_grouped` normalise over groups of channels of one image instead, and so
can be trained in micro-batches and in a pipeline.

Names of tensors end in their dims: B batch, C channel, Y row, X column, K class.

Source: sizes from Zheng et al. 2022 (Alpa), arXiv 2201.12023, table 4, with the base channels,
width factors and depths of its artifact, alpa-projects/alpa benchmark/alpa/suite_wresnet.py;
blocks from He et al. 2015, arXiv 1512.03385, table 1, widened as in Zagoruyko and Komodakis 2016,
arXiv 1605.07146; group normalisation from Wu and He 2018, arXiv 1803.08494.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from real_data import digits_batch
from torch import Tensor, nn

from weft.capture import SGD, Workload

__all__ = [
    "Config",
    "WideResNet",
    "wide_resnet_1b",
    "wide_resnet_1b_grouped",
    "wide_resnet_2b",
    "wide_resnet_4b",
    "wide_resnet_7b",
    "wide_resnet_13b",
    "wide_resnet_13b_grouped",
    "wide_resnet_250m",
    "wide_resnet_500m",
    "wide_resnet_grouped_tiny",
    "wide_resnet_tiny",
]

_BLOCKS_50 = (3, 4, 6, 3)
_BLOCKS_101 = (3, 4, 23, 3)
"""Blocks of the four stages in networks of 50 and 101 layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a wide residual network.

    Attributes:
        base: channels of the first convolution and of the first stage's inner convolutions;
            each later stage has twice those of the one before.
        factor: how many times wider than that a block's 3x3 convolution is made.
        blocks: blocks of each stage.
        groups: groups of channels that are normalised together, or 0 to normalise over the batch.
        small: for small images: the first convolution keeps their size.
    """

    base: int
    factor: int
    blocks: tuple[int, ...]
    groups: int = 0
    image: int = 224
    image_channels: int = 3
    classes: int = 1024
    small: bool = False


def norm(config: Config, channels: int) -> nn.Module:
    """Normalisation over the batch, or over groups of channels of one image."""
    if config.groups:
        return nn.GroupNorm(config.groups, channels)
    return nn.BatchNorm2d(channels)


class Block(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, the one in the middle wide, beside a shortcut."""

    def __init__(self, config: Config, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        wide, out = channels * config.factor, 4 * channels
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.norm1 = norm(config, channels)
        self.conv2 = nn.Conv2d(channels, wide, 3, stride, padding=1, bias=False)
        self.norm2 = norm(config, wide)
        self.conv3 = nn.Conv2d(wide, out, 1, bias=False)
        self.norm3 = norm(config, out)
        self.shortcut = nn.Identity()
        if channels_in != out:
            projection = nn.Conv2d(channels_in, out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, norm(config, out))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        y_BCYX = F.relu(self.norm1(self.conv1(x_BCYX)))
        y_BCYX = F.relu(self.norm2(self.conv2(y_BCYX)))
        y_BCYX = self.norm3(self.conv3(y_BCYX))
        return F.relu(y_BCYX + self.shortcut(x_BCYX))


class Stage(nn.Module):
    """A block that changes the shape of the image, then blocks that are alike."""

    def __init__(self, config: Config, channels_in: int, stage: int) -> None:
        super().__init__()
        channels, stride = config.base * 2**stage, 2 if stage else 1
        self.first = Block(config, channels_in, channels, stride)
        self.layers = nn.ModuleList(
            Block(config, 4 * channels, channels, 1) for _ in range(config.blocks[stage] - 1)
        )

    def forward(self, x_BCYX: Tensor) -> Tensor:
        x_BCYX = self.first(x_BCYX)
        for layer in self.layers:
            x_BCYX = layer(x_BCYX)
        return x_BCYX


class WideResNet(nn.Module):
    """A convolution, stages of residual blocks, mean over the image, head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.small = config.small
        size, stride = (3, 1) if config.small else (7, 2)
        channels, padding = config.image_channels, size // 2
        self.conv = nn.Conv2d(channels, config.base, size, stride, padding, bias=False)
        self.norm = norm(config, config.base)
        # By name, because stages are unlike: a list of them would be taken for repeated layers.
        self.stages = nn.ModuleDict()
        channels_in = config.base
        for stage in range(len(config.blocks)):
            self.stages[f"stage{stage + 1}"] = Stage(config, channels_in, stage)
            channels_in = 4 * config.base * 2**stage
        self.head = nn.Linear(channels_in, config.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Logits of the classes [B,K]."""
        x_BCYX = F.relu(self.norm(self.conv(x_BCYX)))
        if not self.small:
            x_BCYX = F.max_pool2d(x_BCYX, 3, stride=2, padding=1)
        for stage in self.stages.values():
            x_BCYX = stage(x_BCYX)
        return self.head(x_BCYX.mean(dim=(2, 3)))


def class_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the class, never below single precision [scalar]."""
    logits_BK = model(batch["images"])
    if logits_BK.dtype is torch.bfloat16:
        logits_BK = logits_BK.float()
    return F.cross_entropy(logits_BK, batch["labels"])


def random_batch(step: int, batch: int, config: Config) -> dict[str, Tensor]:
    """Images without meaning, for sizes at which only the time of a step matters."""
    generator = torch.Generator().manual_seed(step)
    shape = (batch, config.image_channels, config.image, config.image)
    labels = torch.randint(config.classes, (batch,), generator=generator)
    return {"images": torch.randn(shape, generator=generator), "labels": labels}


def wide_resnet(
    name: str,
    config: Config,
    *,
    batch: int,
    compute_dtype: torch.dtype | None = torch.bfloat16,
) -> Workload:
    """A network of published size: master copies in float32, arithmetic in bfloat16.

    Alpa computed in float32 on V100s, with 1,536 images a step; `compute_dtype=None` does so.
    """
    return Workload(
        name=name,
        model=lambda: WideResNet(config),
        loss=class_loss,
        batch=lambda step: random_batch(step, batch, config),
        optimizer=SGD(lr=0.1, momentum=0.9, weight_decay=1e-4),
        compute_dtype=compute_dtype,
    )


def wide_resnet_250m(*, batch: int = 128) -> Workload:
    """50 layers, 160 base channels, 3x3 convolutions twice as wide."""
    config = Config(base=160, factor=2, blocks=_BLOCKS_50)
    return wide_resnet("wide_resnet_250m", config, batch=batch)


def wide_resnet_500m(*, batch: int = 128) -> Workload:
    """50 layers, 224 base channels, 3x3 convolutions twice as wide."""
    config = Config(base=224, factor=2, blocks=_BLOCKS_50)
    return wide_resnet("wide_resnet_500m", config, batch=batch)


def wide_resnet_1b(*, batch: int = 128) -> Workload:
    """50 layers, 320 base channels, 3x3 convolutions twice as wide."""
    config = Config(base=320, factor=2, blocks=_BLOCKS_50)
    return wide_resnet("wide_resnet_1b", config, batch=batch)


def wide_resnet_1b_grouped(*, batch: int = 128) -> Workload:
    """The 1B with group normalisation."""
    config = Config(base=320, factor=2, blocks=_BLOCKS_50, groups=32)
    return wide_resnet("wide_resnet_1b_grouped", config, batch=batch)


def wide_resnet_2b(*, batch: int = 128) -> Workload:
    """50 layers, 448 base channels, 3x3 convolutions twice as wide."""
    config = Config(base=448, factor=2, blocks=_BLOCKS_50)
    return wide_resnet("wide_resnet_2b", config, batch=batch)


def wide_resnet_4b(*, batch: int = 128) -> Workload:
    """50 layers, 640 base channels, 3x3 convolutions twice as wide."""
    config = Config(base=640, factor=2, blocks=_BLOCKS_50)
    return wide_resnet("wide_resnet_4b", config, batch=batch)


def wide_resnet_7b(*, batch: int = 128) -> Workload:
    """50 layers, 320 base channels, 3x3 convolutions 16 times as wide: Alpa's 6.8B."""
    config = Config(base=320, factor=16, blocks=_BLOCKS_50)
    return wide_resnet("wide_resnet_7b", config, batch=batch)


def wide_resnet_13b(*, batch: int = 128) -> Workload:
    """101 layers, 320 base channels, 3x3 convolutions 16 times as wide."""
    config = Config(base=320, factor=16, blocks=_BLOCKS_101)
    return wide_resnet("wide_resnet_13b", config, batch=batch)


def wide_resnet_13b_grouped(*, batch: int = 128) -> Workload:
    """The 13B with group normalisation."""
    config = Config(base=320, factor=16, blocks=_BLOCKS_101, groups=32)
    return wide_resnet("wide_resnet_13b_grouped", config, batch=batch)


def _tiny(name: str, *, batch: int, groups: int) -> Workload:
    config = Config(
        base=8,
        factor=2,
        blocks=(2, 2),
        groups=groups,
        image=8,
        image_channels=1,
        classes=10,
        small=True,
    )
    return Workload(
        name=name,
        model=lambda: WideResNet(config),
        loss=class_loss,
        batch=lambda step: digits_batch(step, batch),
        optimizer=SGD(lr=0.05, momentum=0.9, weight_decay=1e-4),
    )


def wide_resnet_tiny(*, batch: int = 32) -> Workload:
    """Two stages of two blocks on digits, normalised over the batch: milliseconds a step."""
    return _tiny("wide_resnet_tiny", batch=batch, groups=0)


def wide_resnet_grouped_tiny(*, batch: int = 32) -> Workload:
    """Two stages of two blocks on digits, normalised over groups: milliseconds a step."""
    return _tiny("wide_resnet_grouped_tiny", batch=batch, groups=4)
