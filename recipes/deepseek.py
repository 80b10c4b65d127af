"""DeepSeek-V2: many small experts beside shared ones, and attention through a narrow latent vector.

    weft plan recipes/deepseek.py:deepseek_v2_lite --machine dgx-h100x8 -o plan.json

The first layer has a dense MLP. In all others a token goes to six of many narrow experts, and
always through the shared ones. Keys and values of all heads are made from one narrow vector; only
a small part of a key, the same for all heads, knows its position.

A sequence is cut into groups of neighbouring tokens. Inside a group an expert takes at most
`capacity` tokens, the first choices of all tokens first; a token that finds no room passes by on
the residual stream, as DeepSeek-V2 trains (its section 2.2.4, where room is counted on a device).
Dispatch and combination are products with one-hot tensors, so every shape is known before the
data are: a plan that splits the dim of experts sends tokens to them in an all-to-all. No group
spans two sequences, so the step can be done in micro-batches. Left out are the limit on how many
devices a token is sent to and the losses that even out devices: where experts lie is the plan's
to say.

Names of tensors end in their dims:

    B batch   T position   D model width   A attention head   N head width without position
    R rotated width   M half of that   V vocabulary   W width of a query and key head (N + R)
    G group   S position in a group   E expert   C place in an expert   H hidden width of an expert
    P choice of a token, best first

Source: DeepSeek-AI 2024, arXiv 2405.04434, sections 2.1, 2.2 and 3.1.2 (sizes) and appendix B
(Lite); experts from Dai et al. 2024, arXiv 2401.06066, section 3; capacity and groups from
Lepikhin et al. 2020 (GShard), arXiv 2006.16668, section 2.2.
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

__all__ = ["Config", "DeepSeek", "deepseek_tiny", "deepseek_v2", "deepseek_v2_lite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a DeepSeek-V2.

    Attributes:
        num_layers: all layers, the dense first one included.
        query_latent: width that queries are made from, or 0 to make them from the stream.
        hidden: hidden width of one expert; the shared ones are one MLP of `num_shared` times that.
        dense_hidden: hidden width of the first layer's MLP.
        group: tokens that share the capacity of the experts; divides the sequence.
        capacity_factor: room in the experts over what an even spread would need.
        routed_scale: factor of what the chosen experts give.
        load_weight: weight of the loss that evens out experts, within a sequence.
    """

    num_layers: int
    width: int
    num_heads: int
    hidden: int
    dense_hidden: int
    num_experts: int
    latent: int = 512
    query_latent: int = 0
    head_width: int = 128
    rotary_width: int = 64
    experts_per_token: int = 6
    num_shared: int = 2
    routed_scale: float = 1.0
    vocabulary: int = 102_400
    sequence: int = 4_096
    group: int = 256
    capacity_factor: float = 1.25
    load_weight: float = 0.003
    rope_base: float = 10_000.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.sequence % self.group:
            raise ValueError(f"groups of {self.group} do not divide a sequence of {self.sequence}")

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
        pairs_M = torch.arange(0, config.rotary_width, 2) / config.rotary_width
        frequency_M = config.rope_base**-pairs_M
        angle_TM = torch.outer(torch.arange(config.sequence).float(), frequency_M)
        self.register_buffer("cos", angle_TM.cos(), persistent=False)
        self.register_buffer("sin", angle_TM.sin(), persistent=False)

    def forward(self, x_BATR: Tensor) -> Tensor:
        a_BATM, b_BATM = x_BATR.chunk(2, dim=-1)
        turned = (
            a_BATM * self.cos - b_BATM * self.sin,
            b_BATM * self.cos + a_BATM * self.sin,
        )
        return torch.cat(turned, dim=-1).to(x_BATR.dtype)


