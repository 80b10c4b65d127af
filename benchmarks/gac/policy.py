"""A small causal transformer over characters, with all weights in one vector.

The architecture of Qwen2 (RMS norms, rotary positions, biases on queries, keys and values, gated
MLP), written out for short sequences of one length, so that a whole training run takes seconds on
one core. Prompts are read once for all answers to them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Policy"]

Cache = tuple[Tensor, Tensor]
"""Keys and values of a block, both [B, heads, T, head width]."""

_SPREAD = 0.02  # of first weights, as in Qwen2's configuration
_EPS = 1e-6  # of RMS norms, as in Qwen2's configuration


@dataclass(frozen=True)
class Policy:
    """Shapes of the model, and what it computes; weights are an argument.

    Attributes:
        width: of the residual stream.
        layers: how many blocks.
        heads: of attention, of which each is `width / heads` wide.
        vocabulary: how many characters.
        length: longest sequence.
    """

    width: int
    layers: int
    heads: int = 4
    vocabulary: int = 16
    length: int = 16

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the weights, in the order in which the vector holds them."""
        d = self.width
        block = ((d,), (3 * d, d), (3 * d,), (d, d), (d,), (4 * d, d), (d, 2 * d))
        return ((self.vocabulary, d), *block * self.layers, (d,), (self.vocabulary, d))

    @cached_property
    def sizes(self) -> list[int]:
        """How many numbers each of them has."""
        return [math.prod(shape) for shape in self.shapes]

    @cached_property
    def rotation(self) -> tuple[Tensor, Tensor]:
        """Cosines and sines of rotary positions [length, head width]."""
        half = self.width // self.heads // 2
        rates = 10000.0 ** (-torch.arange(half) / half)  # the base of Su et al. 2021
        angles = torch.arange(self.length)[:, None] * rates
        return angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

    def initial(self, generator: torch.Generator) -> Tensor:
        """Random weights."""
        parts: list[Tensor] = []
        for shape in self.shapes:
            if len(shape) > 1:
                parts.append(torch.randn(shape, generator=generator) * _SPREAD)
            else:  # scales of norms, and biases
                parts.append(torch.ones(shape) if shape == (self.width,) else torch.zeros(shape))
        return torch.cat([part.reshape(-1) for part in parts])

    def logits(self, weights: Tensor, prompts: Tensor, answers: Tensor) -> Tensor:
        """Of each character of the answers, where `answers` has several to each prompt in turn.

        Args:
            weights: the vector.
            prompts: [P, T].
            answers: [P * group, count].

        Returns:
            [P * group, count, vocabulary].
        """
        split = self._split(weights)
        group = len(answers) // len(prompts)
        first, caches = self._read(split, prompts, [None] * self.layers)
        first = first[:, -1:].repeat_interleave(group, 0)
        if answers.shape[1] > 1:
            rest, _ = self._read(split, answers[:, :-1], _repeat(caches, group))
            first = torch.cat([first, rest], 1)
        return F.linear(_norm(first, split[-2]), split[-1])

    @torch.no_grad()
    def sample(
        self, weights: Tensor, prompts: Tensor, *, group: int, count: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Answers of `count` characters to prompts [P, T], `group` to each.

        Returns:
            Answers [P * group, count], their log-probabilities [P * group, count], and the
            entropies of the distributions that they were drawn from [P * group, count].
        """
        split = self._split(weights)
        hidden, caches = self._read(split, prompts, [None] * self.layers)
        hidden, caches = hidden[:, -1:].repeat_interleave(group, 0), _repeat(caches, group)
        answers: list[Tensor] = []
        chosen: list[Tensor] = []
        entropies: list[Tensor] = []
        for _ in range(count):
            if answers:
                hidden, caches = self._read(split, answers[-1], caches)
            logs = F.linear(_norm(hidden[:, -1], split[-2]), split[-1]).log_softmax(-1)
            odds = logs.exp()
            drawn = torch.multinomial(odds, 1, generator=rng)
            answers.append(drawn)
            chosen.append(logs.gather(1, drawn))
            entropies.append(-(odds * logs).sum(1, keepdim=True))
        return torch.cat(answers, 1), torch.cat(chosen, 1), torch.cat(entropies, 1)

    def _read(
        self, split: list[Tensor], tokens: Tensor, caches: Sequence[Cache | None]
    ) -> tuple[Tensor, list[Cache]]:
        """The residual stream after all blocks, and what later characters look back at."""
        hidden = F.embedding(tokens, split[0])
        kept: list[Cache] = []
        for layer, cache in enumerate(caches):
            hidden, cache = self._block(split[1 + 7 * layer : 8 + 7 * layer], hidden, cache)
            kept.append(cache)
        return hidden, kept

    def _split(self, weights: Tensor) -> list[Tensor]:
        parts = weights.split(self.sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def _block(
        self, block: list[Tensor], hidden: Tensor, cache: Cache | None
    ) -> tuple[Tensor, Cache]:
        norm_in, qkv, bias, out, norm_mid, up, down = block
        batch, count, width = hidden.shape
        heads = (batch, count, 3, self.heads, width // self.heads)
        mixed = F.linear(_norm(hidden, norm_in), qkv, bias).view(heads).permute(2, 0, 3, 1, 4)
        start = 0 if cache is None else cache[0].shape[2]
        rotated = self._rotate(mixed[:2], start)
        query, key, value = rotated[0], rotated[1], mixed[2]
        if cache is not None:
            key, value = torch.cat([cache[0], key], 2), torch.cat([cache[1], value], 2)
        scores = query @ key.transpose(2, 3) / math.sqrt(width // self.heads)
        if count > 1:
            scores = scores + _causal(count, start)
        seen = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, count, width)
        hidden = hidden + F.linear(seen, out)
        gate, lifted = F.linear(_norm(hidden, norm_mid), up).chunk(2, -1)
        return hidden + F.linear(F.silu(gate) * lifted, down), (key, value)

    def _rotate(self, vectors: Tensor, start: int) -> Tensor:
        cosines, sines = (t[start : start + vectors.shape[3]] for t in self.rotation)
        first, second = vectors.chunk(2, -1)
        return vectors * cosines + torch.cat([-second, first], -1) * sines


def _norm(hidden: Tensor, scale: Tensor) -> Tensor:
    return F.rms_norm(hidden, (hidden.shape[-1],), scale, _EPS)


def _causal(count: int, start: int) -> Tensor:
    return torch.full((count, start + count), -math.inf).triu(1 + start)


def _repeat(caches: Sequence[Cache], group: int) -> list[Cache]:
    return [
        (key.repeat_interleave(group, 0), value.repeat_interleave(group, 0))
        for key, value in caches
    ]
