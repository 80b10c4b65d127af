"""T5: an encoder and a decoder with biases by distance, trained to fill in spans of a text.

    weft plan recipes/t5.py:t5_11b --machine dgx-h100x8 -o plan.json

Neither side has position vectors: what attention adds to a score depends on how far the key lies
from the query, in buckets that grow with the distance. One table of biases serves all layers of a
side. Scores are not scaled, linear layers have no bias, and one table of tokens serves the
encoder, the decoder and the head.

Names of tensors end in their dims:

    B batch   S source position   T target position   D model width   H head   N head width
    F hidden width   V vocabulary

Source: Raffel et al. 2019, arXiv 1910.10683, sections 2.1 (architecture), 3.1.2 (AdaFactor,
batches), 3.1.4 and 3.3.4 (spans) and 3.7 (sizes).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from real_data import text_batch
from torch import Tensor, nn

from weft.capture import Adafactor, AdamW, Workload

__all__ = ["T5", "Config", "t5_3b_biased", "t5_11b", "t5_11b_biased", "t5_small_biased", "t5_tiny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a T5; `num_layers` counts each side by itself.

    The heads together need not be as wide as the model. The first implementations had layer norms
    in place of norms by the root mean square, and biases in the MLPs: `has_biases`.
    """

    num_layers: int
    width: int
    num_heads: int
    head_width: int
    hidden: int
    vocabulary: int
    source: int
    target: int
    buckets: int = 32
    max_distance: int = 128
    norm_eps: float = 1e-6
    has_biases: bool = False

    def norm(self) -> nn.Module:
        """What keeps values in range before each part of a layer."""
        made = nn.LayerNorm if self.has_biases else nn.RMSNorm
        return made(self.width, eps=self.norm_eps)


class DistanceBias(nn.Module):
    """What attention of one side adds to its scores: a bias [H,T,S] by bucket of the distance.

    Buckets are a buffer, computed once: every rank of a plan then has the same.
    """

    bucket: Tensor

    def __init__(self, config: Config, length: int, *, causal: bool) -> None:
        super().__init__()
        self.biases = nn.Embedding(config.buckets, config.num_heads)
        position = torch.arange(length)
        distance_TS = position[None, :] - position[:, None]
        bucket_TS = buckets(distance_TS, config.buckets, config.max_distance, causal=causal)
        self.register_buffer("bucket", bucket_TS, persistent=False)

    def forward(self) -> Tensor:
        return self.biases(self.bucket).permute(2, 0, 1)


def buckets(distance: Tensor, count: int, max_distance: int, *, causal: bool) -> Tensor:
    """The bucket of each distance from query to key, negative for keys that come before.

    Without causality half of the buckets are for keys that come after. Half of a side's buckets
    hold one distance each, the rest grow by a factor up to `max_distance`; the last takes all
    that is farther.
    """
    side = count if causal else count // 2
    first = torch.zeros_like(distance) if causal else (distance > 0).long() * side
    far = (-distance).clamp(min=0) if causal else distance.abs()
    exact = side // 2
    growth = torch.log(far.clamp(min=1) / exact) / math.log(max_distance / exact)
    grown = (exact + (growth * (side - exact)).long()).clamp(max=side - 1)
    return first + torch.where(far < exact, far, grown)


