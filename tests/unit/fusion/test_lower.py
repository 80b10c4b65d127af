"""What is left of operators: points, each for all values of its axes, loads and stores."""

from collections import Counter

import pytest

from tests.unit.fusion.regions import region
from weft.fusion.index import Part
from weft.fusion.lower import joined, lower
from weft.fusion.points import Const, Kind
from weft.program.types import DType


def of_kind(points, kind):
    return [point for point in points.points if point.kind is kind]


def ops(points):
    return Counter(point.op for point in points.points if point.kind is Kind.MAP)


def strides(points, address):
    """Strides with the sizes of their axes."""
    return sorted((points.sizes[axis], stride) for axis, stride in address.strides)


def between(points):
    return [buffer for buffer in points.buffers if buffer.name.startswith("mid")]


def test_an_element_wise_operator_is_a_load_a_map_and_a_store():
    points = lower(region(lambda add, x: add("exp.default", x), "f32[5,7]"))
    load, made = points.points
    assert (load.kind, made.kind, made.op, made.args) == (Kind.LOAD, Kind.MAP, "exp.default", (0,))
    (store,) = points.stores
    assert store.point == 1
    assert strides(points, load.address) == strides(points, store.address) == [(5, 7), (7, 1)]


def test_what_is_computed_twice_is_one_point():
    def twice(add, x):
        return add("mul.Tensor", add("exp.default", x), add("exp.default", x))

    assert ops(lower(region(twice, "f32[5]"))) == {"exp.default": 1, "mul.Tensor": 1}


def gate(add, x):
    return add("sigmoid.default", x)


def silu(add, x):
    return add("div.Tensor", x, add("add.Scalar", add("exp.default", add("neg.default", x)), 1))


def test_beside_its_sigmoid_silu_is_a_product():
    points = lower(region(lambda add, x: add("mul.Tensor", silu(add, x), gate(add, x)), "f32[5]"))
    assert ops(points) == {"sigmoid.default": 1, "mul.Tensor": 2}


def test_without_one_and_of_another_number_silu_stays_as_it_is():
    alone = lower(region(silu, "f32[5]"))
    assert ops(alone)["div.Tensor"] == 1

    def apart(add, x):
        return add("mul.Tensor", silu(add, add("mul.Scalar", x, 2.0)), gate(add, x))

    assert ops(lower(region(apart, "f32[5]")))["div.Tensor"] == 1


def log_softmax_and(power_of):
    """A log-softmax of rows, and the exponential of what a function makes of it."""

    def both(add, x):
        raised = add("sub.Tensor", x, add("amax", x, (1,), True))
        total = add("sum", add("exp.default", raised), (1,), True)
        found = add("sub.Tensor", raised, add("log.default", total))
        return add("mul.Tensor", found, add("exp.default", power_of(add, found)))

    return region(both, "f32[5,7]")


def test_beside_its_logarithm_a_softmax_needs_no_second_exponential():
    points = lower(log_softmax_and(lambda add, found: found))
    assert ops(points)["exp.default"] == ops(points)["reciprocal.default"] == 1


def test_of_something_else_it_does():
    points = lower(log_softmax_and(lambda add, found: add("mul.Scalar", found, 2.0)))
    assert ops(points)["exp.default"] == 2


def loss_of_rows(add, x, index):
    found = add("sub.Tensor", x, add("amax", x, (1,), True))
    return add("gather.default", found, 1, index)


def test_what_is_looked_up_is_computed_of_what_is_looked_up():
    points = lower(region(loss_of_rows, "f32[5,90]", "i64[5,1]"))
    assert not between(points)
    (looked_up,) = of_kind(points, Kind.LOOKUP)
    assert points.buffers[looked_up.buffer].name == "in0"
    assert looked_up.limit == 90


def test_through_a_view_of_an_input_too():
    def flat(add, x, index):
        return loss_of_rows(add, add("view", x, (15, 90)), index)

    points = lower(region(flat, "f32[3,5,90]", "i64[15,1]"))
    assert not between(points)
    (looked_up,) = of_kind(points, Kind.LOOKUP)
    assert points.buffers[looked_up.buffer].name == "in0"


def test_where_most_is_looked_up_it_is_computed_once_and_written():
    points = lower(region(loss_of_rows, "f32[5,90]", "i64[5,80]"))
    assert between(points)


def row_of_one(add, index, weight):
    numbers = add("iota", 7, 0, 1, "i64")
    one, zero = (add("full", (), value, "f32") for value in (-1.0, 0.0))
    row = add("where.self", add("eq.Tensor", index, numbers), one, zero)
    return add("sum", add("mul.Tensor", row, weight), (1,), True)


