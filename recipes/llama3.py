"""Llama 3: RMSNorm, rotary positions, grouped-query attention, SwiGLU, untied head.

    weft plan recipes/llama3.py:llama3_8b --machine dgx-h100x8 -o plan.json

Names of tensors end in their dims:

    B batch   T position   D model width   H query head   K key/value head
    N head width   M half a head   F hidden width   V vocabulary

Source: The Llama 3 Herd of Models, arXiv 2407.21783, table 3 (sizes, learning rates) and
section 3.2 (rotary base 500,000; vocabulary 128,256 with its special tokens).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from real_data import text_batch
from torch import Tensor, nn

from weft.capture import AdamW, Workload

__all__ = [
    "Config",
    "Llama",
    "llama3_1b",
    "llama3_8b",
    "llama3_8layers",
    "llama3_70b",
    "llama3_405b",
    "llama_block",
    "llama_tiny",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a Llama."""

    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int
    hidden: int
    vocabulary: int = 128_256
    sequence: int = 8_192
    rope_base: float = 500_000.0
    norm_eps: float = 1e-5

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.num_heads


class Rotary(nn.Module):
    """Angles by which positions turn pairs of channels.

    The angles are a buffer, computed once: every rank of a plan then has the same bits.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        pairs_M = torch.arange(0, config.head_width, 2) / config.head_width
        frequency_M = config.rope_base**-pairs_M
        angle_TM = torch.outer(torch.arange(config.sequence).float(), frequency_M)
        self.register_buffer("cos", angle_TM.cos(), persistent=False)
        self.register_buffer("sin", angle_TM.sin(), persistent=False)

    def forward(self, x_BHTN: Tensor) -> Tensor:
        a_BHTM, b_BHTM = x_BHTN.chunk(2, dim=-1)
        turned = (
            a_BHTM * self.cos - b_BHTM * self.sin,
            b_BHTM * self.cos + a_BHTM * self.sin,
        )
        return torch.cat(turned, dim=-1).to(x_BHTN.dtype)


class Attention(nn.Module):
    """Causal self-attention; several query heads share a key and a value head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        kv_width = config.num_kv_heads * config.head_width
        self.head_width = config.head_width
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key = nn.Linear(config.width, kv_width, bias=False)
        self.value = nn.Linear(config.width, kv_width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x_BTD: Tensor, rotary: Rotary) -> Tensor:
        q_BHTN = rotary(self._split(self.query(x_BTD)))
        k_BKTN = rotary(self._split(self.key(x_BTD)))
        v_BKTN = self._split(self.value(x_BTD))
        y_BHTN = F.scaled_dot_product_attention(
            q_BHTN, k_BKTN, v_BKTN, is_causal=True, enable_gqa=True
        )
        return self.out(y_BHTN.transpose(1, 2).flatten(2))

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(2, (-1, self.head_width)).transpose(1, 2)


class SwiGLU(nn.Module):
    """A linear layer gated by the SiLU of another, then a third."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden, bias=False)
        self.up = nn.Linear(config.width, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        h_BTF = F.silu(self.gate(x_BTD)) * self.up(x_BTD)
        return self.down(h_BTF)


class Block(nn.Module):
    """Attention and SwiGLU, each normalised before and added to the residual stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.mlp = SwiGLU(config)

    def forward(self, x_BTD: Tensor, rotary: Rotary) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rotary)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class Llama(nn.Module):
    """A decoder: embedding, layers, head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.rotary = Rotary(config)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits of the next token [B,T,V]."""
        x_BTD = self.tokens(tokens_BT)
        for layer in self.layers:
            x_BTD = layer(x_BTD, self.rotary)
        return self.head(self.norm(x_BTD))


