"""A mixture of experts in the manner of GShard: every second MLP is a set of gated experts.

Each sequence is a group. A token goes to its best one or two experts; an expert takes at
most `capacity` tokens of a group, first come first served, and tokens that find no room
pass by on the residual stream. Dispatch and combination are products with one-hot tensors,
so every shape is known before the data are.

Names of tensors end in their dims:

    G group (sequence)   S position in it   E expert   C place in an expert   M model width
    H hidden width of an expert   A attention head   N head width   V vocabulary

Source: Lepikhin et al. 2020 (GShard), arXiv 2006.16668, section 2.2 and algorithm 1; gating
with one expert as in Fedus et al. 2021 (Switch), arXiv 2101.03961, section 2.2.
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

__all__ = ["Config", "MoE", "moe_small", "moe_tiny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a mixture of experts.

    `capacity_factor` is the room in the experts over the room that an even spread would need.
    """

    num_layers: int
    width: int
    num_heads: int
    num_experts: int
    hidden: int
    sequence: int
    vocabulary: int = 256
    experts_per_token: int = 2
    capacity_factor: float = 1.25
    load_weight: float = 0.01

    def __post_init__(self) -> None:
        if self.experts_per_token not in (1, 2):
            raise ValueError(f"a token has 1 or 2 experts, not {self.experts_per_token}")

    @property
    def capacity(self) -> int:
        """Tokens of one group that an expert takes."""
        even = self.experts_per_token * self.sequence / self.num_experts
        return math.ceil(self.capacity_factor * even)


class Gate(nn.Module):
    """Chooses experts: (combine weights [G,S,E,C], load loss [scalar])."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.experts_per_token = config.experts_per_token
        self.num_experts = config.num_experts
        self.capacity = config.capacity
        self.scores = nn.Linear(config.width, config.num_experts, bias=False)

    def forward(self, x_GSM: Tensor) -> tuple[Tensor, Tensor]:
        chance_GSE = F.softmax(self.scores(x_GSM), dim=-1)
        first_GSE = one_hot(chance_GSE.argmax(dim=-1), self.num_experts, x_GSM.dtype)
        load = self._load_loss(chance_GSE, first_GSE)
        choices = [first_GSE]
        if self.experts_per_token == 2:
            rest_GSE = chance_GSE * (1 - first_GSE)
            choices.append(one_hot(rest_GSE.argmax(dim=-1), self.num_experts, x_GSM.dtype))
        weights_GS = [(chance_GSE * chosen_GSE).sum(dim=-1) for chosen_GSE in choices]
        if self.experts_per_token == 2:
            total_GS = weights_GS[0] + weights_GS[1]
            weights_GS = [weight_GS / total_GS for weight_GS in weights_GS]
        return self._combine(choices, weights_GS), load

    def _combine(self, choices: list[Tensor], weights_GS: list[Tensor]) -> Tensor:
        """Weights [G,S,E,C] at the place that each token gets in each expert it chose."""
        parts_GSEC = []
        taken_GE = torch.zeros_like(choices[0][:, 0])
        for chosen_GSE, weight_GS in zip(choices, weights_GS, strict=True):
            place_GSE = chosen_GSE.cumsum(dim=1) - chosen_GSE + taken_GE[:, None]
            place_GS = (place_GSE * chosen_GSE).sum(dim=-1)
            # A place at or beyond the capacity matches no column: that token is dropped.
            column_GSC = one_hot(place_GS, self.capacity, chosen_GSE.dtype)
            gate_GSE = chosen_GSE * weight_GS[..., None]
            parts_GSEC.append(gate_GSE[..., None] * column_GSC[:, :, None])
            taken_GE = taken_GE + chosen_GSE.sum(dim=1)
        return functools.reduce(torch.add, parts_GSEC)

    def _load_loss(self, chance_GSE: Tensor, first_GSE: Tensor) -> Tensor:
        """1 for an even load, more for an uneven one: GShard's equation 4 times E squared."""
        share_GE = first_GSE.mean(dim=1)
        mean_chance_GE = chance_GSE.mean(dim=1)
        return (share_GE * mean_chance_GE).mean() * self.num_experts**2


