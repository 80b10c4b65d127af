"""GPT models of published sizes, as Megatron-LM trained them: float32 masters, bfloat16 arithmetic.

Attention is written out (scores, softmax, product), as it was before fused attention kernels: what
is predicted for these sizes can be compared with what was measured then.

Names of tensors end in their dims:

    B batch   T position   S key position   D model width   H head   N head width   F hidden width
    V vocabulary

Source: Narayanan et al. 2021, arXiv 2104.04473, table 1; Brown et al. 2020, arXiv 2005.14165.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.capture import AdamW, Workload

__all__ = ["GPT", "Config", "gpt3", "gpt3_tiny", "megatron_1b"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a GPT."""

    num_layers: int
    width: int
    num_heads: int
    sequence: int = 2048
    vocabulary: int = 51_200
    fused_attention: bool = False


class Attention(nn.Module):
    """Causal self-attention by heads."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads, self.fused = config.num_heads, config.fused_attention
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        q_BHTN = self._split(self.query(x_BTD))
        k_BHSN = self._split(self.key(x_BTD))
        v_BHSN = self._split(self.value(x_BTD))
        if self.fused:
            y_BHTN = F.scaled_dot_product_attention(q_BHTN, k_BHSN, v_BHSN, is_causal=True)
        else:
            y_BHTN = self._written_out(q_BHTN, k_BHSN, v_BHSN)
        return self.out(y_BHTN.transpose(1, 2).flatten(2))

    def _written_out(self, q_BHTN: Tensor, k_BHSN: Tensor, v_BHSN: Tensor) -> Tensor:
        length = q_BHTN.shape[2]
        scores_BHTS = q_BHTN @ k_BHSN.transpose(2, 3) / math.sqrt(q_BHTN.shape[3])
        position_T = torch.arange(length, device=q_BHTN.device)
        later_TS = position_T[None, :] > position_T[:, None]
        weights_BHTS = scores_BHTS.masked_fill(later_TS, -1e4).softmax(dim=3)
        return weights_BHTS @ v_BHSN

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Attention and MLP, each normalised before and added to the residual stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, 4 * config.width)
        self.down = nn.Linear(4 * config.width, config.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD))
        h_BTF = F.gelu(self.up(self.mlp_norm(x_BTD)), approximate="tanh")
        return x_BTD + self.down(h_BTF)


class GPT(nn.Module):
    """A decoder whose table of tokens is also its head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(config.sequence, config.width))
        nn.init.normal_(self.positions, std=0.02)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits of the next token [B,T,V]."""
        x_BTD = self.tokens(tokens_BT) + self.positions
        for layer in self.layers:
            x_BTD = layer(x_BTD)
        return self.head(self.norm(x_BTD))


def next_token_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the next token, in float32 [scalar]."""
    logits_BTV = model(batch["tokens"]).float()
    return F.cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten())


def random_batch(step: int, batch: int, config: Config) -> dict[str, Tensor]:
    """Random tokens and targets [batch, sequence], the same for the same step."""
    generator = torch.Generator().manual_seed(step)
    shape = (batch, config.sequence + 1)
    tokens_BT = torch.randint(config.vocabulary, shape, generator=generator)
    return {
        "tokens": tokens_BT[:, :-1].contiguous(),
        "targets": tokens_BT[:, 1:].contiguous(),
    }


def gpt3(
    name: str,
    config: Config,
    *,
    batch: int,
    lr: float = 1e-4,
    compute_dtype: torch.dtype | None = torch.bfloat16,
) -> Workload:
    """A GPT of published size."""
    return Workload(
        name=name,
        model=lambda: GPT(config),
        loss=next_token_loss,
        batch=lambda step: random_batch(step, batch, config),
        optimizer=AdamW(lr=lr, betas=(0.9, 0.95), weight_decay=0.1),
        compute_dtype=compute_dtype,
    )


def megatron_1b(*, batch: int = 512) -> Workload:
    """1.7 B parameters: the first row of the table."""
    config = Config(num_layers=24, width=2304, num_heads=24)
    return gpt3("megatron_1b", config, batch=batch)


def gpt3_tiny(*, batch: int = 8) -> Workload:
    """Two layers of width 32 on 64 tokens: milliseconds a step."""
    config = Config(num_layers=2, width=32, num_heads=4, sequence=16, vocabulary=64)
    return gpt3("gpt3_tiny", config, batch=batch, lr=1e-3, compute_dtype=None)
