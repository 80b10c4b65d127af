"""Episodes of decisions about variables, a group at a time.

Placements that would make data move are not offered. In the paper a conflict ends the episode
with a reward of -1; `strict` does the same. Where time is what is rewarded, data may as well move:
`moves` offers all placements.

Source: Auto-MAP (Wang et al. 2020, arXiv 2007.04069), section 3 (groups) and 4.1 (rewards).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from weft.core.errors import InputError
from weft.parallel.dqn.environment import Observation, Turn
from weft.parallel.linkage import Decision
from weft.parallel.partition import Partition, Settled
from weft.parallel.placement import REPLICATED, Placement
from weft.program.graph import Value

__all__ = ["CUTS", "CUT_REWARD", "WHOLE_REWARD", "PartitionEnvironment"]

CUT_REWARD, WHOLE_REWARD, CONFLICT_REWARD = 0.4, 0.1, -1.0
"""Of a variable that is cut, of one that is left whole, and of a conflict.

Source: Auto-MAP, section 4.1."""

CUTS = 4
"""Column of choices that says which share of all variables is cut by it."""

Reward = Callable[[Settled], float]
"""Of an episode's end."""


class PartitionEnvironment:
    """Episodes of decisions about variables.

    Args:
        partition: what to decide.
        final: reward of what comes out; if not given, decisions are rewarded as in the paper, over
            the number of variables, so that an episode returns at most `CUT_REWARD`.
        strict: whether placements that conflict are offered, and end the episode.
        moves: whether they are offered, and data moves where they conflict.
    """

    shared_width = 4
    choice_width = 10

    def __init__(
        self,
        partition: Partition,
        final: Reward | None = None,
        *,
        strict: bool = False,
        moves: bool = False,
    ) -> None:
        self.partition = partition
        self._final, self._strict = final, strict
        self._offers_all = strict or moves
        self.taken: tuple[Decision, ...] = ()
        self._known: dict[Value, Placement] = {}
        self._offered: list[Decision] = []
        self._open: Iterator[int] = iter(())

    def reset(self, generator: np.random.Generator) -> Observation:
        """Begin with nothing decided."""
        del generator  # nothing here is random
        self.taken, self._known = (), dict(self.partition.given)
        self._open = iter(self.partition.order)
        observation = self._next()
        if observation is None:
            raise InputError(
                need="a variable that can be decided about",
                got="a program in which each is settled by what is given",
                hint="nothing has to be searched for: take what is given",
            )
        return observation

    def step(self, choice: int) -> Turn:
        """Decide."""
        decision = self._offered[choice]
        new, conflicts = self.partition.after(self.taken, decision)
        if conflicts and self._strict:
            return Turn(CONFLICT_REWARD / self.partition.num_variables, None)
        self.taken = (*self.taken, decision)
        self._known |= new
        observation = self._next()
        reward = self._paid(new) if self._final is None else 0.0
        if observation is None and self._final is not None:
            reward = self._final(self.partition.settled(self.taken))
        return Turn(reward, observation)

    @property
    def offered(self) -> tuple[Decision, ...]:
        """What each of the choices that were observed last decides."""
        return tuple(self._offered)

    def _paid(self, new: Mapping[Value, Placement]) -> float:
        part = self.partition
        paid = CUT_REWARD * part.weight(new, cut=True) + WHOLE_REWARD * part.weight(new, cut=False)
        return paid / part.num_variables

    def _next(self) -> Observation | None:
        """The next variable that is open, if there is one."""
        for node in self._open:
            if Value(node) not in self._known:
                return self._observed(node)
        return None

    def _observed(self, node: int) -> Observation:
        part = self.partition
        self._offered = [Decision(Value(node), place) for place in part.places(node)]
        found = [part.after(self.taken, decision) for decision in self._offered]
        free = np.asarray([not conflicts for _, conflicts in found])
        allowed = free if free.any() and not self._offers_all else np.ones_like(free)
        total = part.num_variables
        of_parameters = sum(part.sizes.values())
        rows = [
            [
                decision.placement >= 0,
                decision.placement == 0,
                decision.placement == 1,
                part.weight(new) / total,
                part.weight(new, cut=True) / total,
                part.weight(new, cut=True) / max(part.weight(new), 1),
                len(new) / part.num_nodes,
                sum(part.sizes.get(v.node, 0.0) for v, p in new.items() if p >= 0) / of_parameters,
                conflicts,
                self._reduced_share(new),
            ]
            for decision, (new, conflicts) in zip(self._offered, found, strict=True)
        ]
        decided = part.weight(self._known)
        return Observation(
            shared=np.asarray(
                [
                    decided / total,
                    part.weight(self._known, cut=True) / total,
                    math.log10(part.sizes[node]) / 10,
                    math.log2(part.axis.size) / 10,
                ],
                dtype=np.float32,
            ),
            choices=np.asarray(rows, dtype=np.float32),
            allowed=allowed,
        )

    @property
    def forced(self) -> tuple[Mapping[Value, Placement], ...]:
        """What each of the choices that were observed last forces, itself included."""
        return tuple(self.partition.after(self.taken, decision)[0] for decision in self._offered)

    def reduced(self, new: Mapping[Value, Placement]) -> list[Value]:
        """Values that are reduced where a decision makes summands of them.

        Args:
            new: what the decision forces.
        """

        def place(value: Value) -> Placement | None:
            return new.get(value, self._known.get(value))

        users = self.partition.axis.program.users
        cut = (value.node for value, own in new.items() if own >= 0)
        readers = (reader for node in cut for reader, _ in users[node])
        return [v for v in map(Value, dict.fromkeys(readers)) if place(v) == REPLICATED]

    def _reduced_share(self, new: Mapping[Value, Placement]) -> float:
        """What has to be reduced for a decision, over what it cuts, in logarithms."""
        part = self.partition
        summed = sum(map(part.axis.num_bytes, self.reduced(new)))
        cut = sum(part.sizes.get(v.node, 0.0) for v, p in new.items() if p >= 0)
        return math.log10(1 + summed / max(cut, 1.0)) / 3
