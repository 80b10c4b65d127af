"""Environments for agents of other libraries: spaces, masks, and what is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.programs import transformer
from weft.core.errors import InputError
from weft.machine.presets import preset
from weft.parallel.dqn import gym
from weft.parallel.dqn.batching import BatchEnvironment
from weft.parallel.dqn.cutting import MOST_CHOICES, CutEnvironment
from weft.parallel.dqn.deciding import PartitionEnvironment
from weft.parallel.dqn.gym import REFUSED, as_gymnasium
from weft.parallel.dqn.hybrid import HybridEnvironment
from weft.parallel.linkage import ReducedAxis
from weft.parallel.partition import Partition, whole_batch
from weft.parallel.request import PlanRequest
from weft.program.fold import fold

LAYERS = transformer(num_layers=2, batch=8, length=16, width=64, num_heads=4)


def cuts():
    return CutEnvironment(), MOST_CHOICES


def variables():
    partition = Partition(ReducedAxis(LAYERS, 2), fold(LAYERS), whole_batch(LAYERS))
    return PartitionEnvironment(partition), 4


def plans():
    request = PlanRequest(program=LAYERS, machine=preset("dgx-h100x1"))
    return HybridEnvironment(request, fold(LAYERS), None), 5


def batches():
    return BatchEnvironment(LAYERS, 2), 4


ALL = pytest.mark.parametrize("made", [cuts, variables, plans, batches])


@ALL
def test_gymnasium_itself_finds_nothing_wrong(made):
    checker = pytest.importorskip("gymnasium.utils.env_checker", reason="the extra gym")
    checker.check_env(as_gymnasium(*made()), skip_render_check=True)


@ALL
def test_masked_actions_play_episodes_to_their_end(made):
    pytest.importorskip("gymnasium", reason="the extra gym")
    own = as_gymnasium(*made())
    own.action_space.seed(3)
    seen, info = own.reset(seed=3)
    ended, rewards = False, []
    while not ended:
        assert own.observation_space.contains(seen)
        np.testing.assert_array_equal(info["action_mask"], seen["allowed"])
        action = own.action_space.sample(mask=info["action_mask"])
        seen, reward, ended, cut_short, info = own.step(action)
        assert not cut_short
        assert "refused" not in info
        rewards.append(reward)
    assert not info["action_mask"].any()
    assert rewards[-1] != 0


def test_the_same_seed_is_the_same_episode():
    pytest.importorskip("gymnasium", reason="the extra gym")
    first, second, third = (as_gymnasium(*cuts()).reset(seed=s)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(first["choices"], second["choices"])
    assert not np.array_equal(first["choices"], third["choices"])


def test_what_may_not_be_taken_ends_the_episode():
    pytest.importorskip("gymnasium", reason="the extra gym")
    own = as_gymnasium(variables()[0], 9)
    own.reset(seed=0)
    _, reward, ended, _, info = own.step(8)
    assert (reward, ended, info["refused"]) == (REFUSED, True, True)


def test_more_choices_than_there_is_room_for_are_an_error():
    pytest.importorskip("gymnasium", reason="the extra gym")
    with pytest.raises(InputError, match="at most 2 choices"):
        as_gymnasium(CutEnvironment(), 2).reset(seed=0)
    with pytest.raises(InputError, match="at least one choice"):
        as_gymnasium(CutEnvironment(), 0)


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    gym._kind.cache_clear()
    with pytest.raises(InputError, match=r"weft\[gym\]"):
        as_gymnasium(CutEnvironment(), 48)
    gym._kind.cache_clear()
