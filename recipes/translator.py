"""An encoder and a decoder on English text: the decoder's layers all read what the encoder made.

The task is to write a line backwards, byte by byte. All cuts through the decoder are crossed by
its own stream and by the encoder's result.

Names of tensors end in their dims:

    B batch   S source position   T target position   D model width   H head   N head width
    F hidden width   V vocabulary

Source: Vaswani et al. 2017, arXiv 1706.03762, normalised before each block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from real_data import text_batch
from torch import Tensor, nn

from weft.capture import AdamW, Workload

__all__ = ["Config", "Translator", "transformer_base", "translator_tiny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of an encoder-decoder."""

    num_layers: int
    width: int
    num_heads: int
    hidden: int
    vocabulary: int = 256
    sequence: int = 32


class Attention(nn.Module):
    """Attention by heads from one stream to another or to itself."""

    def __init__(self, config: Config, *, causal: bool = False) -> None:
        super().__init__()
        self.num_heads, self.causal = config.num_heads, causal
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x_BTD: Tensor, source_BSD: Tensor) -> Tensor:
        q_BHTN = self._split(self.query(x_BTD))
        k_BHSN = self._split(self.key(source_BSD))
        v_BHSN = self._split(self.value(source_BSD))
        y_BHTN = F.scaled_dot_product_attention(q_BHTN, k_BHSN, v_BHSN, is_causal=self.causal)
        return self.out(y_BHTN.transpose(1, 2).flatten(2))

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class Mlp(nn.Module):
    """Two products with a GELU between them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_BTD)))


class EncoderLayer(nn.Module):
    """Self-attention and MLP."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = Mlp(config)

    def forward(self, x_BSD: Tensor) -> Tensor:
        h_BSD = self.attention_norm(x_BSD)
        x_BSD = x_BSD + self.attention(h_BSD, h_BSD)
        return x_BSD + self.mlp(self.mlp_norm(x_BSD))


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder's result, MLP."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.own_norm = nn.LayerNorm(config.width)
        self.own = Attention(config, causal=True)
        self.cross_norm = nn.LayerNorm(config.width)
        self.cross = Attention(config)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.mlp = Mlp(config)

    def forward(self, x_BTD: Tensor, source_BSD: Tensor) -> Tensor:
        h_BTD = self.own_norm(x_BTD)
        x_BTD = x_BTD + self.own(h_BTD, h_BTD)
        x_BTD = x_BTD + self.cross(self.cross_norm(x_BTD), source_BSD)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class Translator(nn.Module):
    """Encoder, decoder, and a head; both sides share the table of bytes."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(config.sequence, config.width))
        nn.init.normal_(self.positions, std=0.02)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.vocabulary)

    def forward(self, source_BS: Tensor, target_BT: Tensor) -> Tensor:
        """Logits of the next byte of the target [B,T,V]."""
        source_BSD = self.tokens(source_BS) + self.positions
        for layer in self.encoder:
            source_BSD = layer(source_BSD)
        x_BTD = self.tokens(target_BT) + self.positions
        for layer in self.decoder:
            x_BTD = layer(x_BTD, source_BSD)
        return self.head(self.norm(x_BTD))


def next_byte_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the next byte [scalar]."""
    logits_BTV = model(batch["source"], batch["target"])
    return F.cross_entropy(logits_BTV.flatten(0, 1), batch["next"].flatten())


def backwards_batch(step: int, batch: int, sequence: int) -> dict[str, Tensor]:
    """Lines of text [batch, sequence], and the same backwards, shifted by one byte."""
    line_BS = text_batch(step, batch, sequence)["tokens"]
    next_BT = line_BS.flip(1)
    start_B1 = torch.zeros(batch, 1, dtype=torch.long)
    return {
        "source": line_BS,
        "target": torch.cat((start_B1, next_BT[:, :-1]), dim=1),
        "next": next_BT.contiguous(),
    }


def translator_tiny(*, batch: int = 8) -> Workload:
    """Two layers on each side, width 32: for tests."""
    config = Config(num_layers=2, width=32, num_heads=4, hidden=64)
    return Workload(
        name="translator_tiny",
        model=lambda: Translator(config),
        loss=next_byte_loss,
        batch=lambda step: backwards_batch(step, batch, config.sequence),
        optimizer=AdamW(lr=1e-3),
    )


def random_words(step: int, batch: int, config: Config) -> dict[str, Tensor]:
    """Words without meaning, for sizes at which only the time of a step matters."""
    generator = torch.Generator().manual_seed(step)
    shape = (batch, config.sequence)
    return {
        name: torch.randint(config.vocabulary, shape, generator=generator)
        for name in ("source", "target", "next")
    }


def transformer_base(*, batch: int = 600) -> Workload:
    """Six layers on each side, width 512, on lines of ten words, for planning.

    Source: sizes of the Transformer in TAG's experiments (Zhang et al. 2023, arXiv 2302.06126).
    """
    config = Config(num_layers=6, width=512, num_heads=8, hidden=2048, vocabulary=8192, sequence=10)
    return Workload(
        name="transformer_base",
        model=lambda: Translator(config),
        loss=next_byte_loss,
        batch=lambda step: random_words(step, batch, config),
        optimizer=AdamW(lr=1e-4),
    )