class Attention(nn.Module):
    """Attention by heads of one sequence to another, or to itself; scores are not scaled."""

    def __init__(self, config: Config, *, causal: bool = False) -> None:
        super().__init__()
        inner = config.num_heads * config.head_width
        self.num_heads, self.causal = config.num_heads, causal
        self.query = nn.Linear(config.width, inner, bias=False)
        self.key = nn.Linear(config.width, inner, bias=False)
        self.value = nn.Linear(config.width, inner, bias=False)
        self.out = nn.Linear(inner, config.width, bias=False)

    def forward(self, x_BTD: Tensor, source_BSD: Tensor, bias_HTS: Tensor | None = None) -> Tensor:
        q_BHTN = self._split(self.query(x_BTD))
        k_BHSN = self._split(self.key(source_BSD))
        v_BHSN = self._split(self.value(source_BSD))
        scores_BHTS = q_BHTN @ k_BHSN.transpose(2, 3)
        if bias_HTS is not None:
            scores_BHTS = scores_BHTS + bias_HTS
        if self.causal:
            position = torch.arange(x_BTD.shape[1], device=x_BTD.device)
            later_TS = position[None, :] > position[:, None]
            scores_BHTS = scores_BHTS.masked_fill(later_TS, -1e9)
        y_BHTN = scores_BHTS.softmax(dim=3) @ v_BHSN
        return self.out(y_BHTN.transpose(1, 2).flatten(2))

    def _split(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class Mlp(nn.Module):
    """Two products with a ReLU between them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.hidden, bias=config.has_biases)
        self.down = nn.Linear(config.hidden, config.width, bias=config.has_biases)

    def forward(self, x_BTD: Tensor) -> Tensor:
        h_BTF = F.relu(self.up(x_BTD))
        return self.down(h_BTF)


class EncoderLayer(nn.Module):
    """Self-attention and MLP, each normalised before and added to the residual stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = config.norm()
        self.attention = Attention(config)
        self.mlp_norm = config.norm()
        self.mlp = Mlp(config)

    def forward(self, x_BSD: Tensor, bias_HSS: Tensor) -> Tensor:
        h_BSD = self.attention_norm(x_BSD)
        x_BSD = x_BSD + self.attention(h_BSD, h_BSD, bias_HSS)
        return x_BSD + self.mlp(self.mlp_norm(x_BSD))


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder's result without a bias, MLP."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.own_norm = config.norm()
        self.own = Attention(config, causal=True)
        self.cross_norm = config.norm()
        self.cross = Attention(config)
        self.mlp_norm = config.norm()
        self.mlp = Mlp(config)

    def forward(self, x_BTD: Tensor, source_BSD: Tensor, bias_HTT: Tensor) -> Tensor:
        h_BTD = self.own_norm(x_BTD)
        x_BTD = x_BTD + self.own(h_BTD, h_BTD, bias_HTT)
        x_BTD = x_BTD + self.cross(self.cross_norm(x_BTD), source_BSD)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))


class Encoder(nn.Module):
    """The side that reads."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.bias = DistanceBias(config, config.source, causal=False)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.norm = config.norm()

    def forward(self, x_BSD: Tensor) -> Tensor:
        bias_HSS = self.bias()
        for layer in self.layers:
            x_BSD = layer(x_BSD, bias_HSS)
        return self.norm(x_BSD)


class Decoder(nn.Module):
    """The side that writes."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.bias = DistanceBias(config, config.target, causal=True)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.norm = config.norm()

    def forward(self, x_BTD: Tensor, source_BSD: Tensor) -> Tensor:
        bias_HTT = self.bias()
        for layer in self.layers:
            x_BTD = layer(x_BTD, source_BSD, bias_HTT)
        return self.norm(x_BTD)


class T5(nn.Module):
    """Encoder, decoder, and the table of tokens that both read and that is the head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.head_scale = config.width**-0.5
        _initialize(self, config)

    def forward(self, source_BS: Tensor, target_BT: Tensor) -> Tensor:
        """Logits of the next token of the target [B,T,V]."""
        source_BSD = self.encoder(self.tokens(source_BS))
        x_BTD = self.decoder(self.tokens(target_BT), source_BSD)
        return F.linear(x_BTD * self.head_scale, self.tokens.weight)


def _initialize(model: T5, config: Config) -> None:
    """Scales at which scores need no factor: queries start smaller by the root of a head."""
    nn.init.normal_(model.tokens.weight)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if isinstance(module, Attention):
            std = (config.width * config.head_width) ** -0.5
            nn.init.normal_(module.query.weight, std=std)
        if isinstance(module, DistanceBias):
            nn.init.normal_(module.biases.weight, std=config.width**-0.5)


def next_token_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the target's next token, never below single precision [scalar]."""
    logits_BTV = model(batch["source"], batch["target"])
    if logits_BTV.dtype is torch.bfloat16:
        logits_BTV = logits_BTV.float()
    return F.cross_entropy(logits_BTV.flatten(0, 1), batch["next"].flatten())


