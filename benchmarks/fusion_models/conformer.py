"""A Conformer: convolutions that thin out frames, then layers of attention and convolution.

Names of tensors end in their dims:

    B batch   F frame   M mel band   T position (a fourth of the frames)   D model width
    H head   N head width   R relative position   C class

Source: Gulati et al. 2020, arXiv 2005.08100, section 2 (layers) and table 1 (sizes); relative
positions as in Dai et al. 2019, arXiv 1901.02860, appendix B.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.capture import AdamW, Workload

__all__ = ["Config", "Conformer", "conformer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a Conformer."""

    num_layers: int
    width: int
    num_heads: int
    frames: int
    bands: int = 80
    kernel: int = 31
    classes: int = 1_024
    dropout: float = 0.0


class FeedForward(nn.Module):
    """Half a step through two linear layers with a SiLU between them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, 4 * config.width)
        self.down = nn.Linear(4 * config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The stream behind it [B,T,D]."""
        hidden = self.dropout(F.silu(self.up(self.norm(x_BTD))))
        return x_BTD + 0.5 * self.dropout(self.down(hidden))


class RelativeAttention(nn.Module):
    """Self-attention whose scores know how far positions are apart."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.norm = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.position = nn.Linear(config.width, config.width, bias=False)
        self.out = nn.Linear(config.width, config.width)
        head = (config.num_heads, config.width // config.num_heads)
        self.content_bias = nn.Parameter(torch.zeros(head))
        self.position_bias = nn.Parameter(torch.zeros(head))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, relative_RD: Tensor) -> Tensor:
        """The stream behind it [B,T,D]; R runs from T-1 down to 1-T."""
        q_BTHN, k_BTHN, v_BTHN = (
            part.unflatten(2, (self.num_heads, -1))
            for part in self.qkv(self.norm(x_BTD)).chunk(3, dim=-1)
        )
        r_RHN = self.position(relative_RD).unflatten(1, (self.num_heads, -1))
        by_content = (q_BTHN + self.content_bias).transpose(1, 2) @ k_BTHN.permute(0, 2, 3, 1)
        by_position = (q_BTHN + self.position_bias).transpose(1, 2) @ r_RHN.permute(1, 2, 0)
        scores_BHTT = by_content + _shifted(by_position)
        weight_BHTT = (scores_BHTT / q_BTHN.shape[-1] ** 0.5).softmax(-1)
        gathered_BTD = (weight_BHTT @ v_BTHN.transpose(1, 2)).transpose(1, 2).flatten(2)
        return x_BTD + self.dropout(self.out(gathered_BTD))


def _shifted(scores_BHTR: Tensor) -> Tensor:
    """Scores by relative position, as scores by position [B,H,T,T]."""
    size = scores_BHTR.shape[2]
    padded = F.pad(scores_BHTR, (1, 0))
    turned = padded.view(*padded.shape[:2], padded.shape[3], size)
    return turned[:, :, 1:].reshape(scores_BHTR.shape)[..., :size]


class Convolution(nn.Module):
    """A gated pointwise convolution, a depthwise one over positions, and a pointwise one."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.gated = nn.Conv1d(config.width, 2 * config.width, 1)
        self.depthwise = nn.Conv1d(
            config.width,
            config.width,
            config.kernel,
            padding=config.kernel // 2,
            groups=config.width,
        )
        self.batch_norm = nn.BatchNorm1d(config.width)
        self.pointwise = nn.Conv1d(config.width, config.width, 1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The stream behind it [B,T,D]."""
        y_BDT = F.glu(self.gated(self.norm(x_BTD).transpose(1, 2)), dim=1)
        y_BDT = F.silu(self.batch_norm(self.depthwise(y_BDT)))
        return x_BTD + self.dropout(self.pointwise(y_BDT).transpose(1, 2))


class Block(nn.Module):
    """Attention and convolution between two half steps of feed-forward layers."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.first = FeedForward(config)
        self.attention = RelativeAttention(config)
        self.convolution = Convolution(config)
        self.second = FeedForward(config)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x_BTD: Tensor, relative_RD: Tensor) -> Tensor:
        """The stream behind the layer [B,T,D]."""
        x_BTD = self.attention(self.first(x_BTD), relative_RD)
        return self.norm(self.second(self.convolution(x_BTD)))


class Conformer(nn.Module):
    """Two convolutions of stride two, layers, and a class for each position."""

    relative_RD: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.thin = nn.Sequential(
            nn.Conv2d(1, config.width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(config.width, config.width, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.into = nn.Linear(config.width * (config.bands // 4), config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.head = nn.Linear(config.width, config.classes)
        distance = torch.arange(config.frames // 4 - 1, -config.frames // 4, -1.0)
        rate = 10_000 ** -(torch.arange(0, config.width, 2) / config.width)
        angle = torch.outer(distance, rate)
        self.register_buffer("relative_RD", torch.cat((angle.sin(), angle.cos()), 1))

    def forward(self, mels_BFM: Tensor) -> Tensor:
        """Logits of each position [B,T,C]."""
        thin = self.thin(mels_BFM[:, None])
        x_BTD = self.into(thin.transpose(1, 2).flatten(2))
        for layer in self.layers:
            x_BTD = layer(x_BTD, self.relative_RD)
        return self.head(x_BTD)


def frame_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the classes of positions [scalar]."""
    logits_BTC = model(batch["mels"])
    return F.cross_entropy(logits_BTC.flatten(0, 1), batch["targets"].flatten())


def conformer(config: Config, *, batch: int) -> Workload:
    """A Conformer on noise, `batch` utterances a step."""

    def noise(step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        targets = (batch, config.frames // 4)
        return {
            "mels": torch.randn(batch, config.frames, config.bands, generator=generator),
            "targets": torch.randint(config.classes, targets, generator=generator),
        }

    return Workload(
        name="conformer",
        model=lambda: Conformer(config),
        loss=frame_loss,
        batch=noise,
        optimizer=AdamW(lr=1e-4, weight_decay=1e-2),
    )
