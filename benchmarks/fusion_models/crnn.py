"""CRNN: reads words from pictures by convolutions, bidirectional LSTMs and CTC.

Names of tensors end in their dims:

    B batch   C channel   Y row   X column   T position (a fourth of the columns)   K class

Source: Shi et al. 2015, arXiv 1507.05717, table 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.fusion_models.recurrent import BidirectionalLSTM
from weft.capture import AdamW, Workload

__all__ = ["CRNN", "Config", "crnn"]

BLANK = 0
"""Class between letters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a CRNN."""

    columns: int
    channels: tuple[int, ...] = (64, 128, 256, 256, 512, 512, 512)
    state: int = 256
    classes: int = 37
    letters: int = 5


class CRNN(nn.Module):
    """Seven convolutions that leave one row, two bidirectional LSTMs, a class for each position."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = (1, *config.channels)
        self.pictures = nn.Sequential(
            *(nn.Conv2d(c[0], c[1], 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(c[1], c[2], 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(c[2], c[3], 3, padding=1), nn.BatchNorm2d(c[3]), nn.ReLU()),
            *(nn.Conv2d(c[3], c[4], 3, padding=1), nn.ReLU()),
            nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
            *(nn.Conv2d(c[4], c[5], 3, padding=1), nn.BatchNorm2d(c[5]), nn.ReLU()),
            *(nn.Conv2d(c[5], c[6], 3, padding=1), nn.ReLU()),
            nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
            *(nn.Conv2d(c[6], c[7], 2), nn.BatchNorm2d(c[7]), nn.ReLU()),
        )
        self.first = BidirectionalLSTM(c[7], config.state)
        self.between = nn.Linear(2 * config.state, config.state)
        self.second = BidirectionalLSTM(config.state, config.state)
        self.head = nn.Linear(2 * config.state, config.classes)

    def forward(self, pictures_BCYX: Tensor) -> Tensor:
        """Logarithms of the chances of each class [B,T,K]."""
        features_BCT = self.pictures(pictures_BCYX).squeeze(2)
        state = self.between(self.first(features_BCT.transpose(1, 2)))
        return self.head(self.second(state)).log_softmax(-1)


def word_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """CTC of the words [scalar]."""
    chances_TBK = model(batch["pictures"]).transpose(0, 1)
    letters = batch["letters"]
    steps = torch.full((letters.shape[0],), chances_TBK.shape[0])
    lengths = torch.full((letters.shape[0],), letters.shape[1])
    return F.ctc_loss(chances_TBK, letters, steps, lengths, blank=BLANK)


def crnn(config: Config, *, batch: int) -> Workload:
    """A CRNN on noise of 32 rows, `batch` pictures a step."""

    def noise(step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        words = (batch, config.letters)
        return {
            "pictures": torch.randn(batch, 1, 32, config.columns, generator=generator),
            "letters": torch.randint(1, config.classes, words, generator=generator),
        }

    return Workload(
        name="crnn",
        model=lambda: CRNN(config),
        loss=word_loss,
        batch=noise,
        optimizer=AdamW(lr=1e-3, weight_decay=0.0),
    )
