"""Inception v3: blocks of convolutions side by side, whose results are laid next to each other.

Without the auxiliary classifier. Names of tensors end in their dims: B batch, C channel, Y row,
X column, K class.

Source: Szegedy et al. 2015, arXiv 1512.00567, table 1 and figures 5 to 7; channels of the branches
as in the authors' published network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.capture import SGD, Workload

__all__ = ["Inception", "inception_v3"]


class Convolution(nn.Module):
    """A convolution, batch norm and relu; the image keeps its size unless there is a stride."""

    def __init__(
        self, channels_in: int, channels: int, size: int | tuple[int, int], stride: int = 1
    ) -> None:
        super().__init__()
        sizes = (size, size) if isinstance(size, int) else size
        padding = (0, 0) if stride > 1 else (sizes[0] // 2, sizes[1] // 2)
        self.conv = nn.Conv2d(channels_in, channels, sizes, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x_BCYX)))


def chain(
    channels_in: int, *layers: tuple[int, int | tuple[int, int]], stride: int = 1
) -> nn.Module:
    """Convolutions of (channels, size) one after the other; the last one has the stride."""
    made: list[nn.Module] = []
    for at, (channels, size) in enumerate(layers):
        made.append(
            Convolution(channels_in, channels, size, stride if at + 1 == len(layers) else 1)
        )
        channels_in = channels
    return nn.Sequential(*made)


class Pooled(nn.Module):
    """A mean over neighbours, then a 1x1 convolution."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = Convolution(channels_in, channels, 1)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        return self.conv(F.avg_pool2d(x_BCYX, 3, 1, padding=1))


class Forked(nn.Module):
    """A stem whose result two convolutions read."""

    def __init__(self, stem: nn.Module, channels_in: int, channels: int) -> None:
        super().__init__()
        self.stem = stem
        self.flat = Convolution(channels_in, channels, (1, 3))
        self.tall = Convolution(channels_in, channels, (3, 1))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        x_BCYX = self.stem(x_BCYX)
        return torch.cat((self.flat(x_BCYX), self.tall(x_BCYX)), dim=1)


class Branches(nn.Module):
    """Branches side by side; the image is pooled beside them where it gets smaller."""

    def __init__(self, branches: Sequence[nn.Module], *, pools: bool = False) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.pools = pools

    def forward(self, x_BCYX: Tensor) -> Tensor:
        made = [branch(x_BCYX) for branch in self.branches]
        if self.pools:
            made.append(F.max_pool2d(x_BCYX, 3, 2))
        return torch.cat(made, dim=1)


def _narrow(channels_in: int, pooled: int) -> Branches:
    return Branches(
        (
            chain(channels_in, (64, 1)),
            chain(channels_in, (48, 1), (64, 5)),
            chain(channels_in, (64, 1), (96, 3), (96, 3)),
            Pooled(channels_in, pooled),
        )
    )


def _middle(inner: int) -> Branches:
    flat, tall = (1, 7), (7, 1)
    return Branches(
        (
            chain(768, (192, 1)),
            chain(768, (inner, 1), (inner, flat), (192, tall)),
            chain(768, (inner, 1), (inner, tall), (inner, flat), (inner, tall), (192, flat)),
            Pooled(768, 192),
        )
    )


def _wide(channels_in: int) -> Branches:
    return Branches(
        (
            chain(channels_in, (320, 1)),
            Forked(chain(channels_in, (384, 1)), 384, 384),
            Forked(chain(channels_in, (448, 1), (384, 3)), 384, 384),
            Pooled(channels_in, 192),
        )
    )


class Inception(nn.Module):
    """Stem, three kinds of blocks with the image halved between them, mean, head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.ModuleList(
            (
                chain(3, (32, 3), stride=2),
                chain(32, (32, 3), (64, 3)),
                chain(64, (80, 1), (192, 3)),
            )
        )
        flat, tall = (1, 7), (7, 1)
        self.blocks = nn.ModuleList(
            (
                *(
                    _narrow(channels, pooled)
                    for channels, pooled in ((192, 32), (256, 64), (288, 64))
                ),
                Branches(
                    (
                        chain(288, (384, 3), stride=2),
                        chain(288, (64, 1), (96, 3), (96, 3), stride=2),
                    ),
                    pools=True,
                ),
                *(_middle(inner) for inner in (128, 160, 160, 192)),
                Branches(
                    (
                        chain(768, (192, 1), (320, 3), stride=2),
                        chain(768, (192, 1), (192, flat), (192, tall), (192, 3), stride=2),
                    ),
                    pools=True,
                ),
                _wide(1280),
                _wide(2048),
            )
        )
        self.head = nn.Linear(2048, classes)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Logits of the classes [B,K]."""
        first, second, third = self.stem
        x_BCYX = F.max_pool2d(second(first(x_BCYX)), 3, 2)
        x_BCYX = F.max_pool2d(third(x_BCYX), 3, 2)
        for block in self.blocks:
            x_BCYX = block(x_BCYX)
        return self.head(x_BCYX.mean(dim=(2, 3)))


def class_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the class [scalar]."""
    return F.cross_entropy(model(batch["images"]), batch["labels"])


def random_batch(step: int, batch: int, image: int, classes: int) -> dict[str, Tensor]:
    """Images without meaning, for sizes at which only the time of a step matters."""
    generator = torch.Generator().manual_seed(step)
    images_BCYX = torch.randn(batch, 3, image, image, generator=generator)
    labels_B = torch.randint(classes, (batch,), generator=generator)
    return {"images": images_BCYX, "labels": labels_B}


def inception_v3(*, batch: int = 120, image: int = 224, classes: int = 1000) -> Workload:
    """Inception v3 (23.8 M parameters), for planning."""
    return Workload(
        name="inception_v3",
        model=lambda: Inception(classes),
        loss=class_loss,
        batch=lambda step: random_batch(step, batch, image, classes),
        optimizer=SGD(lr=0.045, momentum=0.9, weight_decay=4e-5),
    )
