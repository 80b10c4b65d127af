"""Dims in factors: which dims make which, and where their parts lie in the model's tensor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.program.factors import block_dims, factored_dims, model_boxes


@st.composite
def factored(draw):
    """A held shape, the model's, and a box of the held one."""
    groups = draw(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), max_size=3))
    groups = [group for group in groups if len(group) == 1 or min(group) > 1]
    held = tuple(n for group in groups for n in group)
    model = tuple(int(np.prod(group)) for group in groups)
    box = []
    for n in held:
        start = draw(st.integers(0, n - 1))
        box.append((start, draw(st.integers(start + 1, n))))
    return groups, held, model, tuple(box)


@given(factored())
def test_factors_of_each_dim_are_found_in_order(case):
    groups, held, model, _ = case
    found = factored_dims(held, model)
    assert found is not None
    assert [[held[dim] for dim in group] for group in found] == groups
    assert block_dims(held, model) == {dim for group in found for dim in group[:-1]}


@given(factored())
def test_boxes_of_the_model_hold_the_elements_of_the_held_box(case):
    _, held, model, box = case
    numbers = np.arange(int(np.prod(held)))
    wanted = numbers.reshape(held)[tuple(slice(*span) for span in box)]
    pieces = []
    for of_held, of_model in model_boxes(box, held, model):
        mine = numbers.reshape(held)[tuple(slice(*span) for span in of_held)]
        theirs = numbers.reshape(model)[tuple(slice(*span) for span in of_model)]
        np.testing.assert_array_equal(mine.ravel(), theirs.ravel())
        pieces.append(theirs.ravel())
    np.testing.assert_array_equal(np.sort(np.concatenate(pieces)), np.sort(wanted.ravel()))


@pytest.mark.parametrize(
    ("held", "model"), [((8, 3), (4, 6)), ((3, 8), (12, 2)), ((3,), (3, 1)), ((2, 3), (3,))]
)
def test_other_shapes_are_no_factors(held, model):
    assert factored_dims(held, model) is None


def test_without_a_shape_of_the_model_nothing_counts_blocks():
    assert block_dims((3, 8), None) == frozenset()