def one_hot(index: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """1 where the last dim's position is the index; a row of 0 where the index is outside."""
    columns = torch.arange(size, dtype=index.dtype, device=index.device)
    return (index[..., None] == columns).to(dtype)


class Experts(nn.Module):
    """Gated MLPs, all experts in one tensor, each on the tokens sent to it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate = Gate(config)
        self.up = nn.Parameter(torch.empty(config.num_experts, config.width, config.hidden))
        self.down = nn.Parameter(torch.empty(config.num_experts, config.hidden, config.width))
        nn.init.normal_(self.up, std=0.02)
        nn.init.normal_(self.down, std=0.02 / math.sqrt(2 * config.num_layers))

    def forward(self, x_GSM: Tensor) -> tuple[Tensor, Tensor]:
        combine_GSEC, load = self.gate(x_GSM)
        dispatch_GSEC = (combine_GSEC > 0).to(x_GSM.dtype)
        sent_EGCM = torch.einsum("gsec,gsm->egcm", dispatch_GSEC, x_GSM)
        h_EGCH = F.relu(torch.einsum("egcm,emh->egch", sent_EGCM, self.up))
        out_EGCM = torch.einsum("egch,ehm->egcm", h_EGCH, self.down)
        return torch.einsum("gsec,egcm->gsm", combine_GSEC, out_EGCM), load


class Dense(nn.Module):
    """The MLP of the layers without experts."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)

    def forward(self, x_GSM: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x_GSM)))


class Attention(nn.Module):
    """Causal self-attention by heads."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key = nn.Linear(config.width, config.width, bias=False)
        self.value = nn.Linear(config.width, config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x_GSM: Tensor) -> Tensor:
        q_GASN = self._split(self.query(x_GSM))
        k_GASN = self._split(self.key(x_GSM))
        v_GASN = self._split(self.value(x_GSM))
        y_GASN = F.scaled_dot_product_attention(q_GASN, k_GASN, v_GASN, is_causal=True)
        return self.out(y_GASN.transpose(1, 2).flatten(2))

    def _split(self, x_GSM: Tensor) -> Tensor:
        return x_GSM.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """A layer with a dense MLP, then a layer with experts."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.dense_norm = nn.LayerNorm(config.width)
        self.dense = Dense(config)
        self.second_attention_norm = nn.LayerNorm(config.width)
        self.second_attention = Attention(config)
        self.experts_norm = nn.LayerNorm(config.width)
        self.experts = Experts(config)

    def forward(self, x_GSM: Tensor) -> tuple[Tensor, Tensor]:
        x_GSM = x_GSM + self.attention(self.attention_norm(x_GSM))
        x_GSM = x_GSM + self.dense(self.dense_norm(x_GSM))
        x_GSM = x_GSM + self.second_attention(self.second_attention_norm(x_GSM))
        y_GSM, load = self.experts(self.experts_norm(x_GSM))
        return x_GSM + y_GSM, load


class MoE(nn.Module):
    """A decoder, half of whose MLPs are sets of experts."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(config.sequence, config.width))
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers // 2))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, tokens_GS: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the next token [G,S,V] and the mean load loss [scalar]."""
        x_GSM = self.tokens(tokens_GS) + self.positions
        loads = []
        for layer in self.layers:
            x_GSM, load = layer(x_GSM)
            loads.append(load)
        return self.head(self.norm(x_GSM)), functools.reduce(torch.add, loads) / len(loads)


def moe(name: str, config: Config, *, batch: int, lr: float) -> Workload:
    """A mixture of experts on English text: `batch` sequences a step."""

    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        logits_GSV, load = model(batch["tokens"])
        entropy = F.cross_entropy(logits_GSV.flatten(0, 1), batch["targets"].flatten())
        return entropy + config.load_weight * load

    return Workload(
        name=name,
        model=lambda: MoE(config),
        loss=loss,
        batch=lambda step: text_batch(step, batch, config.sequence),
        optimizer=AdamW(lr=lr, betas=(0.9, 0.95), weight_decay=0.1),
    )


def moe_tiny(*, batch: int = 8, experts_per_token: int = 2) -> Workload:
    """Two layers of width 32, the second with four experts: milliseconds a step."""
    config = Config(
        num_layers=2,
        width=32,
        num_heads=4,
        num_experts=4,
        hidden=64,
        sequence=16,
        experts_per_token=experts_per_token,
    )
    return moe("moe_tiny", config, batch=batch, lr=1e-2)


def moe_small(*, batch: int = 16) -> Workload:
    """Eight layers of width 256, four of them with eight experts (20 M parameters)."""
    config = Config(num_layers=8, width=256, num_heads=8, num_experts=8, hidden=1024, sequence=128)
    return moe("moe_small", config, batch=batch, lr=1e-3)
