"""DIEN: a recommender that follows how a user's interest evolves.

Names of tensors end in their dims:

    B batch   T position in the history   E width of an embedding   D width of a behaviour

Source: Zhou et al. 2019, arXiv 1809.03672, section 4, and its published code (embeddings of 18,
a head of 200 and 80 with PReLU); the auxiliary loss is equation 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.fusion_models.recurrent import AttentionalGRU
from weft.capture import AdamW, Workload

__all__ = ["DIEN", "Config", "dien"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a DIEN."""

    history: int
    embedding: int = 18
    items: int = 20_000
    categories: int = 1_000

    @property
    def width(self) -> int:
        """Width of a behaviour: an item and its category."""
        return 2 * self.embedding


class DIEN(nn.Module):
    """Embeddings, a GRU that extracts interests, attention, a GRU that attention gates, a head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.items = nn.Embedding(config.items, config.embedding)
        self.categories = nn.Embedding(config.categories, config.embedding)
        width = config.width
        self.extract = AttentionalGRU(width, width)
        self.attention = nn.Sequential(
            nn.Linear(4 * width, 80),
            nn.Sigmoid(),
            nn.Linear(80, 40),
            nn.Sigmoid(),
            nn.Linear(40, 1),
        )
        self.evolve = AttentionalGRU(width, width)
        self.norm = nn.BatchNorm1d(4 * width)
        self.head = nn.Sequential(
            *(nn.Linear(4 * width, 200), nn.PReLU(200)),
            *(nn.Linear(200, 80), nn.PReLU(80), nn.Linear(80, 1)),
        )

    def forward(self, items: Tensor, categories: Tensor, is_real_BT: Tensor) -> tuple[Tensor, ...]:
        """Whether the last of T+1 items is clicked [B], and what the auxiliary loss compares.

        Args:
            items, categories: the history and, last, what is offered [B,T+1].
            is_real_BT: which positions of the history are no padding.
        """
        behaviour = torch.cat((self.items(items), self.categories(categories)), -1)
        seen_BTD, offered_BD = behaviour[:, :-1], behaviour[:, -1]
        interest_BTD = self.extract(seen_BTD)
        offered_BTD = offered_BD[:, None].expand_as(interest_BTD)
        compared = torch.cat(
            (offered_BTD, interest_BTD, offered_BTD - interest_BTD, offered_BTD * interest_BTD), -1
        )
        scores_BT = self.attention(compared).squeeze(-1)
        weight_BT = scores_BT.masked_fill(~is_real_BT, -1e9).softmax(-1)
        evolved_BD = self.evolve(interest_BTD, weight_BT)[:, -1]
        sum_BD = (seen_BTD * is_real_BT[..., None]).sum(1)
        joined = torch.cat((offered_BD, sum_BD, offered_BD * sum_BD, evolved_BD), -1)
        return self.head(self.norm(joined)).squeeze(-1), interest_BTD, seen_BTD


def click_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Cross entropy of clicks, and of telling the next behaviour from another user's [scalar]."""
    is_real_BT = batch["is_real"]
    click_B, interest_BTD, seen_BTD = model(batch["items"], batch["categories"], is_real_BT)
    next_BTD = seen_BTD[:, 1:]
    right = (interest_BTD[:, :-1] * next_BTD).sum(-1)
    wrong = (interest_BTD[:, :-1] * next_BTD.roll(1, 0)).sum(-1)
    apart = F.softplus(-right) + F.softplus(wrong)
    real = is_real_BT[:, 1:].to(apart.dtype)
    auxiliary = (apart * real).sum() / real.sum()
    return F.binary_cross_entropy_with_logits(click_B, batch["clicks"]) + auxiliary


def click_batch(step: int, batch: int, config: Config) -> dict[str, Tensor]:
    """Random histories of unlike length."""
    generator = torch.Generator().manual_seed(step)
    shape = (batch, config.history + 1)
    length = torch.randint(2, config.history + 1, (batch, 1), generator=generator)
    return {
        "items": torch.randint(config.items, shape, generator=generator),
        "categories": torch.randint(config.categories, shape, generator=generator),
        "is_real": torch.arange(config.history) < length,
        "clicks": torch.randint(2, (batch,), generator=generator).float(),
    }


def dien(config: Config, *, batch: int) -> Workload:
    """A DIEN on random histories, `batch` users a step."""
    return Workload(
        name="dien",
        model=lambda: DIEN(config),
        loss=click_loss,
        batch=lambda step: click_batch(step, batch, config),
        optimizer=AdamW(lr=1e-3, weight_decay=0.0),
    )
