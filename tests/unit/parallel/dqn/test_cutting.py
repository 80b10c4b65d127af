"""Episodes of cuts: what is offered, what is promised, what a policy makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from weft.core.errors import InputError
from weft.parallel.dqn.acting import cut, cut_network
from weft.parallel.dqn.chain import best_cuts, pipeline_seconds
from weft.parallel.dqn.cutting import MOST_CHOICES, CutEnvironment, random_cutting
from weft.parallel.dqn.network import Network


def tasks(count, seed=5):
    generator = np.random.default_rng(seed)
    return [random_cutting(generator) for _ in range(count)]


def played(task, choose):
    environment = CutEnvironment(lambda _: task)
    observation, reward = environment.reset(np.random.default_rng(0)), 0.0
    while observation is not None:
        turn = environment.step(choose(observation))
        reward, observation = reward + turn.reward, turn.observation
    return environment.cuts, reward


def untrained():
    torch.manual_seed(0)
    return Network(CutEnvironment.shared_width, CutEnvironment.choice_width, low=0.0, high=1.0)


@pytest.mark.parametrize("task", tasks(8), ids=lambda task: f"{task.stages} stages")
def test_a_reward_is_the_ideal_over_the_length(task):
    cuts, reward = played(task, lambda o: len(o.allowed) // 2)
    length = pipeline_seconds(task.chain, task.line, cuts, task.micro_batches)
    assert len(cuts) == task.stages - 1
    assert reward == pytest.approx(task.ideal_s / length)
    assert 0 < reward <= 1


@pytest.mark.parametrize("task", tasks(8), ids=lambda task: f"{task.stages} stages")
def test_what_the_last_cut_promises_is_what_comes(task):
    environment = CutEnvironment(lambda _: task)
    observation = environment.reset(np.random.default_rng(0))
    for _ in range(task.stages - 2):
        observation = environment.step(0).observation
    for choice in range(len(observation.allowed)):
        cuts = (*environment.cuts, environment.cut_at(choice))
        length = pipeline_seconds(task.chain, task.line, cuts, task.micro_batches)
        assert observation.choices[choice, 9] == pytest.approx(task.ideal_s / length, rel=1e-4)


def test_observations_are_finite_and_of_one_width():
    for task in tasks(30, seed=1):
        observation = CutEnvironment(lambda _, own=task: own).reset(np.random.default_rng(0))
        assert observation.shared.shape == (CutEnvironment.shared_width,)
        assert observation.choices.shape[1] == CutEnvironment.choice_width
        assert 1 <= len(observation.allowed) <= MOST_CHOICES
        assert np.isfinite(observation.choices).all()


def test_more_ways_find_no_longer_pipelines():
    for task in tasks(10):
        alone, beside = (cut(task, untrained(), width)[1] for width in (1, 64))
        assert beside <= alone * (1 + 1e-9)


def test_the_policy_that_is_shipped_is_near_the_shortest():
    regrets = []
    for task in tasks(12, seed=11):
        if task.stages < 4:
            cuts, length = cut(task)
            assert length == pytest.approx(
                pipeline_seconds(task.chain, task.line, cuts, task.micro_batches)
            )
            best = best_cuts(
                task.chain, task.line, task.stages, micro_batches=task.micro_batches, radius=3
            )
            regrets.append(length / best[1] - 1)
    assert min(regrets) > -1e-9
    assert np.mean(regrets) < 0.02
    assert not cut_network().training


def test_too_many_stages_are_refused():
    (task,) = tasks(1)
    with pytest.raises(InputError, match="at least one way"):
        cut(task, untrained(), 0)
