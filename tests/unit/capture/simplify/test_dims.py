"""Which sizes a view merges, by shapes alone."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from weft.capture.simplify.dims import merged_parts, split_shape


@given(st.lists(st.lists(st.integers(2, 5), min_size=1, max_size=3), max_size=4))
def test_merged_sizes_are_found_again(groups):
    fine = tuple(n for group in groups for n in group)
    coarse = tuple(math.prod(group) for group in groups)
    parts = merged_parts(fine, coarse)
    assert parts is not None
    assert split_shape(parts) == fine
    assert tuple(map(math.prod, parts)) == coarse


@given(st.lists(st.integers(1, 5), max_size=4), st.integers(0, 4))
def test_dims_of_size_one_do_not_count(shape, position):
    padded = (*shape[:position], 1, *shape[position:])
    found = merged_parts(padded, tuple(shape))
    assert found == tuple((n,) for n in shape)


def test_a_view_that_splits_merges_nothing():
    assert merged_parts((6, 4), (2, 3, 4)) is None
    assert merged_parts((4, 6), (6, 4)) is None
