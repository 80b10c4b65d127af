"""Which kernels Inductor is expected to make, and what a kernel of weft's gains over them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fusion.regions import region
from weft.fusion.cost import Host
from weft.fusion.inductor_cost import TURNED_NS, inductor_kernels, inductor_seconds
from weft.fusion.lower import lower
from weft.fusion.surroundings import Surroundings
from weft.fusion.tasks import tasks_of
from weft.fusion.worth import weigh

HOST = Host(threads=2)


def softmax(add, x):
    shifted = add("exp.default", add("sub.Tensor", x, add("amax", x, (1,), True)))
    return add("div.Tensor", shifted, add("sum", shifted, (1,), True))


def rows_and_columns(add, x):
    return add("sum", x, (0,), False), add("sum", x, (1,), False)


def two_of_columns(add, x):
    return add("sum", x, (0,), False), add("amax", x, (0,), False)


def less_mean(add, x):
    return add("sub.Tensor", x, add("sum", x, (0, 1), True))


def doubled(add, x):
    return add("exp.default", add("mul.Scalar", x, 2.0))


def negated(add, x):
    return add("neg.default", add("mul.Scalar", x, 2.0))


def strangers(add, x, y):
    return doubled(add, x), doubled(add, y)


def joined(add, x, y):
    return add("exp.default", add("cat", (x, y), 1))


def masked(add, x, mask):
    return add("where.self", mask, x, add("neg.default", x))


def weighted(add, x, y):
    return add("mul.Tensor", y, add("neg.default", x))


def kernels_of(build, *inputs, host=HOST):
    made = region(build, *inputs)
    return inductor_kernels(made, tasks_of(lower(made)), host)


@pytest.mark.parametrize(
    ("build", "kernels"),
    [(doubled, 1), (softmax, 1), (two_of_columns, 1), (rows_and_columns, 2), (less_mean, 2)],
)
def test_what_walks_other_ranges_is_another_kernel(build, kernels):
    assert len(kernels_of(build, "f32[256,1024]")) == kernels


def test_what_has_nothing_in_common_stays_apart():
    assert len(kernels_of(strangers, "f32[256,1024]", "f32[256,1024]")) == 2


def test_every_task_is_in_one_kernel():
    made = region(rows_and_columns, "f32[256,1024]")
    tasks = tasks_of(lower(made))
    found = [task for kernel in inductor_kernels(made, tasks, HOST) for task in kernel.tasks]
    assert sorted(found) == list(range(len(tasks.tasks)))


def side_by_side(add, x, y):
    return add("cat", (x, y), 1)


def test_parts_of_a_concatenation_that_is_only_read_are_copied_first():
    first, second, *rest = kernels_of(joined, "f32[256,512]", "f32[256,256]")
    assert not first.tasks and not second.tasks and all(kernel.tasks for kernel in rest)
    assert first.num_bytes == 2 * second.num_bytes > 0


def test_those_of_one_that_is_stored_are_copied_by_their_stores():
    found = kernels_of(side_by_side, "f32[256,512]", "f32[256,256]")
    assert sorted(task for kernel in found for task in kernel.tasks) == [0, 1]
    assert all(kernel.tasks for kernel in found)


def side_by_side_and_turned(add, x, y):
    return side_by_side(add, x, y), add("permute", y, (1, 0))


@pytest.mark.parametrize(
    ("build", "copies", "tasks"),
    [(side_by_side, 0, 1), (joined, 1, 2), (side_by_side_and_turned, 0, 2)],
)
def test_what_inductor_computes_itself_is_written_where_it_belongs(build, copies, tasks):
    made = region(build, "f32[256,512]", "f32[256,256]")
    found = inductor_kernels(made, tasks_of(lower(made)), HOST, frozenset({1}))
    assert sum(not kernel.tasks for kernel in found) == copies
    assert sum(len(kernel.tasks) for kernel in found) == tasks


def test_a_mask_that_is_the_same_along_a_row_is_read_once_for_it():
    (of_rows,) = kernels_of(masked, "f32[256,1024]", "bool[256,1]")
    (number,) = kernels_of(weighted, "f32[256,1024]", "f32[256,1]")
    (of_all,) = kernels_of(masked, "f32[256,1024]", "bool[256,1024]")
    assert of_rows.seconds < number.seconds + 0.01 * of_all.seconds


def test_sums_of_columns_take_longer_than_sums_of_rows():
    (rows,) = kernels_of(lambda add, x: add("sum", x, (1,), False), "f32[4096,1024]")
    (columns,) = kernels_of(lambda add, x: add("sum", x, (0,), False), "f32[4096,1024]")
    assert columns.seconds > 2 * rows.seconds


def test_functions_that_inductor_takes_longer_for_gain():
    made = region(lambda add, x: add("erf.default", add("mul.Scalar", x, 2.0)), "f32[256,3072]")
    assert weigh(made, HOST).gain_s > weigh(region(negated, "f32[256,3072]"), HOST).gain_s + 1e-4


def test_masks_of_bool_take_longer_than_numbers():
    (mask,) = kernels_of(masked, "f32[256,1024]", "bool[256,1024]")
    (number,) = kernels_of(weighted, "f32[256,1024]", "f32[256,1024]")
    assert mask.seconds > number.seconds


def test_what_is_read_in_another_order_is_not_written_for_inductor():
    def both_ways(add, x):
        wave = add("neg.default", x)
        return add("add.Tensor", wave, add("permute", wave, (1, 0)))

    made = region(both_ways, "f32[512,512]")
    tasks = tasks_of(lower(made))
    assert len(tasks.tasks) > 1
    (kernel,) = inductor_kernels(made, tasks, HOST)
    assert len(kernel.tasks) == 1


def test_a_view_that_does_not_fit_is_computed_number_by_number():
    def of_rows(add, x, shape):
        wave = add(
            "view", add("neg.default", add("add.Tensor", x, add("sum", x, (1,), True))), shape
        )
        return add("sub.Tensor", wave, add("sum", wave, (1,), True))

    fits = kernels_of(lambda add, x: of_rows(add, x, (65, 64)), "f32[65,64]")
    turned = kernels_of(lambda add, x: of_rows(add, x, (64, 65)), "f32[65,64]")
    elements = 65 * 64
    more = sum(k.seconds for k in turned) - sum(k.seconds for k in fits)
    assert more > 0.9 * TURNED_NS * 1e-9 * elements / HOST.threads


def test_a_function_forks_once():
    kernels = kernels_of(rows_and_columns, "f32[256,1024]")
    forks = inductor_seconds(kernels, HOST) - sum(kernel.seconds for kernel in kernels)
    assert forks == pytest.approx(HOST.fork_ns * 1e-9)


def test_what_inductor_does_in_one_pass_gains_nothing_and_says_why():
    worth = weigh(region(negated, "f32[4096,1024]"), HOST)
    assert worth.gain_s == pytest.approx(-HOST.calling_ns(2) * 1e-9)
    assert worth.loss.endswith("there")
    assert "18.2 us for the call" in worth.loss


def test_a_graph_that_is_one_loop_in_the_caches_is_alike_in_either():
    likeness = weigh(region(negated, "f32[256,1024]"), HOST).likeness
    assert likeness.startswith("one loop, ") and likeness.endswith(" in either")


@pytest.mark.parametrize(
    ("build", "given"),
    [
        (negated, "f32[16384,4096]"),  # stored past the caches
        (softmax, "f32[256,1024]"),
        (rows_and_columns, "f32[256,1024]"),
        (lambda add, x: add("tanh.default", add("neg.default", x)), "f32[256,1024]"),
    ],
)
def test_other_graphs_are_not(build, given):
    assert weigh(region(build, given), HOST).likeness == ""


def test_one_pass_where_inductor_needs_two_gains():
    assert weigh(region(rows_and_columns, "f32[4096,1024]"), HOST).loss == ""


def test_what_takes_less_than_a_call_gains_nothing():
    assert weigh(region(rows_and_columns, "f32[8,64]"), HOST).loss


@given(st.floats(0, 1e6), st.floats(0, 1e8))
def test_the_gain_falls_with_the_call_and_with_what_has_to_be_written(call_ns, unwritten):
    made = region(rows_and_columns, "f32[512,256]")
    free = weigh(made, replace(HOST, call_ns=0.0))
    dear = weigh(made, replace(HOST, call_ns=call_ns), Surroundings(unwritten_bytes=unwritten))
    assert free.gain_s - dear.gain_s >= call_ns * 1e-9 - 1e-15