def test_the_sum_of_a_row_with_one_entry_is_that():
    points = lower(region(row_of_one, "i64[5,1]", "f32[5,1]"))
    assert not of_kind(points, Kind.REDUCE)
    assert not of_kind(points, Kind.IOTA)


def test_where_its_weight_varies_along_the_row_it_is_summed():
    points = lower(region(row_of_one, "i64[5,1]", "f32[5,7]"))
    assert of_kind(points, Kind.REDUCE)


def test_a_transposition_is_an_address():
    def moved(add, x):
        return add("exp.default", add("permute", x, (1, 0)))

    points = lower(region(moved, "f32[5,7]"))
    assert ops(points) == {"exp.default": 1}
    assert strides(points, points.stores[0].address) == [(5, 1), (7, 5)]


def test_an_input_and_its_transposition_are_two_loads():
    def both(add, x):
        return add("add.Tensor", x, add("permute", x, (1, 0)))

    points = lower(region(both, "f32[5,5]"))
    one, other = of_kind(points, Kind.LOAD)
    assert one.address.strides != other.address.strides
    assert not between(points)


def test_a_computed_value_and_its_transposition_are_read_from_memory():
    def both(add, x):
        y = add("exp.default", x)
        return add("add.Tensor", y, add("permute", y, (1, 0)))

    points = lower(region(both, "f32[5,5]"))
    assert between(points)
    assert ops(points) == {"exp.default": 1, "add.Tensor": 1}


def test_a_slice_is_an_offset():
    points = lower(
        region(lambda add, x: add("exp.default", add("slice", x, 0, 3, 8, 1)), "f32[9,2]")
    )
    (load,) = of_kind(points, Kind.LOAD)
    assert load.address.offset == 6
    assert strides(points, load.address) == [(2, 1), (5, 2)]


def test_every_second_element_is_a_stride():
    def some(add, x):
        return add("exp.default", add("slice", x, 0, 1, 8, 2))

    points = lower(region(some, "f32[8]"))
    (load,) = of_kind(points, Kind.LOAD)
    assert (load.address.offset, strides(points, load.address)) == (1, [(4, 2)])


