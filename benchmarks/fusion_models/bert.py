"""BERT: an encoder with learned positions, trained to fill in masked tokens.

Names of tensors end in their dims:

    B batch   T position   D model width   H head   N head width   V vocabulary

Source: Devlin et al. 2019, arXiv 1810.04805, section 3 and appendix A.2 (GELU, dropout of 0.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.capture import AdamW, Workload

__all__ = ["BERT", "Config", "bert"]

IGNORED = -100
"""Target where nothing was masked; cross entropy's default."""
MASKED = 0.15
"""Share of the tokens that are to be filled in. Source: section 3.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a BERT."""

    num_layers: int
    width: int
    num_heads: int
    sequence: int
    vocabulary: int = 30_522
    dropout: float = 0.1


class Attention(nn.Module):
    """Self-attention by heads between all positions that are no padding."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, bias_B11T: Tensor) -> Tensor:
        """What each position gathers from the others [B,T,D]."""
        q_BHTN, k_BHTN, v_BHTN = (
            linear(x_BTD).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        scores_BHTT = q_BHTN @ k_BHTN.transpose(2, 3) / q_BHTN.shape[-1] ** 0.5
        weight_BHTT = self.dropout((scores_BHTT + bias_B11T).softmax(-1))
        return self.out((weight_BHTT @ v_BHTN).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream and normalised after."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.width, eps=1e-12)
        self.up = nn.Linear(config.width, 4 * config.width)
        self.down = nn.Linear(4 * config.width, config.width)
        self.mlp_norm = nn.LayerNorm(config.width, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, bias_B11T: Tensor) -> Tensor:
        """The stream behind the layer [B,T,D]."""
        x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention(x_BTD, bias_B11T)))
        return self.mlp_norm(x_BTD + self.dropout(self.down(F.gelu(self.up(x_BTD)))))


class BERT(nn.Module):
    """Embeddings, layers, and the head that fills in masked tokens."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(0.02 * torch.randn(config.sequence, config.width))
        self.norm = nn.LayerNorm(config.width, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.transform = nn.Linear(config.width, config.width)
        self.transform_norm = nn.LayerNorm(config.width, eps=1e-12)
        self.head = nn.Linear(config.width, config.vocabulary)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, tokens_BT: Tensor, is_token_BT: Tensor) -> Tensor:
        """Logits of each token [B,T,V]."""
        bias_B11T = torch.where(is_token_BT, 0.0, torch.finfo(torch.float32).min)[:, None, None]
        x_BTD = self.dropout(self.norm(self.tokens(tokens_BT) + self.positions))
        for layer in self.layers:
            x_BTD = layer(x_BTD, bias_B11T.to(x_BTD.dtype))
        return self.head(self.transform_norm(F.gelu(self.transform(x_BTD))))


def masked_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the masked tokens [scalar]."""
    logits_BTV = model(batch["tokens"], batch["is_token"])
    return F.cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten())


def masked_batch(step: int, batch: int, config: Config) -> dict[str, Tensor]:
    """Random tokens, some of them masked; sequences of unlike length."""
    generator = torch.Generator().manual_seed(step)
    shape = (batch, config.sequence)
    tokens_BT = torch.randint(1, config.vocabulary, shape, generator=generator)
    is_asked = torch.rand(shape, generator=generator) < MASKED
    length_B1 = torch.randint(
        config.sequence // 2, config.sequence, (batch, 1), generator=generator
    )
    is_token_BT = torch.arange(config.sequence) < length_B1
    return {
        "tokens": tokens_BT.masked_fill(is_asked, 0),
        "is_token": is_token_BT,
        "targets": tokens_BT.masked_fill(~(is_asked & is_token_BT), IGNORED),
    }


def bert(config: Config, *, batch: int) -> Workload:
    """A BERT on random tokens, `batch` sequences a step."""
    return Workload(
        name="bert",
        model=lambda: BERT(config),
        loss=masked_loss,
        batch=lambda step: masked_batch(step, batch, config),
        optimizer=AdamW(lr=1e-4, weight_decay=0.01),
    )
