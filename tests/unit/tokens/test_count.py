import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.tokens.count import MOST, NONE, UNKNOWN, Count, exactly

SIZES = st.integers(0, 10**12)
COUNTS = st.builds(
    lambda low, more: Count(low, None if more is None else low + more), SIZES, st.none() | SIZES
)


@given(COUNTS, COUNTS, st.floats(0, 1), st.floats(0, 1))
def test_a_sum_holds_every_sum_of_what_its_parts_hold(one, other, left, right):
    def inside(count, share):
        most = count.low + 1000 if count.high is None else count.high
        return count.low + int(share * (most - count.low))

    whole = one + other
    value = inside(one, left) + inside(other, right)
    assert whole.low <= value and (whole.high is None or value <= whole.high)


@given(COUNTS, COUNTS, COUNTS)
def test_sums_do_not_depend_on_their_order(one, other, third):
    assert one + other == other + one
    assert (one + other) + third == one + (other + third)
    assert one + NONE == one


@given(COUNTS, SIZES)
def test_what_two_say_together_is_in_both(count, point):
    holds = count.low <= point and (count.high is None or point <= count.high)
    if holds:
        assert count & exactly(point) == exactly(point)
    else:
        with pytest.raises(InputError, match="agrees"):
            count & exactly(point)


@given(COUNTS)
def test_what_is_unknown_adds_nothing_to_what_is_known(count):
    assert count & UNKNOWN == count == UNKNOWN & count


@pytest.mark.parametrize(("low", "high"), [(-1, 3), (3, 2), (0, -1), (0, MOST + 1)])
def test_bounds_that_cannot_be_are_named(low, high):
    with pytest.raises(InputError, match=f"{low} to {high}"):
        Count(low, high)


def test_a_count_says_how_much_is_known():
    assert [repr(c) for c in (exactly(3), Count(1, 5), UNKNOWN)] == ["3", "1 to 5", "at least 0"]
    assert exactly(3).is_exact and not Count(1, 5).is_exact and not UNKNOWN.is_exact
