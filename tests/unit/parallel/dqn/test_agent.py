"""The agent learns what there is to learn, repeats itself, goes on, and stops when told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from weft.core.errors import InputError
from weft.parallel.dqn.agent import Agent, AgentSettings
from weft.parallel.dqn.environment import Observation, Turn
from weft.parallel.dqn.network import Network, batched
from weft.parallel.dqn.replay import Memory, Remembered


class Corridor:
    """Three choices, twice; the one that looks largest is right, and only the end pays."""

    shared_width, choice_width = 1, 2

    def reset(self, generator):
        self._generator, self._right = generator, 0
        self._left = 2
        return self._observed()

    def step(self, choice):
        self._right += int(choice == self._best)
        self._left -= 1
        if self._left:
            return Turn(0.0, self._observed())
        return Turn(self._right / 2, None)

    def _observed(self):
        numbers = self._generator.uniform(0, 1, (3, 2)).astype(np.float32)
        allowed = np.asarray([True, True, self._left == 2])
        self._best = int(np.where(allowed, numbers[:, 0], -1).argmax())
        return Observation(np.asarray([self._left], dtype=np.float32), numbers, allowed)


QUICK = AgentSettings(
    batch=32, learning_rate=3e-3, explore=(1.0, 0.0, 300), least=64, width=32, follow_every=20
)


def rewards(agent, episodes):
    return [episode.reward for episode in agent.run(episodes)]


def test_what_pays_at_the_end_is_learnt():
    agent = Agent(Corridor(), QUICK, seed=1)
    first = np.mean(rewards(agent, 50))
    rewards(agent, 300)
    assert np.mean(rewards(agent, 50)) > 0.9 > first


def test_one_seed_is_one_run():
    runs = [rewards(Agent(Corridor(), QUICK, seed=seed), 80) for seed in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]


def test_a_run_that_goes_on_knows_what_it_knew():
    agent = Agent(Corridor(), QUICK, seed=1)
    rewards(agent, 200)
    later = Agent(Corridor(), QUICK, seed=9)
    later.resume(agent.state())
    observation = Corridor().reset(np.random.default_rng(0))
    assert later.best(observation) == agent.best(observation)
    assert (later.steps, later.episodes) == (agent.steps, agent.episodes)
    assert rewards(later, 5)


def test_a_run_stops_when_it_is_told():
    agent = Agent(Corridor(), QUICK)
    asked = iter([False] * 7 + [True] * 99)
    assert len(list(agent.run(100, lambda: next(asked)))) == 3
    assert agent.episodes == 3


def test_choices_that_are_not_allowed_are_not_taken():
    observation = Observation(
        np.zeros(1, np.float32), np.ones((3, 2), np.float32), np.asarray([False, True, False])
    )
    agent = Agent(Corridor(), QUICK)
    assert agent.best(observation) == 1
    returns = agent.network.returns(batched([observation]))
    assert torch.isinf(returns[0, [0, 2]]).all()


def test_what_fills_up_a_batch_changes_nothing():
    small = Corridor().reset(np.random.default_rng(0))
    large = Observation(
        small.shared, np.concatenate([small.choices] * 3), np.concatenate([small.allowed] * 3)
    )
    torch.manual_seed(0)
    network = Network(1, 2, low=0.0, high=1.0, atoms=11, width=16)
    alone = network.returns(batched([small]))[0]
    beside = network.returns(batched([small, large]))[0, :3]
    torch.testing.assert_close(alone, beside)


@pytest.mark.parametrize(("reward", "discount"), [(0.0, 1.0), (0.3, 0.5), (0.25, 0.0), (9.0, 1.0)])
def test_distributions_keep_their_mean_within_the_atoms(reward, discount):
    network = Network(1, 1, low=0.0, high=1.0, atoms=21)
    later = torch.softmax(torch.linspace(-2, 1, 21), 0)[None]
    moved = network.projected(later, torch.tensor([reward]), torch.tensor([discount]))
    assert float(moved.sum()) == pytest.approx(1.0, abs=1e-5)
    wanted = (later * (reward + discount * network.atoms).clamp(0, 1)).sum()
    assert float((moved * network.atoms).sum()) == pytest.approx(float(wanted), abs=1e-5)


def test_surprising_turns_are_drawn_more_often_and_weigh_less():
    memory = Memory(100, alpha=1.0, beta=1.0)
    empty = Observation(np.zeros(1), np.zeros((1, 1)), np.ones(1, dtype=np.bool_))
    for number in range(150):  # the first 50 are forgotten
        memory.add(Remembered(empty, number, 0.0, None, 1.0))
    assert len(memory) == 100
    memory.update(np.arange(100), np.where(np.arange(100) == 7, 99.0, 1.0))
    sample = memory.sample(2000, np.random.default_rng(0))
    share = np.mean(sample.places == 7)
    assert 0.4 < share < 0.6
    assert sample.weights[sample.places == 7].max() < 0.05 < sample.weights.max() == 1.0
    assert {turn.choice for turn in sample.turns} <= set(range(50, 150))


@pytest.mark.parametrize(
    "wrong", [{"batch": 0}, {"gamma": 1.5}, {"capacity": 10}, {"returns": (1.0, 0.0)}, {"atoms": 1}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError):
        AgentSettings(**wrong)
