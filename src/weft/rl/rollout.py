"""Rollouts: what a policy answered, with the probabilities that it drew with.

Knows tokens, rewards and versions as plain data, and how they become tensors. Does not know how
they were made, or what is done with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from weft.core.errors import InputError

__all__ = ["Padded", "Rollout", "collate", "left_padded"]

LARGEST = 1e30
"""Rewards have to be below this. Derived: float32 ends at 3e38, and sums of them have to fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One answer to one prompt.

    How old it is follows when it is trained: the learner's version less its own.

    Attributes:
        number: of the prompt; answers to one prompt are a group.
        prompt: tokens of the prompt.
        tokens: tokens of the answer, an end token included where one was drawn.
        log_probs: of these tokens, under the distribution that they were drawn from.
        reward: what the answer was worth.
        version: of the weights that it was begun with.

    Raises:
        InputError: another number of log-probabilities than of tokens, no prompt or no answer, or
            a number that is not finite.
    """

    number: int
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    reward: float
    version: int

    def __post_init__(self) -> None:
        if not self.prompt or not self.tokens or len(self.tokens) != len(self.log_probs):
            raise InputError(
                need="tokens of a prompt, and of an answer with a log-probability each",
                got=f"{len(self.prompt)} of the prompt, {len(self.tokens)} of the answer,"
                f" {len(self.log_probs)} log-probabilities",
                hint="a sampler gives back at least one token, and the probability of each",
            )
        if not (abs(self.reward) < LARGEST and all(map(isfinite, self.log_probs))):
            raise InputError(
                need="a reward and log-probabilities that are finite in float32",
                got=f"reward {self.reward}, log-probabilities from {min(self.log_probs)}"
                f" to {max(self.log_probs)}, for prompt {self.number}",
                hint="look at the task's reward; weights that are not finite draw nothing",
            )

    def to_plain(self) -> dict[str, Any]:
        """Plain values, for checkpoints."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> Rollout:
        """What `to_plain` made."""
        sequences = {name: tuple(plain[name]) for name in ("prompt", "tokens", "log_probs")}
        return Rollout(**{**plain, **sequences})


@dataclass(frozen=True, slots=True, kw_only=True)
class Padded:
    """Rollouts as tensors: prompts end, and answers begin, at the same column.

    Attributes:
        ids: tokens of prompts, then of answers [B, P + T].
        attention: which of them are real [B, P + T]; None where all are.
        positions: of tokens in their sequences [B, P + T]; None where they are those of columns.
        targets: tokens of answers [B, T].
        mask: which of these count [B, T].
        behaviour: their log-probabilities when they were drawn [B, T].
    """

    ids: Tensor
    attention: Tensor | None
    positions: Tensor | None
    targets: Tensor
    mask: Tensor
    behaviour: Tensor


def collate(rollouts: Sequence[Rollout], *, pad: int, device: torch.device | str) -> Padded:
    """Tensors of rollouts; prompts are padded on the left and answers on the right.

    Args:
        rollouts: at least one.
        pad: the token in places that do not count.
        device: where to.
    """
    answers, is_real = _right_padded([r.tokens for r in rollouts], pad)
    behaviour, _ = _right_padded([r.log_probs for r in rollouts], 0.0)
    prompts, attention, _ = left_padded([r.prompt for r in rollouts], pad)
    # Padding on the right is behind everything that counts, where causal attention never looks.
    if attention is not None:
        attention = torch.cat((attention, torch.ones_like(is_real, dtype=attention.dtype)), 1)
    return Padded(
        ids=torch.cat((prompts, answers), 1).to(device),
        attention=None if attention is None else attention.to(device),
        positions=None if attention is None else _positions(attention).to(device),
        targets=answers.to(device),
        mask=is_real.to(device),
        behaviour=behaviour.to(device),
    )


def left_padded(
    prompts: Sequence[Sequence[int]], pad: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Tokens, what of them is real, and their positions [B, P]; None where nothing is padded.

    On `device`, or on the CPU.

    Example:
        >>> ids, attention, positions = left_padded([[5], [6, 7]], pad=0)
        >>> ids.tolist(), attention.tolist(), positions.tolist()
        ([[0, 5], [6, 7]], [[0, 1], [1, 1]], [[0, 0], [0, 1]])
    """
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=device)
    if all(len(p) == longest for p in prompts):
        return ids, None, None
    real = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
    attention = torch.tensor(real, device=device)
    return ids, attention, _positions(attention)


def _positions(attention: Tensor) -> Tensor:
    return (attention.cumsum(1) - 1).clamp(min=0)


def _right_padded(rows: Sequence[Sequence[float]], fill: float) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    values = torch.tensor([list(row) + [fill] * (longest - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return values, torch.arange(longest)[None, :] < lengths[:, None]