class LatentAttention(nn.Module):
    """Causal self-attention whose keys and values come from one narrow vector a token."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads, self.head_width = config.num_heads, config.head_width
        self.rotary_width, self.latent = config.rotary_width, config.latent
        query_width = config.num_heads * (config.head_width + config.rotary_width)
        if config.query_latent:
            self.query = nn.Sequential(
                nn.Linear(config.width, config.query_latent, bias=False),
                nn.RMSNorm(config.query_latent, eps=config.norm_eps),
                nn.Linear(config.query_latent, query_width, bias=False),
            )
        else:
            self.query = nn.Linear(config.width, query_width, bias=False)
        self.squeeze = nn.Linear(config.width, config.latent, bias=False)
        self.rotated_key = nn.Linear(config.width, config.rotary_width, bias=False)
        self.latent_norm = nn.RMSNorm(config.latent, eps=config.norm_eps)
        inner = config.num_heads * config.head_width
        self.key = nn.Linear(config.latent, inner, bias=False)
        self.value = nn.Linear(config.latent, inner, bias=False)
        self.out = nn.Linear(inner, config.width, bias=False)

    def forward(self, x_BTD: Tensor, rotary: Rotary) -> Tensor:
        q_BATW = self._split(self.query(x_BTD))
        q_BATN, q_BATR = q_BATW.split((self.head_width, self.rotary_width), dim=-1)
        latent_BTL = self.latent_norm(self.squeeze(x_BTD))
        k_BATN = self._split(self.key(latent_BTL))
        v_BATN = self._split(self.value(latent_BTL))
        k_B1TR = rotary(self.rotated_key(x_BTD)[:, None])
        k_BATR = k_B1TR.expand(-1, self.num_heads, -1, -1)
        q_BATW = torch.cat((q_BATN, rotary(q_BATR)), dim=-1)
        k_BATW = torch.cat((k_BATN, k_BATR), dim=-1)
        # Fused attention wants values as wide as keys; the zeros are cut off again.
        v_BATW = F.pad(v_BATN, (0, self.rotary_width))
        y_BATW = F.scaled_dot_product_attention(q_BATW, k_BATW, v_BATW, is_causal=True)
        y_BATN = y_BATW[..., : self.head_width]
        return self.out(y_BATN.transpose(1, 2).flatten(2))

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class SwiGLU(nn.Module):
    """A linear layer gated by the SiLU of another, then a third."""

    def __init__(self, config: Config, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, hidden, bias=False)
        self.up = nn.Linear(config.width, hidden, bias=False)
        self.down = nn.Linear(hidden, config.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        h_BTH = F.silu(self.gate(x_BTD)) * self.up(x_BTD)
        return self.down(h_BTH)


class Gate(nn.Module):
    """Chooses experts and places: (combine weights [G,S,E,C], load loss [scalar])."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.experts_per_token = config.experts_per_token
        self.num_experts = config.num_experts
        self.capacity = config.capacity
        self.groups = config.sequence // config.group
        self.routed_scale = config.routed_scale
        self.scores = nn.Linear(config.width, config.num_experts, bias=False)

    def forward(self, x_GSD: Tensor) -> tuple[Tensor, Tensor]:
        chance_GSE = F.softmax(at_least_single(self.scores(x_GSD)), dim=-1)
        best_GSP = chance_GSE.detach().topk(self.experts_per_token, dim=-1).indices
        chosen_GPSE = one_hot(best_GSP.transpose(1, 2), self.num_experts, chance_GSE.dtype)
        # The chances themselves are the weights; they are not made to add up to 1.
        weight_GPSE = chosen_GPSE * chance_GSE[:, None] * self.routed_scale
        combine_GSEC = torch.einsum("gpse,gpsc->gsec", weight_GPSE, self._places(chosen_GPSE))
        return combine_GSEC, self._load_loss(chance_GSE, chosen_GPSE)

    def _places(self, chosen_GPSE: Tensor) -> Tensor:
        """One-hot place [G,P,S,C] of each choice in its expert; a row of 0 if there is no room."""
        in_turn_GRE = chosen_GPSE.flatten(1, 2)
        before_GRE = in_turn_GRE.cumsum(dim=1) - in_turn_GRE
        place_GR = (before_GRE * in_turn_GRE).sum(dim=-1)
        places_GRC = one_hot(place_GR, self.capacity, chosen_GPSE.dtype)
        return places_GRC.unflatten(1, chosen_GPSE.shape[1:3])

    def _load_loss(self, chance_GSE: Tensor, chosen_GPSE: Tensor) -> Tensor:
        """1 for an even load within each sequence, more for an uneven one: equations 23 to 25."""
        share_GE = chosen_GPSE.sum(dim=(1, 2)) / math.prod(chosen_GPSE.shape[1:3])
        share_BE = share_GE.unflatten(0, (-1, self.groups)).mean(dim=1)
        mean_chance_BE = chance_GSE.mean(dim=1).unflatten(0, (-1, self.groups)).mean(dim=1)
        return (share_BE * mean_chance_BE).sum(dim=-1).mean() * self.num_experts


def at_least_single(x: Tensor) -> Tensor:
    """In single precision if it was in half: chances are close, and places are whole numbers."""
    return x.float() if x.dtype is torch.bfloat16 else x


