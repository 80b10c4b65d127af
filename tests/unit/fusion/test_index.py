"""Laws of dims: what is walked by the same loops, and what cannot be."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.fusion.index import Dims, Misfit, Part


def elements(dims, dim):
    """Elements of a dim in the order in which its parts and their axes run."""
    found = []
    for part in dims.parts(dim):
        for at in product(*(range(dims.size(axis)) for axis, _ in part.axes)):
            steps = zip(at, part.axes, strict=True)
            found.append(part.offset + sum(n * stride for n, (_, stride) in steps))
    return found


def axes(dims, dim):
    return [axis for part in dims.parts(dim) for axis, _ in part.axes]


def sizes(dims, dim):
    return [dims.size(axis) for axis in axes(dims, dim)]


def test_a_dim_that_nothing_is_known_about_is_one_loop():
    dims = Dims()
    a = dims.new(5)
    assert dims.parts(a) == (Part(0, ((a, 1),)),)


def test_a_dim_of_one_element_is_no_loop():
    dims = Dims()
    assert dims.parts(dims.new(1)) == (Part(0, ()),)


def test_equal_dims_are_the_same_loop():
    dims = Dims()
    a, b, c = (dims.new(5) for _ in range(3))
    dims.unify(a, b)
    dims.unify(b, c)
    assert dims.parts(a) == dims.parts(b) == dims.parts(c)


def test_dims_of_different_size_are_a_misfit():
    dims = Dims()
    with pytest.raises(Misfit, match="4 elements against 5"):
        dims.unify(dims.new(4), dims.new(5))


def test_a_product_is_walked_by_the_loops_of_its_factors_the_slowest_first():
    dims = Dims()
    a, b = dims.new(2), dims.new(3)
    assert dims.parts(dims.product([a, b])) == (Part(0, ((a, 3), (b, 1))),)


def test_factors_of_one_element_are_no_loops_of_a_product():
    dims = Dims()
    a = dims.new(2)
    assert dims.parts(dims.product([dims.new(1), a, dims.new(1)])) == (Part(0, ((a, 1),)),)


def test_the_parts_of_a_row_come_one_after_the_other():
    dims = Dims()
    a, b = dims.new(2), dims.new(3)
    assert dims.parts(dims.row([a, b])) == (Part(0, ((a, 1),)), Part(2, ((b, 1),)))


def test_parts_without_elements_are_left_out_of_a_row():
    dims = Dims()
    a = dims.new(2)
    assert dims.parts(dims.row([dims.new(0), a, dims.new(0)])) == (Part(0, ((a, 1),)),)


def test_a_part_may_stand_twice_in_a_row_and_is_one_loop():
    dims = Dims()
    a = dims.new(4)
    assert dims.parts(dims.row([a, a])) == (Part(0, ((a, 1),)), Part(4, ((a, 1),)))


def test_a_product_of_a_row_has_a_part_for_each_of_its_parts():
    dims = Dims()
    a, b, fast = dims.new(1), dims.new(2), dims.new(3)
    whole = dims.product([dims.row([a, b]), fast])
    assert dims.parts(whole) == (Part(0, ((fast, 1),)), Part(3, ((b, 3), (fast, 1))))


def test_products_are_split_until_their_factors_are_equal():
    dims = Dims()
    a, b = dims.product([dims.new(2), dims.new(6)]), dims.product([dims.new(4), dims.new(3)])
    dims.unify(a, b)
    assert dims.parts(a) == dims.parts(b)
    assert sizes(dims, a) == [2, 2, 3]


def test_a_product_whose_factors_do_not_divide_is_a_misfit():
    dims = Dims()
    a, b = dims.product([dims.new(6), dims.new(4)]), dims.product([dims.new(8), dims.new(3)])
    with pytest.raises(Misfit):
        dims.unify(a, b)


def test_rows_are_cut_wherever_one_of_them_has_a_break():
    dims = Dims()
    a, b = dims.row([dims.new(2), dims.new(5)]), dims.row([dims.new(4), dims.new(3)])
    dims.unify(a, b)
    assert dims.parts(a) == dims.parts(b)
    assert sizes(dims, a) == [2, 2, 3]


def test_a_product_is_cut_between_its_slowest_factors_values():
    dims = Dims()
    slow, fast = dims.new(4), dims.new(3)
    a, b = dims.product([slow, fast]), dims.row([dims.new(9), dims.new(3)])
    dims.unify(a, b)
    assert dims.parts(a) == dims.parts(b)
    assert [dims.size(axis) for part in dims.parts(a) for axis, _ in part.axes] == [3, 3, 3]


def test_a_product_cannot_be_cut_inside_its_fastest_factor():
    dims = Dims()
    a, b = dims.product([dims.new(4), dims.new(3)]), dims.row([dims.new(8), dims.new(4)])
    with pytest.raises(Misfit, match="8 of 12 elements in rows of 3"):
        dims.unify(a, b)


def test_halves_the_other_way_round_are_one_loop():
    dims = Dims()
    a, b = dims.new(3), dims.new(3)
    dims.unify(dims.row([a, b]), dims.row([b, a]))
    assert dims.parts(a) == dims.parts(b)


@pytest.mark.parametrize(("first", "second", "loop"), [(2, 6, 2), (3, 6, 3), (5, 3, 1), (4, 6, 2)])
def test_unequal_parts_the_other_way_round_repeat_after_their_common_divisor(first, second, loop):
    dims = Dims()
    a, b = dims.new(first), dims.new(second)
    one, other = dims.row([a, b]), dims.row([b, a])
    dims.unify(one, other)
    assert dims.parts(one) == dims.parts(other)
    assert elements(dims, one) == list(range(first + second))
    assert set(sizes(dims, one)) <= {loop}


def test_a_row_of_one_is_that_one():
    dims = Dims()
    a = dims.new(6)
    dims.unify(dims.row([dims.new(0), a]), a)
    assert elements(dims, a) == list(range(6))


def test_a_row_of_one_is_a_product_as_that_one_is():
    dims = Dims()
    a = dims.product([dims.new(2), dims.new(3)])
    b = dims.new(6)
    dims.unify(a, dims.row([b]))
    dims.unify(a, b)
    assert dims.parts(a) == dims.parts(b)


def test_what_is_known_of_a_dim_holds_for_the_dims_that_equal_it():
    dims = Dims()
    a, b = dims.new(6), dims.new(6)
    dims.unify(a, b)
    dims.unify(b, dims.row([dims.new(2), dims.new(4)]))
    assert sizes(dims, a) == [2, 4]


def test_boxes_are_the_products_of_the_parts_of_each_dim():
    dims = Dims()
    a, b, c = dims.new(2), dims.new(3), dims.new(4)
    row = dims.row([a, b])
    assert dims.boxes([row, c]) == [
        (Part(0, ((a, 1),)), Part(0, ((c, 1),))),
        (Part(2, ((b, 1),)), Part(0, ((c, 1),))),
    ]


def test_a_misfit_takes_back_all_that_was_related_in_the_attempt():
    dims = Dims()
    a, b, c, d = dims.new(12), dims.new(12), dims.new(7), dims.new(8)
    before = [dims.parts(dim) for dim in (a, b, c, d)]

    def all_three():
        with dims.attempt():
            dims.unify(a, b)
            dims.unify(a, dims.product([dims.new(3), dims.new(4)]))
            dims.unify(c, d)

    with pytest.raises(Misfit):
        all_three()
    assert [dims.parts(dim) for dim in (a, b, c, d)] == before


def test_an_attempt_that_fits_stays():
    dims = Dims()
    a, b = dims.new(3), dims.new(3)
    with dims.attempt():
        dims.unify(a, b)
    assert dims.parts(a) == dims.parts(b)


def test_a_misfit_takes_back_an_attempt_around_it():
    dims = Dims()
    a, b = dims.new(3), dims.new(3)
    before = dims.parts(a), dims.parts(b)

    def both():
        with dims.attempt():
            with dims.attempt():
                dims.unify(a, b)
            dims.unify(a, dims.new(4))

    with pytest.raises(Misfit):
        both()
    assert (dims.parts(a), dims.parts(b)) == before


# --- any relations ---------------------------------------------------------------------------


SIZES = (12, 12, 6, 6, 4, 3, 2, 2, 8, 1)
NUMBERS = st.integers(0, 99)
STEPS = st.lists(
    st.tuples(st.sampled_from(("product", "row")), st.lists(NUMBERS, min_size=1, max_size=3))
    | st.tuples(st.just("unify"), st.lists(NUMBERS, min_size=2, max_size=2)),
    max_size=8,
)


@given(STEPS)
def test_parts_hold_every_element_once_and_equal_dims_have_equal_parts(steps):
    dims = Dims()
    known = [dims.new(size) for size in SIZES]
    for kind, numbers in steps:
        one, *others = (known[number % len(known)] for number in numbers)
        if kind == "unify":
            alike = [dim for dim in known if dims.size(dim) == dims.size(one)]
            unified_or_as_before(dims, known, one, alike[numbers[1] % len(alike)])
        else:
            made = dims.product([one, *others]) if kind == "product" else dims.row([one, *others])
            known += [made] if dims.size(made) <= 48 else []
        for dim in known:
            assert sorted(elements(dims, dim)) == list(range(dims.size(dim)))


def unified_or_as_before(dims, known, one, other):
    before = [dims.parts(dim) for dim in known]
    try:
        with dims.attempt():
            dims.unify(one, other)
    except Misfit:
        assert [dims.parts(dim) for dim in known] == before
    else:
        assert dims.parts(one) == dims.parts(other)
