"""What an agent remembers: turns, the surprising ones more often.

Source: Schaul et al. 2016, arXiv 1511.05952 (proportional prioritisation), and Sutton 1988 for
rewards over several steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weft.parallel.dqn.environment import Numbers, Observation

__all__ = ["Memory", "Remembered", "Sample"]


@dataclass(frozen=True, slots=True)
class Remembered:
    """A choice and what came of it over the steps that followed.

    Attributes:
        before: what was observed.
        choice: what was done.
        reward: of these steps, later ones discounted.
        after: what was observed in the end; None where the episode had ended.
        discount: of what comes after.
    """

    before: Observation
    choice: int
    reward: float
    after: Observation | None
    discount: float


@dataclass(frozen=True, slots=True)
class Sample:
    """Some that are learnt from.

    Attributes:
        places: where they are remembered [B].
        turns: they.
        weights: of each one's loss, which undo that some come more often [B].
    """

    places: npt.NDArray[np.int64]
    turns: list[Remembered]
    weights: Numbers


class Memory:
    """The last `capacity` turns.

    Args:
        capacity: how many.
        alpha: how far surprise decides: 0 for not at all.
        beta: how far weights undo that: 1 for wholly.
    """

    def __init__(self, capacity: int, alpha: float, beta: float) -> None:
        self._turns: list[Remembered] = []
        self._priorities = np.zeros(capacity)
        self._next = 0
        self._alpha, self._beta = alpha, beta

    def __len__(self) -> int:
        return len(self._turns)

    def add(self, turn: Remembered) -> None:
        """Remember a turn, as surprising as the most surprising one."""
        priority = self._priorities.max() if self._turns else 1.0
        if len(self._turns) < len(self._priorities):
            self._turns.append(turn)
        else:
            self._turns[self._next] = turn
        self._priorities[self._next] = priority
        self._next = (self._next + 1) % len(self._priorities)

    def sample(self, count: int, generator: np.random.Generator) -> Sample:
        """Draw some.

        Args:
            count: how many.
            generator: of chance.
        """
        shares = self._priorities[: len(self._turns)] ** self._alpha
        shares /= shares.sum()
        places = generator.choice(len(self._turns), count, p=shares)
        weights = (len(self._turns) * shares[places]) ** -self._beta
        return Sample(
            places=places,
            turns=[self._turns[place] for place in places],
            weights=(weights / weights.max()).astype(np.float32),
        )

    def update(self, places: npt.NDArray[np.int64], surprises: Numbers) -> None:
        """Say how surprising some were."""
        self._priorities[places] = np.abs(surprises) + SURE


SURE = 1e-4
"""Priority of what is no surprise at all: it is drawn now and then. Chosen: small."""
