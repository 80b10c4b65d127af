"""Vision transformer on handwritten digits: patches, full attention, mean over patches.

Names of tensors end in their dims:

    B batch   C channel   T patch   D model width   H head   N head width   F hidden width
    K class   Y, X row and column of patches   U, V row and column within a patch

Source: Dosovitskiy et al. 2020, arXiv 2010.11929; the mean over patches in place of a class
token as in Beyer et al. 2022, arXiv 2205.01580.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from real_data import digits_batch
from torch import Tensor, nn

from weft.capture import AdamW, Workload

__all__ = ["Config", "ViT", "vit_tiny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a vision transformer; images are square."""

    num_layers: int
    width: int
    num_heads: int
    hidden: int
    image: int = 8
    patch: int = 2
    channels: int = 1
    classes: int = 10

    @property
    def patches(self) -> int:
        """Patches along one side of an image."""
        return self.image // self.patch


class PatchEmbedding(nn.Module):
    """Cuts an image into patches and gives each a vector and a learned position."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.patches, self.patch = config.patches, config.patch
        self.project = nn.Linear(config.channels * config.patch**2, config.width)
        self.positions = nn.Parameter(torch.empty(config.patches**2, config.width))
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        cut = (self.patches, self.patch)
        x_BCYUXV = x_BCYX.unflatten(3, cut).unflatten(2, cut)
        x_BYXCUV = x_BCYUXV.permute(0, 2, 4, 1, 3, 5)
        return self.project(x_BYXCUV.flatten(3).flatten(1, 2)) + self.positions


class Attention(nn.Module):
    """Self-attention by heads, every patch with every other."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        q_BHTN = self._split(self.query(x_BTD))
        k_BHTN = self._split(self.key(x_BTD))
        v_BHTN = self._split(self.value(x_BTD))
        y_BHTN = F.scaled_dot_product_attention(q_BHTN, k_BHTN, v_BHTN)
        return self.out(y_BHTN.transpose(1, 2).flatten(2))

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Attention and MLP, each normalised before and added to the residual stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD))
        h_BTF = F.gelu(self.up(self.mlp_norm(x_BTD)))
        return x_BTD + self.down(h_BTF)


class ViT(nn.Module):
    """Patch embedding, layers, mean over patches, head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embedding = PatchEmbedding(config)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.classes)

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Logits of the classes [B,K]."""
        x_BTD = self.embedding(x_BCYX)
        for layer in self.layers:
            x_BTD = layer(x_BTD)
        return self.head(self.norm(x_BTD).mean(dim=1))


def class_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the class [scalar]."""
    logits_BK = model(batch["images"])
    return F.cross_entropy(logits_BK, batch["labels"])


def vit_tiny(*, batch: int = 32) -> Workload:
    """Two layers of width 32 on the 16 patches of a digit: milliseconds a step."""
    config = Config(num_layers=2, width=32, num_heads=4, hidden=64)
    return Workload(
        name="vit_tiny",
        model=lambda: ViT(config),
        loss=class_loss,
        batch=lambda step: digits_batch(step, batch),
        optimizer=AdamW(lr=3e-3, weight_decay=0.05),
    )
