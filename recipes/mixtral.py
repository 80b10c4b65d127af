"""Mixtral: a Llama-like decoder whose every MLP is eight gated experts, two of them for a token.

    weft plan recipes/mixtral.py:mixtral_8x7b --machine dgx-h100x8 -o plan.json

A sequence is cut into groups of neighbouring tokens. Inside a group an expert takes at most
`capacity` tokens, all first choices before all second ones and in the order of the tokens; a
token that finds no room passes by on the residual stream. Dispatch and combination are products
with one-hot tensors, so every shape is known before the data are: a plan that splits the dim of
experts sends tokens to their experts in an all-to-all. No group spans two sequences, so the step
can be done in micro-batches.

Mixtral itself drops no token. With `capacity_factor` equal to the number of experts over the
experts of a token nothing is dropped here either, at the price of empty places.

Names of tensors end in their dims:

    B batch   T position   D model width   Q query head   K key/value head   N head width
    M half a head   V vocabulary
    G group   S position in a group   E expert   C place in an expert   H hidden width of an expert
    P choice of a token, best first

Source: Jiang et al. 2024, arXiv 2401.04088, table 1 and section 2.1; capacity and groups from
Lepikhin et al. 2020 (GShard), arXiv 2006.16668, section 2.2; the loss that evens the load out
from Fedus et al. 2021 (Switch), arXiv 2101.03961, equation 4.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from real_data import text_batch
from torch import Tensor, nn

from weft.capture import AdamW, Workload

__all__ = ["Config", "Mixtral", "mixtral_8x7b", "mixtral_8x22b", "mixtral_tiny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a Mixtral.

    `group` is the number of tokens that share the capacity of the experts, and divides the
    sequence; `capacity_factor` is the room in the experts over what an even spread would need.
    """

    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int
    hidden: int
    num_experts: int = 8
    experts_per_token: int = 2
    vocabulary: int = 32_000
    sequence: int = 4_096
    group: int = 1_024
    capacity_factor: float = 1.25
    load_weight: float = 0.02
    rope_base: float = 1e6
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.sequence % self.group:
            raise ValueError(f"groups of {self.group} do not divide a sequence of {self.sequence}")

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.num_heads

    @property
    def capacity(self) -> int:
        """Tokens of one group that an expert takes."""
        even = self.experts_per_token * self.group / self.num_experts
        return math.ceil(self.capacity_factor * even)


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

    def forward(self, x_BQTN: Tensor) -> Tensor:
        a_BQTM, b_BQTM = x_BQTN.chunk(2, dim=-1)
        turned = (
            a_BQTM * self.cos - b_BQTM * self.sin,
            b_BQTM * self.cos + a_BQTM * self.sin,
        )
        return torch.cat(turned, dim=-1).to(x_BQTN.dtype)


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
        q_BQTN = rotary(self._split(self.query(x_BTD)))
        k_BKTN = rotary(self._split(self.key(x_BTD)))
        v_BKTN = self._split(self.value(x_BTD))
        y_BQTN = F.scaled_dot_product_attention(
            q_BQTN, k_BKTN, v_BKTN, is_causal=True, enable_gqa=True
        )
        return self.out(y_BQTN.transpose(1, 2).flatten(2))

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(2, (-1, self.head_width)).transpose(1, 2)


class Gate(nn.Module):
    """Chooses experts and places: (combine weights [G,S,E,C], load loss [scalar])."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.experts_per_token = config.experts_per_token
        self.num_experts = config.num_experts
        self.capacity = config.capacity
        self.scores = nn.Linear(config.width, config.num_experts, bias=False)

    def forward(self, x_GSD: Tensor) -> tuple[Tensor, Tensor]:
        chance_GSE = F.softmax(at_least_single(self.scores(x_GSD)), dim=-1)
        best_GSP = chance_GSE.detach().topk(self.experts_per_token, dim=-1).indices
        chosen_GPSE = one_hot(best_GSP.transpose(1, 2), self.num_experts, chance_GSE.dtype)
        # A softmax over the scores of the chosen experts only is this share of their chances.
        weight_GPS = (chance_GSE[:, None] * chosen_GPSE).sum(dim=-1)
        weight_GPS = weight_GPS / weight_GPS.sum(dim=1, keepdim=True)
        combine_GSEC = torch.einsum(
            "gpse,gpsc->gsec", chosen_GPSE * weight_GPS[..., None], self._places(chosen_GPSE)
        )
        share_GE = chosen_GPSE.sum(dim=(1, 2)) / math.prod(chosen_GPSE.shape[1:3])
        load = (share_GE * chance_GSE.mean(dim=1)).sum(dim=-1).mean() * self.num_experts
        return combine_GSEC, load

    def _places(self, chosen_GPSE: Tensor) -> Tensor:
        """One-hot place [G,P,S,C] of each choice in its expert; a row of 0 if there is no room."""
        in_turn_GRE = chosen_GPSE.flatten(1, 2)
        before_GRE = in_turn_GRE.cumsum(dim=1) - in_turn_GRE
        place_GR = (before_GRE * in_turn_GRE).sum(dim=-1)
        places_GRC = one_hot(place_GR, self.capacity, chosen_GPSE.dtype)
        return places_GRC.unflatten(1, chosen_GPSE.shape[1:3])


def at_least_single(x: Tensor) -> Tensor:
    """In single precision if it was in half: chances are close, and places are whole numbers."""
    return x.float() if x.dtype is torch.bfloat16 else x


def one_hot(index: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """1 where the last dim's position is the index; a row of 0 where the index is outside."""
    columns = torch.arange(size, dtype=index.dtype, device=index.device)
    return (index[..., None] == columns).to(dtype)


