"""Whole plans in one episode: what is decided, what it is worth, and that it can be built."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.programs import transformer
from weft.core.errors import InputError
from weft.machine.presets import preset
from weft.parallel.depth import views_of
from weft.parallel.dqn.hybrid import (
    MISFIT,
    ROWS,
    STORED,
    VARIABLES,
    Decided,
    HybridEnvironment,
    Lesson,
    lessons,
)
from weft.parallel.dqn.planner import EPISODES, DqnPlanner
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level
from weft.parallel.request import PlanRequest
from weft.parallel.validate import validate
from weft.program.fold import fold
from weft.program.graph import Role

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
    for lesson in lessons(own):
        reward, _ = played(own, lesson)
        assert MISFIT < reward < 1
    meshes = {(decided.data, decided.variables) for decided in own.known}
    assert meshes == set(own.meshes)
    assert {decided.stored for decided in own.known if decided.data > 1} == set(STORED)


def test_shorter_steps_are_worth_more():
    own = environment()
    worth = [
        (played(own, Lesson(mesh, 0))[0], next(reversed(own.known.values())).step_s)
        for mesh in range(len(own.meshes))
    ]
    by_step = sorted(worth, key=lambda pair: pair[1])
    assert [reward for reward, _ in by_step] == sorted((r for r, _ in worth), reverse=True)


def test_what_does_not_fit_is_worth_less_than_what_does():
    limit = min(p.peak_bytes for p in roomy().known.values()) * 0.5
    reward, _ = played(environment(memory_limit_bytes=limit), Lesson(0, 0))
    assert 0 < reward < MISFIT


def roomy():
    own = environment()
    for stored in range(len(STORED)):
        played(own, Lesson(0, stored))
    return own


def test_what_was_decided_can_be_built_as_it_was_predicted():
    own = environment()
    played(own, Lesson(len(own.meshes) - 1, 0))
    ((decided, prediction),) = own.known.items()
    built = own.candidate(decided)
    validate(built.plan, LAYERS)
    assert built.step_s == pytest.approx(prediction.step_s)
    assert decided.placements


def test_deep_programs_are_predicted_from_short_ones():
    own = environment(DEEP)
    for mesh in (0, 1):
        played(own, Lesson(mesh, 0))
    for decided, prediction in own.known.items():
        whole = own.candidate(decided)
        validate(whole.plan, DEEP)
        assert whole.step_s == pytest.approx(prediction.step_s, rel=0.05)


@pytest.mark.parametrize(
    ("shape", "pairs"), [((4, 2), [(4, 2)]), ((8,), [(8, 1), (1, 8)]), ((1,), [(1, 1)])]
)
def test_a_mesh_that_is_asked_for_is_the_only_one(shape, pairs):
    assert environment(mesh=Mesh(shape)).meshes == pairs


def test_a_mesh_of_three_axes_is_not_the_agents():
    with pytest.raises(InputError, match="one or two axes"):
        environment(mesh=Mesh((2, 2, 2)))


def test_the_second_axis_may_share_out_the_batch_as_well():
    own = environment()
    last = len(own.meshes) - 1
    for rows in (False, True):
        played(own, Lesson(last, rows=rows))
    (whole, _), (cut, _) = own.known.items()
    batch = {i.node for i in LAYERS.inputs if i.role is Role.BATCH}
    assert (whole.data, whole.variables) == (cut.data, cut.variables) == (1, 8)
    assert not batch & dict(whole.placements).keys()
    assert dict.fromkeys(batch, 0).items() <= dict(cut.placements).items()
    assert set(whole.placements) <= set(cut.placements)
    built = own.candidate(cut)
    validate(built.plan, LAYERS)
    assert all(built.plan.strategies[node].outputs[0] == (0,) for node in batch)


def test_rows_that_do_not_divide_are_not_shared_out():
    own = environment(transformer(num_layers=3, **{**SIZES, "batch": 4}))
    kinds = []
    observation = own.reset(np.random.default_rng(0))
    while observation is not None:
        kinds.append(own.kind)
        observation = own.step(Lesson(len(own.meshes) - 1)(observation)).observation
    assert own.meshes[-1] == (1, 8)
    assert ROWS not in kinds
    assert VARIABLES in kinds


def test_what_is_seen_has_no_units():
    """A machine on which everything takes a tenth as long looks the same."""

    def seen(machine):
        request = PlanRequest(program=LAYERS, machine=machine)
        own = HybridEnvironment(request, fold(LAYERS), None)
        return own.reset(np.random.default_rng(0))

    slow, quick = seen(ten_times(1.0)), seen(ten_times(10.0))
    np.testing.assert_allclose(slow.shared, quick.shared, atol=1e-3)
    np.testing.assert_allclose(slow.choices, quick.choices, atol=1e-3)


def ten_times(factor):
    """The machine with rates so many times as high."""

    def faster(quantity, by=factor):
        return replace(quantity, value=quantity.value * by)

    (group,) = MACHINE.groups
    device = replace(
        group.device,
        matmul_flops_per_s={k: faster(v) for k, v in group.device.matmul_flops_per_s.items()},
        vector_flops_per_s=faster(group.device.vector_flops_per_s),
        memory_bytes_per_s=faster(group.device.memory_bytes_per_s),
        launch_s=faster(group.device.launch_s, 1 / factor),
    )
    link = replace(group.link, bytes_per_s=faster(group.link.bytes_per_s))
    return replace(MACHINE, groups=(replace(group, device=device, link=link),))


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
    for lesson in lessons(shown):
        played(shown, lesson)
    assert found <= min(p.step_s for p in shown.known.values()) * (1 + 1e-9)
    assert not search.notes


@pytest.mark.parametrize("rows", [False, True])
def test_variables_of_a_deep_program_are_decided_about_in_its_short_version(rows):
    whole, short = (
        HybridEnvironment(PlanRequest(program=DEEP, machine=MACHINE), fold(DEEP), views)
        for views in (None, views_of(DEEP, fold(DEEP)))
    )
    for mesh in range(len(whole.meshes)):
        lesson, seen = Lesson(mesh, 0, rows), []
        for own in (whole, short):
            observation = own.reset(np.random.default_rng(0))
            seen.append([])
            while observation is not None:
                seen[-1].append((own.offered, observation))
                observation = own.step(lesson(observation)).observation
        assert len(seen[0]) == len(seen[1])
        for (offered, first), (other, second) in zip(*seen, strict=True):
            assert offered == other
            np.testing.assert_allclose(first.choices, second.choices, atol=0.02)
            np.testing.assert_allclose(first.shared, second.shared, atol=1e-6)
    assert list(whole.known) == list(short.known)
