"""What an agent decides in: a few choices at a time, each described by numbers.

A choice is described by itself, not by its position in a list that every situation shares. So one
network scores the cuts of a chain of 30 pieces and of 128, and the variables of a model that it has
not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Environment", "Flags", "Numbers", "Observation", "Turn"]

Numbers: TypeAlias = npt.NDArray[np.float32]
Flags: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Observation:
    """What there is to choose from.

    Attributes:
        shared: what all choices have in common [S].
        choices: what tells them apart [A,F].
        allowed: which of them may be taken [A]; at least one.
    """

    shared: Numbers
    choices: Numbers
    allowed: Flags


@dataclass(frozen=True, slots=True)
class Turn:
    """What became of a choice.

    Attributes:
        reward: for it.
        observation: what to choose next; None where the episode has ended.
    """

    reward: float
    observation: Observation | None


class Environment(Protocol):
    """Episodes of choices.

    Attributes:
        shared_width, choice_width: of the observations: S and F.
    """

    shared_width: int
    choice_width: int

    def reset(self, generator: np.random.Generator) -> Observation:
        """Begin an episode.

        Args:
            generator: of whatever is random about it.
        """
        ...

    def step(self, choice: int) -> Turn:
        """Take one of the choices that were observed last."""
        ...