@pytest.mark.parametrize("size", [7, 9])
def test_every_second_element_of_an_odd_number_is_a_stride(size):
    def some(add, x):
        return add("exp.default", add("slice", x, 0, 0, size, 2))

    points = lower(region(some, f"f32[{size}]"))
    (load,) = of_kind(points, Kind.LOAD)
    assert strides(points, load.address) == [((size + 1) // 2, 2)]


def test_one_of_three_fused_projections_is_a_load_in_place():
    def keys(add, x):
        apart = add("view", x, (2, 3, 4, 5))
        return add("exp.default", add("view", add("slice", apart, 1, 1, 2, 1), (2, 4, 5)))

    points = lower(region(keys, "f32[2,60]"))
    (load,) = of_kind(points, Kind.LOAD)
    assert load.address.offset == 20
    assert strides(points, load.address) == [(2, 60), (4, 5), (5, 1)]


def test_rotating_halves_reads_each_half_once_and_stores_each_once():
    def turned(add, x, cos, sin):
        first, last = (add("slice", x, 1, at, at + 32, 1) for at in (0, 32))
        other = add("cat", (add("neg.default", last), first), 1)
        return add("add.Tensor", add("mul.Tensor", x, cos), add("mul.Tensor", other, sin))

    points = lower(region(turned, *["f32[5,64]"] * 3))
    assert sorted(load.address.offset for load in of_kind(points, Kind.LOAD)) == [0] * 3 + [32] * 3
    assert [store.address.offset for store in points.stores] == [0, 32]
    assert sorted(points.sizes.values()) == [5, 32]
    assert ops(points) == {"neg.default": 1, "mul.Tensor": 4, "add.Tensor": 2}


def test_a_repeated_dim_is_no_axis_of_the_load():
    def added(add, x, y):
        return add("add.Tensor", x, y)

    points = lower(region(added, "f32[5,1]", "f32[7]"))
    x, y = of_kind(points, Kind.LOAD)
    assert (strides(points, x.address), strides(points, y.address)) == ([(5, 1)], [(7, 1)])


def test_rows_that_lie_on_one_another_are_read_once():
    own = region(lambda add, x: add("exp.default", x), "f32[5,7]", input_strides=((0, 1),))
    points = lower(own)
    (made,) = of_kind(points, Kind.MAP)
    assert points.num_elements(made.axes) == 7
    assert strides(points, points.stores[0].address) == [(5, 7), (7, 1)]


def test_a_sum_over_a_concatenation_is_one_reduction_for_each_part():
    def total(add, x, y):
        return add("sum", add("cat", (x, y), 0), (0,))

    points = lower(region(total, "f32[5]", "f32[7]"))
    sums = of_kind(points, Kind.REDUCE)
    assert sorted(points.num_elements(point.over) for point in sums) == [5, 7]
    assert ops(points) == {"add.Tensor": 1}


def test_a_sum_over_parts_of_one_loop_adds_before_it_reduces():
    def total(add, x):
        halves = [add("slice", x, 0, at, at + 4, 1) for at in (0, 4)]
        y = add("cat", (halves[1], halves[0]), 0)
        return add("sum", add("mul.Tensor", y, x), (0,))

    points = lower(region(total, "f32[8]"))
    (own,) = of_kind(points, Kind.REDUCE)
    assert points.num_elements(own.over) == 4


def test_a_sum_of_what_is_repeated_is_a_multiple():
    def total(add, x):
        return add("sum", add("expand", x, (5, 7)), (0,))

    points = lower(region(total, "f32[1,7]"))
    assert not of_kind(points, Kind.REDUCE)
    (made,) = of_kind(points, Kind.MAP)
    assert (made.op, made.args[1]) == ("mul.Scalar", Const.of(5))


def test_the_largest_of_what_is_repeated_is_itself():
    def most(add, x):
        return add("amax", add("expand", x, (5, 7)), (0,))

    points = lower(region(most, "f32[1,7]"))
    assert [point.kind for point in points.points] == [Kind.LOAD]


@pytest.mark.parametrize("dtype", ["bool", "u8", "i32"])
def test_sums_of_whole_numbers_are_added_up_in_i64(dtype):
    points = lower(region(lambda add, x: add("sum", x, (0,)), f"{dtype}[5]"))
    (made,) = of_kind(points, Kind.REDUCE)
    assert made.dtype is DType.I64


def test_outside_of_a_slice_its_gradient_is_nought():
    def padded(add, x):
        return add("slice_backward", x, (9,), 0, 2, 7, 1)

    points = lower(region(padded, "f32[5]"))
    zero, load, again = (points.points[store.point] for store in points.stores)
    assert zero is again
    assert (zero.op, zero.args, load.kind) == ("constant", (Const.of(0.0),), Kind.LOAD)
    assert [store.address.offset for store in points.stores] == [0, 2, 7]


def test_a_cast_to_the_type_that_a_value_has_is_nothing():
    points = lower(region(lambda add, x: add("exp.default", add("cast", x, "f32")), "f32[5]"))
    assert ops(points) == {"exp.default": 1}


def test_a_lookup_knows_how_far_apart_rows_are_and_how_many_there_are():
    points = lower(
        region(lambda add, x, index: add("gather.default", x, 0, index), "f32[9,7]", "i64[4,7]")
    )
    (own,) = of_kind(points, Kind.LOOKUP)
    assert (own.step, own.limit, strides(points, own.address)) == (7, 9, [(7, 1)])


def test_a_range_is_its_own_address():
    points = lower(region(lambda add: add("iota", 5, 3, 2, "i64")))
    (own,) = points.points
    assert (own.kind, own.address.offset) == (Kind.IOTA, 3)
    assert strides(points, own.address) == [(5, 2)]


def test_an_output_lies_as_it_is_asked_to():
    own = region(lambda add, x: add("exp.default", x), "f32[5,7]", output_strides=((1, 5),))
    points = lower(own)
    assert strides(points, points.stores[0].address) == [(5, 1), (7, 5)]


def test_constants_of_half_precision_are_rounded_as_a_cast_rounds():
    def rounded(add, x):
        number = add("cast", add("full", (5,), 0.1, "f32"), "bf16")
        return add("add.Tensor", x, add("cast", number, "f32"))

    (made,) = of_kind(lower(region(rounded, "f32[5]")), Kind.MAP)
    (number,) = (arg for arg in made.args if isinstance(arg, Const))
    assert number.value == 0.10009765625


def test_a_part_of_a_product_is_joined_of_parts_of_its_factors():
    assert joined([Part(1, ()), Part(0, ((7, 1),))], [2, 4]) == Part(4, ((7, 1),))
    assert joined([Part(0, ((3, 1),)), Part(2, ((7, 1),))], [2, 4]) == Part(2, ((3, 4), (7, 1)))
    assert joined([], []) == Part(0, ())


def test_an_input_that_is_written_whole_is_read_from_where_it_was_given():
    # Rows of 8 do not align with planes of 6 x 6, and the input is not dense: it has to be copied.
    own = region(lambda add, x: add("view", x, (9, 8)), "f32[2,6,6]", input_strides=((6, 12, 1),))
    points = lower(own)
    names = [buffer.name for buffer in points.buffers]
    copied, viewed = (points.points[store.point].buffer for store in points.stores)
    assert [names[copied], names[viewed]] == ["in0", "mid0"]
    assert [names[store.buffer] for store in points.stores] == ["mid0", "out0"]
