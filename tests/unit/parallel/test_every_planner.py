"""Laws that every planner keeps: legal, fits, repeats itself, never worse than an expert, stops."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests.programs import mlp, transformer
from weft.core.errors import InfeasibleError
from weft.machine.presets import preset
from weft.parallel.pins import pin
from weft.parallel.planning import PLANNERS, plan
from weft.parallel.validate import validate

MACHINE = preset("dgx-h100x1")
MLP = mlp(num_layers=2, batch=64, width=256, hidden=lambda _: 1024, slots=("m",))
LAYERS = transformer(
    num_layers=3, batch=8, length=64, width=128, num_heads=4, vocabulary=256, slots=("m",)
)

pytestmark = pytest.mark.parametrize("planner", sorted(PLANNERS))


def small(memory):
    """The machine with devices of so much memory [bytes]."""
    (group,) = MACHINE.groups
    device = replace(
        group.device, memory_bytes=replace(group.device.memory_bytes, value=float(memory))
    )
    return replace(MACHINE, groups=(replace(group, device=device),))


PROGRAMS = {"mlp": MLP, "transformer": LAYERS}


@cache
def planned(planner, name):
    """The plan of one stage, made once."""
    return plan(PROGRAMS[name], MACHINE, planner=planner, max_stages=1)


@pytest.mark.parametrize("name", PROGRAMS)
def test_plans_are_legal_and_say_who_made_them(planner, name):
    found = planned(planner, name)
    validate(found, PROGRAMS[name])
    assert found.planner == planner
    assert found.prediction.peak_bytes <= found.memory_limit_bytes


def test_the_same_question_has_the_same_answer(planner):
    first = planned(planner, "transformer")
    second = plan(LAYERS, MACHINE, planner=planner, max_stages=1)
    assert (first.mesh, first.strategies, first.copies) == (
        second.mesh,
        second.strategies,
        second.copies,
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_expert_that_fits_is_faster(planner, name):
    found = planned(planner, name)
    others = [other for other in found.alternatives if other.fits]
    assert others
    assert all(found.prediction.step_s <= other.step_s * (1 + 1e-9) for other in others)


def test_memory_is_kept_to(planner):
    roomy = planned(planner, "transformer")
    limit = roomy.prediction.peak_bytes * 0.9
    tight = plan(LAYERS, MACHINE, planner=planner, max_stages=1, memory_limit_bytes=limit)
    validate(tight, LAYERS)
    assert tight.prediction.peak_bytes <= limit
    assert tight.prediction.step_s >= roomy.prediction.step_s * (1 - 1e-9)


def test_what_cannot_fit_is_refused(planner):
    with pytest.raises(InfeasibleError) as told:
        plan(LAYERS, small(1000), planner=planner, max_stages=1)
    assert told.value.constraint


def test_a_mesh_that_is_asked_for_is_the_plans(planner):
    found = plan(LAYERS, MACHINE, planner=planner, mesh=(4, 2))
    assert found.mesh.shape == (4, 2)
    validate(found, LAYERS)


def test_pins_are_kept(planner):
    (node,) = [i for i in LAYERS.inputs if i.name == "layers.1.mlp.up"]
    wish = pin("layers.1.mlp", "up", split=0, ways=8)
    found = plan(LAYERS, MACHINE, planner=planner, mesh=(8,), pins=(wish,))
    assert found.strategies[node.node].outputs[0] == (0,)


def test_with_no_time_there_is_a_plan_all_the_same(planner):
    found = plan(LAYERS, MACHINE, planner=planner, max_stages=1, time_limit_s=0.0)
    validate(found, LAYERS)


def test_a_search_ends_when_it_is_interrupted(planner):
    told = []

    def interrupt(text):
        told.append(text)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan(LAYERS, MACHINE, planner=planner, max_stages=1, progress=interrupt)
    assert len(told) == 1
