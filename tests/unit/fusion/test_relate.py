"""What shares loops, what is read in place, and what has to go through memory."""

from tests.unit.fusion.regions import region
from weft.fusion.relate import matching_groups, relate


def axes(relations, instance):
    """Loops of each dim, one tuple for each of its parts."""
    parts = [relations.dims.parts(dim) for dim in instance.dims]
    return [tuple(tuple(axis for axis, _ in part.axes) for part in own) for own in parts]


def loops(relations):
    """Sizes of all loops of the outputs."""
    found = {
        axis
        for output in relations.outputs
        for dim in axes(relations, output)
        for part in dim
        for axis in part
    }
    return sorted(relations.dims.size(axis) for axis in found)


def ops_written(own):
    nodes = own.program.nodes
    return sorted(nodes[value.node].op for value in relate(own).written)


def test_operands_of_an_addition_share_their_loops():
    relations = relate(region(lambda add, x, y: add("add.Tensor", x, y), "f32[5,7]", "f32[5,7]"))
    (out,) = relations.outputs
    x, y = out.operands
    assert axes(relations, out) == axes(relations, x) == axes(relations, y)
    assert loops(relations) == [5, 7]


def test_a_dim_that_is_repeated_is_a_loop_of_the_result_alone():
    relations = relate(region(lambda add, x, y: add("mul.Tensor", x, y), "f32[5,1]", "f32[7]"))
    (out,) = relations.outputs
    x, y = out.operands
    assert axes(relations, x)[1] == ((),)
    assert axes(relations, out) == [axes(relations, x)[0], axes(relations, y)[0]]


def turned(add, x, cos, sin):
    """Rotary embedding: x * cos + (the halves of x the other way round) * sin."""
    first, last = (add("slice", x, 1, at, at + 32, 1) for at in (0, 32))
    other = add("cat", (add("neg.default", last), first), 1)
    return add("add.Tensor", add("mul.Tensor", x, cos), add("mul.Tensor", other, sin))


def test_rotating_halves_is_one_loop():
    relations = relate(region(turned, *["f32[5,64]"] * 3))
    assert loops(relations) == [5, 32]
    assert not relations.written


def test_rotating_halves_of_a_computed_value_is_one_loop_too():
    def rotated(add, x):
        y = add("exp.default", x)
        first, last = (add("slice", y, 1, at, at + 32, 1) for at in (0, 32))
        return add("add.Tensor", add("cat", (add("neg.default", last), first), 1), y)

    relations = relate(region(rotated, "f32[5,64]"))
    assert loops(relations) == [5, 32]
    assert not relations.written


def test_rotating_by_a_part_repeats_after_the_common_divisor():
    def rotated(add, x):
        y = add("exp.default", x)
        first, last = add("slice", y, 0, 0, 6, 1), add("slice", y, 0, 6, 8, 1)
        return add("add.Tensor", add("cat", (last, first), 0), y)

    assert loops(relate(region(rotated, "f32[8]"))) == [2]


def test_a_whole_slice_relates_a_value_to_itself():
    def both(add, x):
        y = add("exp.default", x)
        return add("add.Tensor", add("slice", y, 0, 0, 6, 1), y)

    assert loops(relate(region(both, "f32[6]"))) == [6]


def test_a_concatenation_of_one_is_that_one():
    def both(add, x):
        y = add("exp.default", x)
        return add("cat", (y,), 0), y

    assert loops(relate(region(both, "f32[6]"))) == [6]


def test_one_of_three_fused_projections_is_read_in_place():
    def keys(add, x):
        apart = add("view", x, (2, 3, 4, 5))
        one = add("view", add("slice", apart, 1, 1, 2, 1), (2, 4, 5))
        return add("exp.default", one)

    relations = relate(region(keys, "f32[2,60]"))
    assert loops(relations) == [2, 4, 5]
    assert not relations.written


def test_all_of_three_fused_projections_of_a_computed_value_stay_out_of_memory():
    def products(add, x):
        apart = add("view", add("exp.default", x), (2, 3, 20))
        q, k, v = (add("slice", apart, 1, at, at + 1, 1) for at in range(3))
        return add("mul.Tensor", add("mul.Tensor", q, k), v)

    relations = relate(region(products, "f32[2,60]"))
    assert loops(relations) == [2, 20]
    assert not relations.written


