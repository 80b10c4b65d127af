"""Laws of leaves: they add up to what was reported, whatever was reported of them."""

from hypothesis import given
from hypothesis import strategies as st

from weft.tokens import INPUT, OUTPUT
from weft.tokens.adapters.shape import leaf_class
from weft.tokens.adapters.shapes import SHAPES
from weft.tokens.adapters.solve import read_numbers

COUNT = st.integers(0, 10**6) | st.just(0)


def payload_of(shape, leaves, left_out):
    """What a provider would report of leaves, without the numbers whose places are left out."""
    payload = {}
    for place, number in enumerate(shape.numbers):
        if place in left_out:
            continue
        at = payload
        *outer, name = number.paths[0]
        for key in outer:
            at = at.setdefault(key, {})
        at[name] = sum(leaves[leaf] for leaf in number.leaves)
    return payload


def drawn(data):
    shape = data.draw(st.sampled_from(sorted(SHAPES.values(), key=lambda s: s.name)))
    everything = sorted(shape.input_leaves | shape.output_leaves)
    leaves = {leaf: data.draw(COUNT) for leaf in everything}
    return shape, leaves


def holds(count, value):
    return count.low <= value and (count.high is None or value <= count.high)


@given(st.data())
def test_leaves_of_a_whole_report_are_those_it_was_made_of(data):
    shape, leaves = drawn(data)
    used = read_numbers(shape, payload_of(shape, leaves, ()))
    for leaf in leaves:
        same = sum(n for other, n in leaves.items() if leaf_class(other) == leaf_class(leaf))
        assert holds(used[leaf_class(leaf)], same)
    assert used.input.low == used.input.high == sum(leaves[n] for n in shape.input_leaves)
    assert used.output.low == used.output.high == sum(leaves[n] for n in shape.output_leaves)
    if used.is_exact:
        assert used.total(INPUT) == used.input
        assert used.total(OUTPUT) == used.output


@given(st.data())
def test_what_is_left_out_widens_bounds_and_never_moves_them_off_the_truth(data):
    shape, leaves = drawn(data)
    # A number that is absent where it is zero may only be left out then.
    free = [
        place
        for place, number in enumerate(shape.numbers)
        if not number.absent_is_none or not sum(leaves[leaf] for leaf in number.leaves)
    ]
    left_out = data.draw(st.sets(st.sampled_from(free)) if free else st.just(set()))
    used = read_numbers(shape, payload_of(shape, leaves, left_out))
    for leaf in leaves:
        same = sum(n for other, n in leaves.items() if leaf_class(other) == leaf_class(leaf))
        assert holds(used[leaf_class(leaf)], same)
    assert holds(used.input, sum(leaves[n] for n in shape.input_leaves))
    assert holds(used.output, sum(leaves[n] for n in shape.output_leaves))


@given(st.data(), st.integers(0, 10**6))
def test_a_stream_that_broke_off_holds_what_may_have_followed(data, more):
    shape, leaves = drawn(data)
    seen = payload_of(shape, leaves, ())
    generated = sum(leaves[n] for n in shape.output_leaves)
    used = read_numbers(shape, seen, broke_off=True, max_tokens=generated + more)
    assert used.output.low == generated
    assert holds(used.output, generated + more)
    assert used.input.low == used.input.high == sum(leaves[n] for n in shape.input_leaves)
