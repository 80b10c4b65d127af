"""GPT with query, key and value in one projection, as GPT-2 has them.

    weft plan recipes/gpt_fused.py:gpt_fused_small --machine dgx-h100x1 -o plan.json

The model is that of gpt.py with equal initial values, so its losses are the same. A program
holds the fused weight [3D,D] as [3,D,D]: tensor parallelism cuts each third by heads.

Source: Radford et al. 2019 (GPT-2), `c_attn` of the published code.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from gpt import GPT, Attention, Block, Config, gpt
from torch import Tensor, nn

from weft.capture import Workload

__all__ = ["FusedAttention", "FusedGPT", "gpt2_4layers", "gpt_fused_small", "gpt_fused_tiny"]


class FusedAttention(nn.Module):
    """Causal self-attention by heads, from one projection: rows of query, key, then value."""

    def __init__(self, parts: Attention) -> None:
        super().__init__()
        self.num_heads = parts.num_heads
        into = (parts.query, parts.key, parts.value)
        self.qkv = nn.Linear(parts.out.in_features, 3 * parts.out.in_features)
        self.qkv.weight = nn.Parameter(torch.cat([linear.weight for linear in into]).detach())
        self.qkv.bias = nn.Parameter(torch.cat([linear.bias for linear in into]).detach())
        self.out = parts.out

    def forward(self, x_BTD: Tensor) -> Tensor:
        """What each position gathers from those before it [B,T,D]."""
        q_BHTN, k_BHTN, v_BHTN = (
            part_BTD.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for part_BTD in self.qkv(x_BTD).chunk(3, dim=-1)
        )
        y_BHTN = F.scaled_dot_product_attention(q_BHTN, k_BHTN, v_BHTN, is_causal=True)
        return self.out(y_BHTN.transpose(1, 2).flatten(2))


class FusedGPT(GPT):
    """A decoder with fused projections and the initial values of the unfused one."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        for layer in self.layers:
            assert isinstance(layer, Block)
            layer.register_module("attention", FusedAttention(layer.attention))


def gpt_fused(name: str, config: Config, *, batch: int, lr: float) -> Workload:
    """A GPT with fused projections on English text."""
    return replace(gpt(name, config, batch=batch, lr=lr), model=lambda: FusedGPT(config))


def gpt_fused_tiny(*, batch: int = 8, dropout: float = 0.0, tied: bool = True) -> Workload:
    """Two layers of width 32: a step takes milliseconds."""
    config = Config(num_layers=2, width=32, num_heads=4, sequence=16, dropout=dropout, tied=tied)
    return gpt_fused("gpt_fused_tiny", config, batch=batch, lr=1e-2)


def gpt_fused_small(*, batch: int = 8, dropout: float = 0.1) -> Workload:
    """Six layers of width 384 (10.8 M parameters), with dropout."""
    config = Config(num_layers=6, width=384, num_heads=6, sequence=256, dropout=dropout)
    return gpt_fused("gpt_fused_small", config, batch=batch, lr=1e-3)


def gpt2_4layers(*, batch: int = 1) -> Workload:
    """The first four layers of GPT-2 small with its vocabulary, on bytes of English text."""
    config = Config(num_layers=4, width=768, num_heads=12, sequence=256, vocabulary=50_257)
    return gpt_fused("gpt2_4layers", config, batch=batch, lr=6e-4)