def test_an_input_and_its_transposition_relate_nothing():
    def both(add, x):
        return add("add.Tensor", x, add("permute", x, (1, 0)))

    relations = relate(region(both, "f32[5,5]"))
    assert loops(relations) == [5, 5]
    assert not relations.written


def test_a_computed_value_and_its_transposition_go_through_memory():
    def both(add, x):
        y = add("exp.default", x)
        return add("add.Tensor", y, add("permute", y, (1, 0)))

    own = region(both, "f32[5,5]")
    relations = relate(own)
    assert loops(relations) == [5, 5]
    assert ops_written(own) == ["exp.default", "permute"]


def test_sums_of_rows_and_of_columns_share_the_loops_of_what_they_read():
    def both(add, x):
        return add("sum", x, (0,)), add("sum", add("exp.default", x), (1,))

    relations = relate(region(both, "f32[5,7]"))
    columns, rows = relations.outputs
    own = axes(relations, columns.operands[0])
    assert own == axes(relations, rows.operands[0])
    assert axes(relations, columns) == [own[1]]
    assert axes(relations, rows) == [own[0]]


def test_a_view_that_loops_cannot_follow_goes_through_memory():
    def changed(add, x):
        return add("exp.default", add("view", add("exp.default", x), (8, 3)))

    own = region(changed, "f32[6,4]")
    assert ops_written(own) == ["exp.default"]


def test_a_view_of_rows_in_memory_costs_nothing():
    own = region(lambda add, x: add("exp.default", add("view", x, (8, 3))), "f32[6,4]")
    assert not relate(own).written


def test_a_view_that_does_not_align_of_what_does_not_lie_in_rows_goes_through_memory():
    own = region(
        lambda add, x: add("exp.default", add("view", x, (8, 3))),
        "f32[6,4]",
        input_strides=((1, 6),),
    )
    assert ops_written(own) == ["input"]


def test_a_view_that_merges_what_was_transposed_is_followed_by_loops():
    def merged(add, x):
        return add("exp.default", add("view", add("permute", x, (0, 2, 1)), (2, 12)))

    relations = relate(region(merged, "f32[2,3,4]"))
    assert loops(relations) == [2, 3, 4]
    assert not relations.written


def test_every_second_element_is_read_in_place():
    own = region(lambda add, x: add("exp.default", add("slice", x, 0, 1, 8, 2)), "f32[8]")
    relations = relate(own)
    assert loops(relations) == [4]
    assert not relations.written


def test_every_second_element_of_an_odd_number_is_read_in_place():
    own = region(lambda add, x: add("exp.default", add("slice", x, 0, 0, 7, 2)), "f32[7]")
    assert not relate(own).written


def test_every_second_element_of_a_computed_value_can_be_had():
    def some(add, x):
        return add("slice", add("exp.default", x), 0, 0, 7, 2)

    assert relate(region(some, "f32[7]")).outputs


def test_gradients_of_every_second_element_can_be_had():
    own = region(lambda add, x: add("slice_backward", x, (8,), 0, 0, 8, 2), "f32[4]")
    assert relate(own).outputs


def test_what_is_looked_up_lies_in_memory():
    def looked(add, x, index):
        return add("gather.default", add("exp.default", x), 0, index)

    assert ops_written(region(looked, "f32[9]", "i64[4]")) == ["exp.default"]


def test_an_input_is_looked_up_where_it_lies():
    own = region(lambda add, x, index: add("gather.default", x, 0, index), "f32[9]", "i64[4]")
    assert not relate(own).written


def test_an_output_may_be_an_input_or_a_view_of_one():
    relations = relate(region(lambda add, x: (x, add("permute", x, (1, 0))), "f32[5,7]"))
    assert [output.shape for output in relations.outputs] == [(5, 7), (7, 5)]
    assert not relations.written


def test_dims_are_grouped_where_their_products_agree():
    assert matching_groups((2, 12), (2, 3, 4)) == [((0,), (0,)), ((1,), (1, 2))]
    assert matching_groups((6, 4), (8, 3)) == [((0, 1), (0, 1))]
    assert matching_groups((), ()) == []


def test_dims_of_one_element_are_in_some_group():
    for first, second in [((2, 1), (2,)), ((1, 2), (2,)), ((2,), (1, 2, 1)), ((1,), ())]:
        groups = matching_groups(first, second)
        assert [d for ours, _ in groups for d in ours] == list(range(len(first)))
        assert [d for _, theirs in groups for d in theirs] == list(range(len(second)))
