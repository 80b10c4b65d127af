# pyright: standard
"""The network: of each choice, how the rest of the episode is likely to turn out.

Duelling: the value of a situation and the advantage of each choice in it are two heads.
Distributional: returns are a distribution over fixed atoms, and learnt as one. A choice is read
together with a summary of all that are allowed, so any number of them can be compared.

Source: Wang et al. 2016, arXiv 1511.06581 (duelling); Bellemare et al. 2017, arXiv 1707.06887
(distributional); Hessel et al. 2018, arXiv 1710.02298 (both, in one).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weft.parallel.dqn.environment import Observation

__all__ = ["Batch", "Network", "batched"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Observations of unlike sizes, filled up.

    Attributes:
        shared: [B,S].
        choices: [B,A,F].
        allowed: [B,A].
    """

    shared: Tensor
    choices: Tensor
    allowed: Tensor


def batched(observations: list[Observation]) -> Batch:
    """Observations side by side; what fills them up is not allowed."""
    most = max(len(o.allowed) for o in observations)
    width = observations[0].choices.shape[1]
    choices = np.zeros((len(observations), most, width), dtype=np.float32)
    allowed = np.zeros((len(observations), most), dtype=np.bool_)
    for row, one in enumerate(observations):
        choices[row, : len(one.allowed)] = one.choices
        allowed[row, : len(one.allowed)] = one.allowed
    shared = np.stack([o.shared for o in observations])
    return Batch(torch.as_tensor(shared), torch.as_tensor(choices), torch.as_tensor(allowed))


class Network(nn.Module):
    """Distributions of returns.

    Args:
        shared_width, choice_width: S and F of the observations.
        low, high: the least and the most that an episode can return.
        atoms: of the distributions.
        width: of the hidden layers.
    """

    atoms: Tensor

    def __init__(
        self,
        shared_width: int,
        choice_width: int,
        *,
        low: float,
        high: float,
        atoms: int = 51,
        width: int = 128,
    ) -> None:
        super().__init__()
        self.register_buffer("atoms", torch.linspace(low, high, atoms))
        self._read = nn.Sequential(
            nn.Linear(shared_width + choice_width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
        )
        both = 2 * width
        self._value = nn.Sequential(nn.Linear(both, width), nn.ReLU(), nn.Linear(width, atoms))
        self._advantage = nn.Sequential(
            nn.Linear(3 * width, width), nn.ReLU(), nn.Linear(width, atoms)
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logarithms of the atoms' probabilities, by choice [B,A,atoms]."""
        count = batch.choices.shape[1]
        shared = batch.shared[:, None].expand(-1, count, -1)
        read = self._read(torch.cat([shared, batch.choices], 2))
        mask = batch.allowed[:, :, None]
        many = mask.sum(1).clamp_min(1)
        mean = (read * mask).sum(1) / many
        most = read.masked_fill(~mask, 0.0).amax(1)  # what is read is never below 0
        summary = torch.cat([mean, most], 1)
        beside = summary[:, None].expand(-1, count, -1)
        advantage = self._advantage(torch.cat([read, beside], 2))
        centre = (advantage * mask).sum(1, keepdim=True) / many[:, None]
        value = self._value(summary)[:, None]
        return F.log_softmax(value + advantage - centre, 2)

    def returns(self, batch: Batch) -> Tensor:
        """Expected returns; minus infinity where a choice is not allowed [B,A]."""
        expected = (self(batch).exp() * self.atoms).sum(2)
        return expected.masked_fill(~batch.allowed, -torch.inf)

    def projected(self, probabilities: Tensor, rewards: Tensor, discounts: Tensor) -> Tensor:
        """Distribution of rewards and what comes after, on the atoms [B,atoms].

        Args:
            probabilities: of what comes after [B,atoms].
            rewards, discounts: before it [B].
        """
        low, high = float(self.atoms[0]), float(self.atoms[-1])
        step = (high - low) / (len(self.atoms) - 1)
        moved = rewards[:, None] + discounts[:, None] * self.atoms
        place = (moved.clamp(low, high) - low) / step
        # Each lands between two atoms, and is shared out by how near it is.
        near = 1 - (place[:, None, :] - torch.arange(len(self.atoms))[None, :, None]).abs()
        return (near.clamp_min(0) * probabilities[:, None, :]).sum(2)
