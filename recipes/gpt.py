"""GPT: learned positions, LayerNorm, GELU, bytes of English text as tokens.

    weft plan recipes/gpt.py:gpt_small --machine dgx-h100x1 -o plan.json

Names of tensors end in their dims:

    B batch   T position   D model width   H head   N head width   F hidden width   V vocabulary

Source: the decoder of Radford et al. 2019 (GPT-2), with one token per byte.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from real_data import text_batch
from torch import Tensor, nn

from weft.capture import AdamW, Workload

__all__ = ["GPT", "Config", "gpt_demo", "gpt_small", "gpt_tiny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a GPT."""

    num_layers: int
    width: int
    num_heads: int
    sequence: int
    vocabulary: int = 256
    dropout: float = 0.0
    tied: bool = True

    @property
    def hidden(self) -> int:
        """Width of the hidden layer of an MLP."""
        return 4 * self.width


class Attention(nn.Module):
    """Causal self-attention by heads."""

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
        y_BHTN = F.scaled_dot_product_attention(q_BHTN, k_BHTN, v_BHTN, is_causal=True)
        return self.out(y_BHTN.transpose(1, 2).flatten(2))

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class MLP(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        h_BTF = F.gelu(self.up(x_BTD))
        return self.down(h_BTF)


class Block(nn.Module):
    """Attention and MLP, each normalised before and added to the residual stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD)))
        return x_BTD + self.dropout(self.mlp(self.mlp_norm(x_BTD)))


class GPT(nn.Module):
    """A decoder: embeddings, layers, head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(config.sequence, config.width))
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self._initialise(config)
        if config.tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits of the next token [B,T,V]."""
        x_BTD = self.dropout(self.tokens(tokens_BT) + self.positions)
        for layer in self.layers:
            x_BTD = layer(x_BTD)
        return self.head(self.norm(x_BTD))

    def _initialise(self, config: Config) -> None:
        nn.init.normal_(self.positions, std=0.02)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                # Each layer adds twice to the residual stream; this keeps its variance.
                into_residual = name.endswith((".out", ".down"))
                scale = math.sqrt(2 * config.num_layers) if into_residual else 1.0
                nn.init.normal_(module.weight, std=0.02 / scale)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


def next_token_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the next token [scalar]."""
    logits_BTV = model(batch["tokens"])
    return F.cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten())


def gpt(name: str, config: Config, *, batch: int, lr: float) -> Workload:
    """A GPT on English text, `batch` sequences a step."""
    return Workload(
        name=name,
        model=lambda: GPT(config),
        loss=next_token_loss,
        batch=lambda step: text_batch(step, batch, config.sequence),
        optimizer=AdamW(lr=lr, betas=(0.9, 0.95), weight_decay=0.1),
    )


def gpt_tiny(*, batch: int = 8, dropout: float = 0.0, tied: bool = True) -> Workload:
    """Two layers of width 32: a step takes milliseconds."""
    config = Config(num_layers=2, width=32, num_heads=4, sequence=16, dropout=dropout, tied=tied)
    return gpt("gpt_tiny", config, batch=batch, lr=1e-2)


def gpt_demo(*, batch: int = 16) -> Workload:
    """Six layers of width 256 (4.8 M parameters): what `weft demo` trains.

    At a rate of 1e-3 without warm-up one step of AdamW, torch's own too, throws the loss from
    3.5 to 8.1.
    """
    config = Config(num_layers=6, width=256, num_heads=8, sequence=128)
    return gpt("gpt_demo", config, batch=batch, lr=3e-4)


def gpt_small(*, batch: int = 8, dropout: float = 0.1) -> Workload:
    """Six layers of width 384 (10.8 M parameters), with dropout: seconds a step on a laptop."""
    config = Config(num_layers=6, width=384, num_heads=6, sequence=256, dropout=dropout)
    return gpt("gpt_small", config, batch=batch, lr=1e-3)
