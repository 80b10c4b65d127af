# pyright: standard
"""The agent: acts, remembers, learns.

A choice is the one whose return is expected to be highest, or, while it explores, any. What is to
be learnt for a choice is the reward of the next few steps and what a slowly following copy of the
network expects of the choice that the network itself would take next.

Source: van Hasselt et al. 2016, arXiv 1509.06461 (double); Hessel et al. 2018, arXiv 1710.02298
(what goes together); Auto-MAP (Wang et al. 2020, arXiv 2007.04069), section 4.1 (sizes).
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from weft.core.errors import InputError
from weft.parallel.dqn.environment import Environment, Observation
from weft.parallel.dqn.network import Network, batched
from weft.parallel.dqn.replay import Memory, Remembered

__all__ = ["Agent", "AgentSettings", "Episode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """How an agent learns.

    Attributes:
        batch: turns of a step of learning.
        learning_rate: of Adam.
        gamma: what a reward is worth one step later.
        steps_ahead: rewards that count as they came, before what is expected takes over.
        explore: share of random choices: at first, at last, and after how many steps.
        alpha, beta: of the memory; see `weft.parallel.dqn.replay.Memory`.
        capacity: turns that are remembered.
        follow_every: steps of learning between copies of the network.
        returns: the least and the most that an episode can return.
        atoms, width: of the network.
        least: turns to remember before learning begins.

    Raises:
        InputError: something out of range.
    """

    batch: int = 64
    learning_rate: float = 5e-4
    gamma: float = 1.0
    steps_ahead: int = 3
    explore: tuple[float, float, int] = (1.0, 0.1, 2000)
    alpha: float = 0.2
    beta: float = 0.6
    capacity: int = 2000
    follow_every: int = 100
    returns: tuple[float, float] = (0.0, 1.0)
    atoms: int = 51
    width: int = 128
    least: int = 200

    def __post_init__(self) -> None:
        counts = (self.batch, self.steps_ahead, self.follow_every, self.width, self.least)
        shares = (*self.explore[:2], self.gamma, self.alpha, self.beta)
        sound = min(counts) >= 1 and all(0 <= share <= 1 for share in shares)
        room = self.capacity >= max(self.batch, self.least) and self.atoms >= 2
        if not sound or not room or self.returns[0] >= self.returns[1]:
            raise InputError(
                need="counts of at least 1, shares from 0 to 1, room for what is learnt from, two"
                " atoms, and returns that rise",
                got=str(asdict(self)),
                hint="AgentSettings() has values that work",
            )


@dataclass(frozen=True, slots=True)
class Episode:
    """An episode that has ended.

    Attributes:
        number: from 0.
        steps: choices so far, over all episodes.
        reward: all of its rewards, none discounted.
        exploring: share of choices that were random when it ended.
    """

    number: int
    steps: int
    reward: float
    exploring: float


class Agent:
    """Learns to choose in one kind of environment.

    Args:
        environment: it acts in.
        settings: how it learns.
        seed: of all chance.
    """

    def __init__(self, environment: Environment, settings: AgentSettings, seed: int = 0) -> None:
        self.environment = environment
        self.settings = settings
        self._generator = np.random.default_rng(seed)
        self.network = _network(environment, settings, seed)
        self._slow = copy.deepcopy(self.network).requires_grad_(requires_grad=False)
        self._optimizer = torch.optim.Adam(
            self.network.parameters(), lr=settings.learning_rate, fused=True
        )
        self._memory = Memory(settings.capacity, settings.alpha, settings.beta)
        self.steps = self.episodes = self._learnt = 0

    @property
    def exploring(self) -> float:
        """Share of choices that are random now."""
        first, last, after = self.settings.explore
        return first + (last - first) * min(1.0, self.steps / max(after, 1))

    def run(self, episodes: int, stop: Callable[[], bool] = lambda: False) -> Iterator[Episode]:
        """Play and learn; it can go on afterwards.

        Args:
            episodes: how many.
            stop: asked after each step whether to end at once, without the episode at hand.
        """
        for _ in range(episodes):
            episode = self.watch(self._choice, stop)
            if episode is None:
                return
            yield episode

    def watch(
        self, choose: Callable[[Observation], int], stop: Callable[[], bool] = lambda: False
    ) -> Episode | None:
        """An episode that somebody else plays, to learn from; None if it was stopped.

        Args:
            choose: who decides.
            stop: as that of `run`.
        """
        reward = self._play(stop, choose)
        if reward is None:
            return None
        self.episodes += 1
        return Episode(self.episodes - 1, self.steps, reward, self.exploring)

    def best(self, observation: Observation) -> int:
        """The choice of which most is expected."""
        with torch.no_grad():
            return int(self.network.returns(batched([observation]))[0].argmax())

    def state(self) -> dict[str, Any]:
        """All that goes on from here needs but what is remembered, which is soon made again."""
        return {
            "network": self.network.state_dict(),
            "slow": self._slow.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.bit_generator.state,
            "counts": (self.steps, self.episodes, self._learnt),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.network.load_state_dict(state["network"])
        self._slow.load_state_dict(state["slow"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.bit_generator.state = state["generator"]
        self.steps, self.episodes, self._learnt = state["counts"]

    def at_rate(self, share: float) -> None:
        """Learn at a share of the settings' rate from now on."""
        for group in self._optimizer.param_groups:
            group["lr"] = share * self.settings.learning_rate

    def _play(self, stop: Callable[[], bool], choose: Callable[[Observation], int]) -> float | None:
        observation: Observation | None = self.environment.reset(self._generator)
        recent: deque[tuple[Observation, int, float]] = deque()
        total = 0.0
        while observation is not None:
            if stop():
                return None
            choice = choose(observation)
            turn = self.environment.step(choice)
            total += turn.reward
            recent.append((observation, choice, turn.reward))
            observation = turn.observation
            while recent and (observation is None or len(recent) >= self.settings.steps_ahead):
                self._memory.add(self._remembered(recent, observation))
                recent.popleft()
            self.steps += 1
            if len(self._memory) >= self.settings.least:
                self._learn()
        return total

    def _choice(self, observation: Observation) -> int:
        if self._generator.random() < self.exploring:
            return int(self._generator.choice(np.flatnonzero(observation.allowed)))
        return self.best(observation)

    def _remembered(
        self, recent: deque[tuple[Observation, int, float]], after: Observation | None
    ) -> Remembered:
        gamma = self.settings.gamma
        reward = sum(gamma**number * own for number, (_, _, own) in enumerate(recent))
        before, choice, _ = recent[0]
        return Remembered(before, choice, reward, after, gamma ** len(recent))

    def _learn(self) -> None:
        sample = self._memory.sample(self.settings.batch, self._generator)
        turns = sample.turns
        before = batched([turn.before for turn in turns])
        taken = torch.tensor([turn.choice for turn in turns])
        said = self.network(before)[torch.arange(len(turns)), taken]
        with torch.no_grad():
            target = self._targets(turns)
        losses = -(target * said).sum(1)
        loss = (losses * torch.as_tensor(sample.weights)).mean()
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self._optimizer.step()
        self._memory.update(sample.places, losses.detach().numpy())
        self._learnt += 1
        if self._learnt % self.settings.follow_every == 0:
            self._slow.load_state_dict(self.network.state_dict())

    def _targets(self, turns: list[Remembered]) -> torch.Tensor:
        """What the taken choices' returns should have been said to be [B,atoms]."""
        later = torch.zeros(len(turns), self.settings.atoms)
        later[:, 0] = 1.0  # of what has ended, nothing counts, since its discount is 0
        places = [n for n, turn in enumerate(turns) if turn.after is not None]
        if places:
            after = batched([t.after for t in turns if t.after is not None])
            chosen = self.network.returns(after).argmax(1)
            own = self._slow(after)[torch.arange(len(places)), chosen]
            later[torch.tensor(places)] = own.exp()
        rewards = torch.tensor([turn.reward for turn in turns])
        discounts = torch.tensor([t.discount * (t.after is not None) for t in turns])
        return self.network.projected(later, rewards, discounts)


def _network(environment: Environment, settings: AgentSettings, seed: int) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        low, high = settings.returns
        return Network(
            environment.shared_width,
            environment.choice_width,
            low=low,
            high=high,
            atoms=settings.atoms,
            width=settings.width,
        )
