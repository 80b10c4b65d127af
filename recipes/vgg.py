"""VGG: stacks of 3x3 convolutions, then three wide linear layers.

VGG-19's linear layers hold 86 % of its parameters and do less than 1 % of its arithmetic,
which is why it splits well in two ways at once.

Names of tensors end in their dims: B batch, C channel, Y row, X column, F hidden width,
K class.

Source: Simonyan and Zisserman 2014, arXiv 1409.1556, table 1, column E.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from real_data import digits_batch
from torch import Tensor, nn

from weft.capture import SGD, Workload

__all__ = ["VGG", "Config", "vgg19", "vgg19_of_120", "vgg_tiny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a VGG: each stage is its convolutions' channels, and ends by halving the image."""

    stages: tuple[tuple[int, ...], ...]
    hidden: int
    image: int
    image_channels: int
    classes: int
    dropout: float = 0.5

    @property
    def features(self) -> int:
        """Values per image that the convolutions hand to the linear layers."""
        return self.stages[-1][-1] * (self.image >> len(self.stages)) ** 2


class VGG(nn.Module):
    """Convolutions by stages, then linear layers with dropout."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        channels_in = config.image_channels
        for stage in config.stages:
            convolutions = nn.ModuleList()
            for channels in stage:
                convolutions.append(nn.Conv2d(channels_in, channels, 3, padding=1))
                channels_in = channels
            self.stages.append(convolutions)
        self.hidden1 = nn.Linear(config.features, config.hidden)
        self.hidden2 = nn.Linear(config.hidden, config.hidden)
        self.head = nn.Linear(config.hidden, config.classes)
        self.dropout = nn.Dropout(config.dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Logits of the classes [B,K]."""
        for stage in self.stages:
            for convolution in stage.children():
                x_BCYX = F.relu(convolution(x_BCYX))
            x_BCYX = F.max_pool2d(x_BCYX, 2)
        h_BF = self.dropout(F.relu(self.hidden1(x_BCYX.flatten(1))))
        h_BF = self.dropout(F.relu(self.hidden2(h_BF)))
        return self.head(h_BF)


def class_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the class [scalar]."""
    logits_BK = model(batch["images"])
    return F.cross_entropy(logits_BK, batch["labels"])


def random_batch(step: int, batch: int, config: Config) -> dict[str, Tensor]:
    """Images without meaning, for sizes at which only the time of a step matters."""
    generator = torch.Generator().manual_seed(step)
    shape = (batch, config.image_channels, config.image, config.image)
    labels = torch.randint(config.classes, (batch,), generator=generator)
    return {"images": torch.randn(shape, generator=generator), "labels": labels}


def vgg19(*, batch: int = 32) -> Workload:
    """VGG-19 at 224 x 224 (143.7 M parameters), for planning."""
    config = Config(
        stages=((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
        hidden=4096,
        image=224,
        image_channels=3,
        classes=1000,
    )
    return Workload(
        name="vgg19",
        model=lambda: VGG(config),
        loss=class_loss,
        batch=lambda step: random_batch(step, batch, config),
        optimizer=SGD(lr=0.01, momentum=0.9, weight_decay=5e-4),
    )


def vgg19_of_120(*, batch: int = 120) -> Workload:
    """The same with 120 images a step, as studies of uneven clusters have it."""
    return replace(vgg19(batch=batch), name="vgg19_of_120")


def vgg_tiny(*, batch: int = 32) -> Workload:
    """Two stages of one convolution on digits: milliseconds a step."""
    config = Config(
        stages=((8,), (16,)), hidden=64, image=8, image_channels=1, classes=10, dropout=0.1
    )
    return Workload(
        name="vgg_tiny",
        model=lambda: VGG(config),
        loss=class_loss,
        batch=lambda step: digits_batch(step, batch),
        optimizer=SGD(lr=0.05, momentum=0.9, weight_decay=5e-4),
    )
