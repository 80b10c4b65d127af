"""The plain policy gradient: samples are taken as if the policy of now had made them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from weft.rl.corrections import Batch, Tokens, Tokenwise

__all__ = ["PolicyGradient"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGradient(Tokenwise):
    """No correction at all: every token weighs 1, however old it is.

    What others are compared with. Its gradient is biased as soon as samples are not new.

    Source: Williams 1992, "Simple statistical gradient-following algorithms".

    Example:
        >>> one = torch.ones(1, 1)
        >>> batch = Batch(current=-one, behaviour=-2 * one, advantages=one, mask=one)
        >>> PolicyGradient()(batch).weights.item()
        1.0
    """

    def weigh(self, batch: Batch) -> Tokens:
        """A weight of 1 for each."""
        ones = torch.ones_like(batch.behaviour)
        return Tokens(
            values=batch.advantages, weights=ones, clipped=torch.zeros_like(ones, dtype=torch.bool)
        )