def random_batch(step: int, batch: int, config: Config) -> dict[str, Tensor]:
    """Tokens without meaning, for sizes at which only the time of a step matters."""
    generator = torch.Generator().manual_seed(step)
    source_BS = torch.randint(config.vocabulary, (batch, config.source), generator=generator)
    next_BT = torch.randint(config.vocabulary, (batch, config.target), generator=generator)
    return {"source": source_BS, "target": _shifted(next_BT), "next": next_BT}


def span_batch(step: int, batch: int, config: Config) -> dict[str, Tensor]:
    """Lines of text whose middle third gave way to a mark; the target is mark, span, second mark.

    The two highest tokens of the vocabulary are the marks.
    """
    span = config.target - 2
    line_BS = text_batch(step, batch, config.source - 1 + span)["tokens"]
    start = (config.source - 1) // 2
    before_BS, span_BT, after_BS = line_BS.split((start, span, config.source - 1 - start), dim=1)
    first, second = (torch.full((batch, 1), config.vocabulary - n) for n in (1, 2))
    next_BT = torch.cat((first, span_BT, second), dim=1)
    source_BS = torch.cat((before_BS, first, after_BS), dim=1)
    return {"source": source_BS, "target": _shifted(next_BT), "next": next_BT}


def _shifted(next_BT: Tensor) -> Tensor:
    """What the decoder reads: token 0, then each token that it had to write before."""
    start_B1 = torch.zeros_like(next_BT[:, :1])
    return torch.cat((start_B1, next_BT[:, :-1]), dim=1)


def t5_11b(*, batch: int = 128, factored: bool = False) -> Workload:
    """11.3 B parameters; 128 texts of 512 tokens, each with targets of 114.

    `factored` trains with AdaFactor, as published. It keeps far less state than AdamW, and its
    means over rows and columns make a plan's search many times longer.
    """
    config = _config(layers=24, width=1024, heads=128, head=128, hidden=65_536)
    optimizer = Adafactor(lr=1e-2) if factored else AdamW(lr=1e-4)
    return _large("t5_11b", batch, config, optimizer)


def t5_small_biased(*, batch: int = 8) -> Workload:
    """60 M parameters, with the biases and layer norms of the first implementations."""
    config = _config(layers=6, width=512, heads=8, head=64, hidden=2048)
    return _large("t5_small_biased", batch, replace(config, has_biases=True), AdamW(lr=1e-4))


def t5_3b_biased(*, batch: int = 8) -> Workload:
    """2.9 B parameters, with the biases and layer norms of the first implementations."""
    config = _config(layers=24, width=1024, heads=32, head=128, hidden=16_384)
    return _large("t5_3b_biased", batch, replace(config, has_biases=True), AdamW(lr=1e-4))


def t5_11b_biased(*, batch: int = 8) -> Workload:
    """11.3 B parameters, with the biases and layer norms of the first implementations."""
    config = _config(layers=24, width=1024, heads=128, head=128, hidden=65_536)
    return _large("t5_11b_biased", batch, replace(config, has_biases=True), AdamW(lr=1e-4))


def _config(*, layers: int, width: int, heads: int, head: int, hidden: int) -> Config:
    """Sizes of a published T5: texts of 512 tokens, each with targets of 114."""
    return Config(
        num_layers=layers,
        width=width,
        num_heads=heads,
        head_width=head,
        hidden=hidden,
        vocabulary=32_128,
        source=512,
        target=114,
    )


def _large(name: str, batch: int, config: Config, optimizer: AdamW | Adafactor) -> Workload:
    return Workload(
        name=name,
        model=lambda: T5(config),
        loss=next_token_loss,
        batch=lambda step: random_batch(step, batch, config),
        optimizer=optimizer,
        compute_dtype=torch.bfloat16,
    )


def t5_tiny(*, batch: int = 8) -> Workload:
    """Two layers on each side, width 32, on bytes of English: milliseconds a step."""
    config = Config(
        num_layers=2,
        width=32,
        num_heads=4,
        head_width=16,
        hidden=64,
        vocabulary=258,
        source=17,
        target=10,
        buckets=8,
        max_distance=16,
    )
    return Workload(
        name="t5_tiny",
        model=lambda: T5(config),
        loss=next_token_loss,
        batch=lambda step: span_batch(step, batch, config),
        optimizer=AdamW(lr=5e-3),
    )
