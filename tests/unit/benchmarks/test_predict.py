"""The arithmetic behind what the benchmarks claim."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.equality.run import worst
from benchmarks.predict.run import Row, rank_correlation

# Whole numbers apart from each other, so that no function of them rounds two to one.
TIMES = st.lists(st.integers(1, 1000), min_size=2, max_size=12, unique=True)


@given(TIMES)
def test_any_growing_prediction_has_rank_correlation_1(times):
    assert rank_correlation([math.log(t) for t in times], times) == pytest.approx(1.0)


@given(TIMES)
def test_the_reverse_order_has_rank_correlation_minus_1(times):
    assert rank_correlation([1 / t for t in times], times) == pytest.approx(-1.0)


def test_one_swap_of_neighbours_is_seen():
    # Spearman's formula: 1 - 6 (1 + 1) / (4 (16 - 1))
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)


def test_the_error_is_relative_to_the_measurement():
    row = Row(recipe="", plan_name="", predicted_s=3.0, measured_s=2.0)
    assert row.error == pytest.approx(0.5)


@given(st.lists(st.floats(0, 1), max_size=5), st.lists(st.floats(0, 1), max_size=5))
def test_a_difference_that_is_no_number_is_the_worst(before, after):
    assert math.isnan(worst([*before, math.nan, *after]))
