"""The policy that plans: what it is offered, that it is followed, and that it has learnt."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.automap import train_plans
from benchmarks.automap.random_steps import random_machine, random_step
from tests.programs import mlp, transformer
from weft.core.errors import InputError
from weft.machine.presets import preset
from weft.parallel.dqn import shipped
from weft.parallel.dqn.following import WAYS, Follower, plan_network, ways
from weft.parallel.dqn.hybrid import MISFIT, HybridEnvironment, lessons
from weft.parallel.dqn.network import Network
from weft.parallel.request import PlanRequest
from weft.program.fold import fold
from weft.program.verify import verify

MACHINE = preset("dgx-h100x1")
UNSEEN = {
    "small batch, large weights": mlp(
        num_layers=2, batch=8, width=4096, hidden=lambda _: 16_384, slots=("m",)
    ),
    "large batch": mlp(num_layers=2, batch=4096, width=256, hidden=lambda _: 512, slots=("m",)),
    "transformer": transformer(
        num_layers=2, batch=8, length=128, width=512, num_heads=8, slots=("m",)
    ),
}


def environment(program):
    return HybridEnvironment(PlanRequest(program=program, machine=MACHINE), fold(program), None)


def untrained():
    torch.manual_seed(0)
    width = HybridEnvironment.choice_width
    return Network(HybridEnvironment.shared_width, width, low=0.0, high=1.0)


def best(own):
    return min(p.step_s for p in own.known.values() if p is not None and own.fits(p))


def test_ways_are_meshes_with_and_without_rows():
    own = environment(UNSEEN["transformer"])
    found = ways(own, untrained(), count=99)
    assert len(found) == len(set(found))
    assert {way[0] for way in found} == set(range(len(own.meshes)))
    assert {len(way) for way in found if own.meshes[way[0]][1] > 1} == {2}
    assert {len(way) for way in found if own.meshes[way[0]][1] == 1} == {1}
    assert ways(own, untrained(), count=3) == found[:3]


def test_a_follower_goes_its_way_first():
    own = environment(UNSEEN["transformer"])
    way = (own.meshes.index((2, 4)), 1)
    train_plans.played(own, Follower(untrained(), way))
    ((decided, _),) = own.known.items()
    assert (decided.data, decided.variables) == (2, 4)
    assert own.batch <= dict(decided.placements).keys()


@pytest.mark.parametrize("name", UNSEEN)
def test_the_policy_that_is_shipped_is_near_the_best_of_all_lessons(name):
    own, taught = environment(UNSEEN[name]), environment(UNSEEN[name])
    followed = ways(own)
    assert len(followed) <= WAYS
    for way in followed:
        train_plans.played(own, Follower(plan_network(), way))
    for lesson in lessons(taught):
        train_plans.played(taught, lesson)
    assert best(own) <= 1.1 * best(taught)


def test_what_is_missing_from_an_installation_is_named():
    with pytest.raises(InputError, match=r"nothing\.pt"):
        shipped.shipped("nothing.pt")


def test_random_steps_are_programs_of_several_kinds():
    generator = np.random.default_rng(5)
    found = [random_step(generator) for _ in range(6)]
    assert len({program.name for program in found}) > 1
    assert len({program.digest for program in found}) == len(found)
    for program in found:
        verify(program)


def test_random_machines_differ_in_size_speed_and_memory():
    generator = np.random.default_rng(5)
    found = [random_machine(generator) for _ in range(12)]
    assert len({machine.num_devices for machine in found}) > 2
    assert len({machine.network.bytes_per_s.value for machine in found}) == len(found)
    assert all(2 <= machine.num_devices <= 32 for machine in found)


def test_in_training_the_best_lesson_is_worth_as_much_on_every_machine():
    own = train_plans.random_plans(np.random.default_rng(1))
    rewards = [train_plans.played(own, lesson) for lesson in lessons(own)]
    assert max(rewards) == pytest.approx(MISFIT + (1 - MISFIT) / 2)
    assert train_plans.step_over_unit(max(rewards)) == pytest.approx(1.0)
    assert train_plans.step_over_unit(MISFIT / 2) == np.inf