def next_token_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the next token, never below single precision [scalar]."""
    logits_BTV = model(batch["tokens"])
    if logits_BTV.dtype is torch.bfloat16:
        logits_BTV = logits_BTV.float()
    return F.cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten())


def random_batch(step: int, batch: int, config: Config) -> dict[str, Tensor]:
    """Tokens without meaning, for sizes at which only the time of a step matters."""
    generator = torch.Generator().manual_seed(step)
    shape = (batch, config.sequence + 1)
    window = torch.randint(config.vocabulary, shape, generator=generator)
    return {"tokens": window[:, :-1].contiguous(), "targets": window[:, 1:].contiguous()}


def llama3(name: str, config: Config, *, batch: int, lr: float) -> Workload:
    """A Llama 3 of published size: master copies in float32, arithmetic in bfloat16."""
    return Workload(
        name=name,
        model=lambda: Llama(config),
        loss=next_token_loss,
        batch=lambda step: random_batch(step, batch, config),
        optimizer=AdamW(lr=lr, betas=(0.9, 0.95), weight_decay=0.1),
        compute_dtype=torch.bfloat16,
    )


def llama3_1b(*, batch: int = 4) -> Workload:
    """1.0 B parameters in eight layers; four sequences of 4,096 tokens: one device trains it."""
    config = Config(
        num_layers=8, width=2048, num_heads=16, num_kv_heads=4, hidden=8_192, sequence=4_096
    )
    return llama3("llama3_1b", config, batch=batch, lr=3e-4)


def llama3_8b(*, batch: int = 64) -> Workload:
    """8.03 B parameters; 64 sequences of 8,192 tokens a step."""
    config = Config(num_layers=32, width=4096, num_heads=32, num_kv_heads=8, hidden=14_336)
    return llama3("llama3_8b", config, batch=batch, lr=3e-4)


def llama3_8layers(*, batch: int = 16) -> Workload:
    """The 8B's first eight layers with its vocabulary: large enough to plan, quick to search."""
    config = Config(num_layers=8, width=4096, num_heads=32, num_kv_heads=8, hidden=14_336)
    return llama3("llama3_8layers", config, batch=batch, lr=3e-4)


def llama3_70b(*, batch: int = 256) -> Workload:
    """70.6 B parameters; 256 sequences of 8,192 tokens a step."""
    config = Config(num_layers=80, width=8192, num_heads=64, num_kv_heads=8, hidden=28_672)
    return llama3("llama3_70b", config, batch=batch, lr=1.5e-4)


def llama3_405b(*, batch: int = 512) -> Workload:
    """406 B parameters; 512 sequences of 8,192 tokens a step.

    Meta trained with 2,048 sequences on 16,384 devices (table 4): an eighth of a sequence a
    device, as 512 are on 4,096.
    """
    config = Config(num_layers=126, width=16_384, num_heads=128, num_kv_heads=8, hidden=53_248)
    return llama3("llama3_405b", config, batch=batch, lr=8e-5)


def llama_block(*, batch: int = 1) -> Workload:
    """One layer of the width of TinyLlama (arXiv 2401.02385) with its vocabulary, in float32."""
    config = Config(
        num_layers=1,
        width=2048,
        num_heads=32,
        num_kv_heads=4,
        hidden=5632,
        vocabulary=32_000,
        sequence=256,
    )
    return Workload(
        name="llama_block",
        model=lambda: Llama(config),
        loss=next_token_loss,
        batch=lambda step: random_batch(step, batch, config),
        optimizer=AdamW(lr=4e-4, betas=(0.9, 0.95), weight_decay=0.1),
    )


def llama_tiny(*, batch: int = 8, num_layers: int = 2) -> Workload:
    """Width 32 with four query and two key heads, on bytes of English: milliseconds a step."""
    config = Config(
        num_layers=num_layers,
        width=32,
        num_heads=4,
        num_kv_heads=2,
        hidden=64,
        vocabulary=256,
        sequence=16,
    )
    return Workload(
        name="llama_tiny",
        model=lambda: Llama(config),
        loss=next_token_loss,
        batch=lambda step: text_batch(step, batch, config.sequence),
        optimizer=AdamW(lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1),
    )
