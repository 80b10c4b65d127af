import json

import pytest

from tests.unit.fusion.regions import region
from weft.core.errors import InputError
from weft.fusion.cost import Host
from weft.fusion.lower import lower
from weft.fusion.plan import FusionPlan
from weft.fusion.stitch import PLANNERS, planned, scheduled

HOST = Host(threads=2)


def softmax(add, x):
    shifted = add("exp.default", add("sub.Tensor", x, add("amax", x, (1,), True)))
    return add("div.Tensor", shifted, add("sum", shifted, (1,), True))


def rows_and_columns(add, x):
    return add("sum", x, (0,), False), add("sum", x, (1,), False)


def plan_of(make, shape, planner="beam", host=HOST):
    made = region(make, shape)
    points = lower(made)
    return planned(made, points, host, planner), points


def test_a_softmax_is_one_phase_over_rows():
    plan, points = plan_of(softmax, "f32[8192,1024]")
    assert len(plan.phases) == 1
    ((axis, block),) = plan.phases[0].outer
    assert (points.sizes[axis], block) == (8192, 1)


def test_rows_and_columns_are_summed_in_one_pass():
    plan, _points = plan_of(rows_and_columns, "f32[32768,1024]")
    read = 4 * 32768 * 1024
    assert sum(phase.num_bytes for phase in plan.phases) < 1.1 * read


def test_without_search_every_task_reads_again():
    plan, _points = plan_of(rows_and_columns, "f32[32768,1024]", planner="none")
    read = 4 * 32768 * 1024
    assert sum(phase.num_bytes for phase in plan.phases) > 1.9 * read


def test_no_plan_takes_longer_than_that_of_the_ablation():
    for make in (softmax, rows_and_columns):
        times = [plan_of(make, "f32[4096,768]", planner)[0].seconds for planner in PLANNERS]
        assert times[0] == min(times)


def test_little_work_stays_on_one_thread():
    assert plan_of(softmax, "f32[8,64]")[0].threads == 1
    assert plan_of(softmax, "f32[4096,1024]")[0].threads == 2


def test_what_the_caches_cannot_hold_is_stored_past_them():
    assert not plan_of(softmax, "f32[256,1024]")[0].streams
    assert plan_of(softmax, "f32[32768,1024]")[0].streams


def test_a_plan_comes_back_from_its_json():
    plan, points = plan_of(softmax, "f32[512,33]")
    again = FusionPlan.from_json(plan.to_json())
    assert again == plan
    assert scheduled(points, again) == scheduled(points, plan)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weft": "fusion plan", "version": 99}'])
def test_other_json_is_no_plan(text):
    with pytest.raises(InputError, match="a fusion plan of version 1"):
        FusionPlan.from_json(text)


def test_a_plan_without_a_field_is_refused():
    plain = json.loads(plan_of(softmax, "f32[512,33]")[0].to_json())
    del plain["threads"]
    with pytest.raises(InputError, match="threads"):
        FusionPlan.from_json(json.dumps(plain))


def test_an_unknown_planner_is_refused_by_name():
    made = region(softmax, "f32[4,4]")
    with pytest.raises(InputError, match="one of beam, greedy, none"):
        planned(made, lower(made), HOST, "best")
