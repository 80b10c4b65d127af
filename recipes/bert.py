"""BERT: an encoder of text that fills in masked words, with sizes of published planning studies.

The head has a table of its own: tables of words are the largest parameters of the small model,
and with a vocabulary of 305,220, which one study has, of the large one too.

Names of tensors end in their dims:

    B batch   T position   D model width   H head   N head width   F hidden width   V vocabulary

Source: Devlin et al. 2018, arXiv 1810.04805; sizes as in the experiments of TAG (Zhang et al.
2023, arXiv 2302.06126).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.capture import AdamW, Workload

__all__ = [
    "Bert",
    "Config",
    "bert_large",
    "bert_large_wide",
    "bert_of_two_layers",
    "bert_small",
    "bert_small_wide",
]

VOCABULARY, WIDE_VOCABULARY = 30_522, 305_220
"""Word pieces of BERT, and ten times as many, as a configuration of TAG's has it."""
MASKED = 0.15
"""Share of the words that are to be filled in. Source: Devlin et al. 2018, section 3.1."""
IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a BERT."""

    num_layers: int
    width: int
    num_heads: int
    hidden: int
    vocabulary: int = VOCABULARY
    sequence: int = 128


class Attention(nn.Module):
    """Self-attention by heads, every word with every other."""

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


class Layer(nn.Module):
    """Attention and MLP, each added to the residual stream and normalised after."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)
        self.mlp_norm = nn.LayerNorm(config.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = self.attention_norm(x_BTD + self.attention(x_BTD))
        return self.mlp_norm(x_BTD + self.down(F.gelu(self.up(x_BTD))))


class Bert(nn.Module):
    """Words and positions, layers, and a head over the vocabulary."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(config.sequence, config.width))
        nn.init.normal_(self.positions, std=0.02)
        self.norm = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.transform = nn.Linear(config.width, config.width)
        self.transform_norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.vocabulary)

    def forward(self, words_BT: Tensor) -> Tensor:
        """Logits of the word at each position [B,T,V]."""
        x_BTD = self.norm(self.words(words_BT) + self.positions)
        for layer in self.layers:
            x_BTD = layer(x_BTD)
        return self.head(self.transform_norm(F.gelu(self.transform(x_BTD))))


def masked_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the words that were masked [scalar]."""
    logits_BTV = model(batch["words"])
    return F.cross_entropy(
        logits_BTV.flatten(0, 1), batch["masked"].flatten(), ignore_index=IGNORED
    )


def random_batch(step: int, batch: int, config: Config) -> dict[str, Tensor]:
    """Words without meaning, for sizes at which only the time of a step matters."""
    generator = torch.Generator().manual_seed(step)
    shape = (batch, config.sequence)
    words_BT = torch.randint(config.vocabulary, shape, generator=generator)
    is_masked_BT = torch.rand(shape, generator=generator) < MASKED
    return {
        "words": words_BT.masked_fill(is_masked_BT, 0),
        "masked": words_BT.masked_fill(~is_masked_BT, IGNORED),
    }


def bert(name: str, config: Config, *, batch: int) -> Workload:
    """A BERT on random words, `batch` sequences a step."""
    return Workload(
        name=name,
        model=lambda: Bert(config),
        loss=masked_loss,
        batch=lambda step: random_batch(step, batch, config),
        optimizer=AdamW(lr=1e-4, weight_decay=0.01),
    )


def bert_small(*, batch: int = 32) -> Workload:
    """Four layers of width 1024, for planning."""
    return bert("bert_small", _small(VOCABULARY), batch=batch)


def bert_small_wide(*, batch: int = 32) -> Workload:
    """The same with ten times the vocabulary: 97 % of its parameters are tables of words."""
    return bert("bert_small_wide", _small(WIDE_VOCABULARY), batch=batch)


def bert_large(*, batch: int = 32) -> Workload:
    """24 layers of width 2048, for planning."""
    return bert("bert_large", _large(VOCABULARY), batch=batch)


def bert_large_wide(*, batch: int = 32) -> Workload:
    """The same with ten times the vocabulary."""
    return bert("bert_large_wide", _large(WIDE_VOCABULARY), batch=batch)


def _small(vocabulary: int) -> Config:
    return Config(num_layers=4, width=1024, num_heads=16, hidden=1024, vocabulary=vocabulary)


def _large(vocabulary: int) -> Config:
    return Config(num_layers=24, width=2048, num_heads=16, hidden=2048, vocabulary=vocabulary)


def bert_of_two_layers(*, batch: int = 8) -> Workload:
    """Two layers of width 32: a step takes milliseconds."""
    config = Config(num_layers=2, width=32, num_heads=4, hidden=64, vocabulary=96, sequence=16)
    return bert("bert_of_two_layers", config, batch=batch)