def one_hot(index: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """1 where the last dim's position is the index; a row of 0 where the index is outside."""
    columns = torch.arange(size, dtype=index.dtype, device=index.device)
    return (index[..., None] == columns).to(dtype)


class Experts(nn.Module):
    """Routed experts, all in one tensor, each on the tokens sent to it; and the shared ones."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.group = config.group
        self.choose = Gate(config)
        self.shared = SwiGLU(config, config.num_shared * config.hidden)
        wide = (config.num_experts, config.width, config.hidden)
        self.gate = nn.Parameter(torch.empty(wide))
        self.up = nn.Parameter(torch.empty(wide))
        self.down = nn.Parameter(torch.empty(config.num_experts, config.hidden, config.width))
        for weight in (self.gate, self.up, self.down):
            nn.init.normal_(weight, std=0.006)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        x_GSD = x_BTD.reshape(-1, self.group, x_BTD.shape[-1])
        combine_GSEC, load = self.choose(x_GSD)
        combine_GSEC = combine_GSEC.to(x_BTD.dtype)
        dispatch_GSEC = (combine_GSEC > 0).to(x_BTD.dtype)
        sent_EGCD = torch.einsum("gsec,gsd->egcd", dispatch_GSEC, x_GSD)
        gate_EGCH = torch.einsum("egcd,edh->egch", sent_EGCD, self.gate)
        up_EGCH = torch.einsum("egcd,edh->egch", sent_EGCD, self.up)
        out_EGCD = torch.einsum("egch,ehd->egcd", F.silu(gate_EGCH) * up_EGCH, self.down)
        routed_GSD = torch.einsum("gsec,egcd->gsd", combine_GSEC, out_EGCD)
        return routed_GSD.reshape(x_BTD.shape) + self.shared(x_BTD), load


class DenseBlock(nn.Module):
    """The first layer: attention and an MLP."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.attention = LatentAttention(config)
        self.mlp_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.mlp = SwiGLU(config, config.dense_hidden)

    def forward(self, x_BTD: Tensor, rotary: Rotary) -> Tensor:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rotary)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class Block(nn.Module):
    """Attention and experts, each normalised before and added to the residual stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.attention = LatentAttention(config)
        self.experts_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.experts = Experts(config)

    def forward(self, x_BTD: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor]:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rotary)
        y_BTD, load = self.experts(self.experts_norm(x_BTD))
        return x_BTD + y_BTD, load


class DeepSeek(nn.Module):
    """A decoder: embedding, one dense layer, layers with experts, head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.rotary = Rotary(config)
        self.first = DenseBlock(config)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers - 1))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.006)

    def forward(self, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the next token [B,T,V] and the summed load loss of the layers [scalar]."""
        x_BTD = self.first(self.tokens(tokens_BT), self.rotary)
        loads: list[Tensor] = []
        for layer in self.layers:
            x_BTD, load = layer(x_BTD, self.rotary)
            loads.append(load)
        return self.head(self.norm(x_BTD)), functools.reduce(torch.add, loads)


def deepseek_loss(model: nn.Module, batch: Mapping[str, Tensor], load_weight: float) -> Tensor:
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


def deepseek(name: str, config: Config, *, batch: int, lr: float) -> Workload:
    """A DeepSeek-V2 of published size: master copies in float32, arithmetic in bfloat16."""
    return Workload(
        name=name,
        model=lambda: DeepSeek(config),
        loss=lambda model, batch: deepseek_loss(model, batch, config.load_weight),
        batch=lambda step: random_batch(step, batch, config),
        optimizer=AdamW(lr=lr, betas=(0.9, 0.95), weight_decay=0.1),
        compute_dtype=torch.bfloat16,
    )


def deepseek_v2_lite(*, batch: int = 64) -> Workload:
    """15.7 B parameters, 2.4 B of them for a token; 64 sequences of 4,096 tokens a step."""
    config = Config(
        num_layers=27, width=2048, num_heads=16, hidden=1408, dense_hidden=10_944, num_experts=64
    )
    return deepseek("deepseek_v2_lite", config, batch=batch, lr=4.2e-4)


def deepseek_v2(*, batch: int = 512) -> Workload:
    """236 B parameters, 21 B of them for a token; 512 sequences of 4,096 tokens a step.

    DeepSeek trained with up to 9,216 sequences.
    """
    config = Config(
        num_layers=60,
        width=5120,
        num_heads=128,
        hidden=1536,
        dense_hidden=12_288,
        num_experts=160,
        query_latent=1536,
        routed_scale=16.0,
    )
    return deepseek("deepseek_v2", config, batch=batch, lr=2.4e-4)


def deepseek_tiny(*, batch: int = 8, num_layers: int = 3) -> Workload:
    """Width 32 with eight experts, three of them for a token: milliseconds a step."""
    config = Config(
        num_layers=num_layers,
        width=32,
        num_heads=4,
        hidden=16,
        dense_hidden=64,
        num_experts=8,
        latent=16,
        query_latent=24,
        head_width=8,
        rotary_width=4,
        experts_per_token=3,
        vocabulary=256,
        sequence=16,
        group=8,
    )
    return Workload(
        name="deepseek_tiny",
        model=lambda: DeepSeek(config),
        loss=lambda model, batch: deepseek_loss(model, batch, config.load_weight),
        batch=lambda step: text_batch(step, batch, config.sequence),
        optimizer=AdamW(lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1),
    )
