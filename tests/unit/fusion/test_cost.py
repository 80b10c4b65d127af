"""What the latency-evaluator says of plans that differ in one thing."""

from tests.unit.fusion.regions import region
from weft.fusion.cost import Host
from weft.fusion.lower import lower
from weft.fusion.schedule import Outer
from weft.fusion.stitch import Stitcher, planned
from weft.fusion.tasks import tasks_of

HOST = Host(threads=2)


def masked_softmax(add, scores, mask):
    shifted = add("add.Tensor", scores, mask)
    power = add("exp.default", add("sub.Tensor", shifted, add("amax", shifted, (2,), True)))
    return add("div.Tensor", power, add("sum", power, (2,), True))


def copied(add, x):
    return add("mul.Scalar", x, 2.0)


def seconds_of(build, shapes, *outer, host=HOST):
    """Time of all tasks as one phase, shared out over axes of these sizes and blocks."""
    tasks = tasks_of(lower(region(build, *shapes)))
    by_size = {tasks.points.sizes[axis]: axis for axis in tasks.axis_order}
    chosen = tuple(Outer(by_size[size], block) for size, block in outer)
    whole = frozenset(range(len(tasks.tasks)))
    return Stitcher(tasks, host).timed(whole, chosen)


def test_rows_that_are_pages_apart_take_longer_than_those_that_follow_one_another():
    shapes = ("f32[32,500,512]", "f32[500,512]")
    apart = seconds_of(masked_softmax, shapes, (500, 1))
    in_order = seconds_of(masked_softmax, shapes, (32, 1), (500, 1))
    assert apart > 1.2 * in_order


def test_heads_of_scores_are_walked_outside_and_the_mask_is_read_again():
    made = region(masked_softmax, "f32[32,500,512]", "f32[500,512]")
    points = lower(made)
    (phase,) = planned(made, points, HOST).phases
    assert [points.sizes[axis] for axis, _ in phase.outer] == [32, 500]


def test_where_pages_are_known_jumps_cost_little():
    shapes = ("f32[4,50,512]", "f32[50,512]")
    apart = seconds_of(masked_softmax, shapes, (50, 1))
    in_order = seconds_of(masked_softmax, shapes, (4, 1), (50, 1))
    assert apart < 1.2 * in_order


def test_blocks_of_the_last_outer_axis_follow_one_another():
    shapes = ("f32[8192,4096]",)
    whole = seconds_of(copied, shapes, (8192, 1))
    in_blocks = seconds_of(copied, shapes, (8192, 1), (4096, 1024))
    across = seconds_of(copied, shapes, (4096, 1024))
    assert in_blocks < 1.1 * whole
    assert across > 1.1 * whole


def test_a_call_costs_more_with_more_tensors_and_less_from_the_caches():
    assert HOST.calling_ns(2) < HOST.calling_ns(12)
    assert HOST.calling_ns(3, is_hot=True) < 0.5 * HOST.calling_ns(3)