class Experts(nn.Module):
    """SwiGLU MLPs, all experts in one tensor, each on the tokens sent to it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.group = config.group
        self.choose = Gate(config)
        wide = (config.num_experts, config.width, config.hidden)
        self.gate = nn.Parameter(torch.empty(wide))
        self.up = nn.Parameter(torch.empty(wide))
        self.down = nn.Parameter(torch.empty(config.num_experts, config.hidden, config.width))
        for weight in (self.gate, self.up, self.down):
            nn.init.normal_(weight, std=0.02)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        x_GSD = x_BTD.reshape(-1, self.group, x_BTD.shape[-1])
        combine_GSEC, load = self.choose(x_GSD)
        combine_GSEC = combine_GSEC.to(x_BTD.dtype)
        dispatch_GSEC = (combine_GSEC > 0).to(x_BTD.dtype)
        sent_EGCD = torch.einsum("gsec,gsd->egcd", dispatch_GSEC, x_GSD)
        gate_EGCH = torch.einsum("egcd,edh->egch", sent_EGCD, self.gate)
        up_EGCH = torch.einsum("egcd,edh->egch", sent_EGCD, self.up)
        out_EGCD = torch.einsum("egch,ehd->egcd", F.silu(gate_EGCH) * up_EGCH, self.down)
        y_GSD = torch.einsum("gsec,egcd->gsd", combine_GSEC, out_EGCD)
        return y_GSD.reshape(x_BTD.shape), load


class Block(nn.Module):
    """Attention and experts, each normalised before and added to the residual stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config)
        self.experts_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.experts = Experts(config)

    def forward(self, x_BTD: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rotary)
        y_BTD, load = self.experts(self.experts_norm(x_BTD))
        return x_BTD + y_BTD, load


class Mixtral(nn.Module):
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

    def forward(self, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the next token [B,T,V] and the mean load loss of the layers [scalar]."""
        x_BTD = self.tokens(tokens_BT)
        loads: list[Tensor] = []
        for layer in self.layers:
            x_BTD, load = layer(x_BTD, self.rotary)
            loads.append(load)
        return self.head(self.norm(x_BTD)), functools.reduce(torch.add, loads) / len(loads)


def mixtral_loss(model: nn.Module, batch: Mapping[str, Tensor], load_weight: float) -> Tensor:
    """Mean cross entropy of the next token and the weighted load loss [scalar]."""
    logits_BTV, load = model(batch["tokens"])
    logits_BTV = at_least_single(logits_BTV)
    entropy = F.cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten())
    return entropy + load_weight * load


def random_batch(step: int, batch: int, config: Config) -> dict[str, Tensor]:
    """Tokens without meaning, for sizes at which only the time of a step matters."""
    generator = torch.Generator().manual_seed(step)
    shape = (batch, config.sequence + 1)
    window = torch.randint(config.vocabulary, shape, generator=generator)
    return {"tokens": window[:, :-1].contiguous(), "targets": window[:, 1:].contiguous()}


def mixtral(name: str, config: Config, *, batch: int) -> Workload:
    """A Mixtral of published size: master copies in float32, arithmetic in bfloat16."""
    return Workload(
        name=name,
        model=lambda: Mixtral(config),
        loss=lambda model, batch: mixtral_loss(model, batch, config.load_weight),
        batch=lambda step: random_batch(step, batch, config),
        optimizer=AdamW(lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1),
        compute_dtype=torch.bfloat16,
    )


def mixtral_8x7b(*, batch: int = 64) -> Workload:
    """46.7 B parameters, 12.9 B of them for a token; 64 sequences of 4,096 tokens a step."""
    config = Config(num_layers=32, width=4096, num_heads=32, num_kv_heads=8, hidden=14_336)
    return mixtral("mixtral_8x7b", config, batch=batch)


def mixtral_8x22b(*, batch: int = 64) -> Workload:
    """141 B parameters, 39 B of them for a token; 64 sequences of 4,096 tokens a step.

    Source: sizes from the published configuration of mistralai/Mixtral-8x22B-v0.1.
    """
    config = Config(
        num_layers=56,
        width=6144,
        num_heads=48,
        num_kv_heads=8,
        hidden=16_384,
        vocabulary=32_768,
    )
    return mixtral("mixtral_8x22b", config, batch=batch)


def mixtral_tiny(*, batch: int = 8, num_layers: int = 2) -> Workload:
    """Width 32 with four experts, two of them for a token: milliseconds a step."""
    config = Config(
        num_layers=num_layers,
        width=32,
        num_heads=4,
        num_kv_heads=2,
        hidden=64,
        num_experts=4,
        vocabulary=256,
        sequence=16,
        group=8,
    )
    return Workload(
        name="mixtral_tiny",
        model=lambda: Mixtral(config),
        loss=lambda model, batch: mixtral_loss(model, batch, config.load_weight),
        batch=lambda step: text_batch(step, batch, config.sequence),
        optimizer=AdamW(lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1),
    )
