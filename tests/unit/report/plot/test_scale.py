import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.report.plot.scale import Scale, byte_ticks, linear_ticks, second_ticks

VALUES = st.floats(-1e9, 1e9)


@given(VALUES, VALUES)
def test_the_ends_of_the_range_fall_on_the_ends_of_the_picture(low, high):
    assume(high - low > 1e-6 * max(abs(low), abs(high), 1e-3))
    scale = Scale(low=low, high=high, start=10.0, end=90.0)
    assert scale(low) == pytest.approx(10.0)
    assert scale(high) == pytest.approx(90.0)
    assert scale((low + high) / 2) == pytest.approx(50.0)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, float("nan"))])
def test_an_empty_range_is_refused(low, high):
    with pytest.raises(InputError, match="low < high"):
        Scale(low=low, high=high, start=0.0, end=1.0)


@given(st.floats(0.0, 1e6), st.floats(1e-3, 1e6), st.integers(3, 10))
def test_ticks_lie_in_the_range_at_equal_distances_and_are_few(low, span, count):
    assume(span > 1e-6 * low)
    ticks = linear_ticks(low, low + span, count=count)
    slack = 1e-6 * span
    assert 1 <= len(ticks.values) <= count + 1
    assert all(low - slack <= v <= low + span + slack for v in ticks.values)
    steps = [b - a for a, b in zip(ticks.values, ticks.values[1:], strict=False)]
    assert all(step == pytest.approx(steps[0], rel=1e-3) for step in steps)


@given(st.floats(0.0, 1e3), st.floats(1e-3, 1e3))
def test_a_label_says_its_value(low, span):
    assume(span > 1e-4 * low)
    ticks = linear_ticks(low, low + span)
    assert [float(label) for label in ticks.labels] == pytest.approx(list(ticks.values), abs=1e-9)


def test_times_and_sizes_share_one_unit_on_an_axis():
    assert second_ticks(0.0, 0.03).unit == "ms"
    assert second_ticks(0.0, 0.03).labels == ("0", "5", "10", "15", "20", "25", "30")
    assert second_ticks(0.0, 4e-6).unit == "us"
    assert byte_ticks(0.0, 4 * 2.0**30).unit == "GiB"
    assert byte_ticks(0.0, 4 * 2.0**30).labels[-1] == "4"
    assert byte_ticks(0.0, 100.0).unit == "B"
