"""Whole plans in one episode: what is decided, what it is worth, and that it can be built."""

from __future__ import annotations

import numpy as np
import pytest

from tests.programs import transformer
from weft.machine.presets import preset
from weft.parallel.depth import views_of
from weft.parallel.dqn.hybrid import MISFIT, STORED, Decided, HybridEnvironment, demonstration
from weft.parallel.dqn.planner import EPISODES, DqnPlanner
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level
from weft.parallel.request import PlanRequest
from weft.parallel.validate import validate
from weft.program.fold import fold

MACHINE = preset("dgx-h100x1")
SIZES = {"batch": 8, "length": 32, "width": 64, "num_heads": 4, "vocabulary": 128, "slots": ("m",)}
LAYERS = transformer(num_layers=3, **SIZES)
DEEP = transformer(num_layers=12, **SIZES)


def environment(program=LAYERS, **asked):
    request = PlanRequest(program=program, machine=MACHINE, **asked)
    folding = fold(program)
    return HybridEnvironment(request, folding, views_of(program, folding))


def played(own, choose):
    observation, reward, turns = own.reset(np.random.default_rng(0)), 0.0, 0
    while observation is not None:
        assert observation.choices.shape == (len(observation.allowed), own.choice_width)
        assert observation.shared.shape == (own.shared_width,)
        turn = own.step(choose(observation))
        reward, observation, turns = reward + turn.reward, turn.observation, turns + 1
    return reward, turns


def test_every_mesh_and_storage_that_is_shown_is_a_plan_with_a_time():
    own = environment()
    for mesh in range(len(own.meshes)):
        for stored in range(len(STORED)):
            reward, _ = played(own, demonstration(mesh, stored))
            assert MISFIT < reward < 1
    meshes = {(decided.data, decided.variables) for decided in own.known}
    assert meshes == set(own.meshes)
    assert {decided.stored for decided in own.known if decided.data > 1} == set(STORED)


def test_shorter_steps_are_worth_more():
    own = environment()
    worth = [
        (played(own, demonstration(mesh, 0))[0], next(reversed(own.known.values())).step_s)
        for mesh in range(len(own.meshes))
    ]
    by_step = sorted(worth, key=lambda pair: pair[1])
    assert [reward for reward, _ in by_step] == sorted((r for r, _ in worth), reverse=True)


def test_what_does_not_fit_is_worth_less_than_what_does():
    limit = min(p.peak_bytes for p in roomy().known.values()) * 0.5
    reward, _ = played(environment(memory_limit_bytes=limit), demonstration(0, 0))
    assert 0 < reward < MISFIT


def roomy():
    own = environment()
    for stored in range(len(STORED)):
        played(own, demonstration(0, stored))
    return own


def test_what_was_decided_can_be_built_as_it_was_predicted():
    own = environment()
    played(own, demonstration(len(own.meshes) - 1, 0))
    ((decided, prediction),) = own.known.items()
    built = own.candidate(decided)
    validate(built.plan, LAYERS)
    assert built.step_s == pytest.approx(prediction.step_s)
    assert decided.placements


def test_deep_programs_are_predicted_from_short_ones():
    own = environment(DEEP)
    for mesh in (0, 1):
        played(own, demonstration(mesh, 0))
    for decided, prediction in own.known.items():
        whole = own.candidate(decided)
        validate(whole.plan, DEEP)
        assert whole.step_s == pytest.approx(prediction.step_s, rel=0.05)


def test_a_mesh_that_is_asked_for_is_the_only_one():
    own = environment(mesh=Mesh((4, 2)))
    assert own.meshes == [(4, 2)]


@pytest.mark.parametrize(
    ("decided", "name"),
    [
        (Decided(8, 1, 3, ()), "dqn dp 8, ZeRO-3, 0 inputs cut"),
        (Decided(2, 4, 0, ((1, 0), (2, 1))), "dqn dp 2 x variables 4, 2 inputs cut"),
        (Decided(1, 1, 0, ()), "dqn 1, 0 inputs cut"),
    ],
)
def test_plans_have_names(decided, name):
    assert decided.name == name


def test_without_time_something_is_proposed_and_what_was_not_played_is_said():
    request = PlanRequest(program=LAYERS, machine=MACHINE, time_limit_s=0.0)
    search = DqnPlanner().start(request, fold(LAYERS), None, lambda _: None)
    assert search.proposals()
    assert search.notes == (
        f"{EPISODES[Level.FAST] - 1} episodes were not played for want of time",
    )


def test_an_agent_finds_nothing_slower_than_what_it_was_shown():
    request = PlanRequest(program=LAYERS, machine=MACHINE)
    search = DqnPlanner().start(request, fold(LAYERS), None, lambda _: None)
    found = min(p.prediction.step_s for p in search.proposals() if p.fits)
    shown = environment()
    for mesh in range(len(shown.meshes)):
        for stored in range(len(STORED)):
            played(shown, demonstration(mesh, stored))
    assert found <= min(p.step_s for p in shown.known.values()) * (1 + 1e-9)
    assert not search.notes
