"""Advantages within groups."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.rl.advantages import group_advantages

REWARDS = st.lists(st.floats(-10, 10), min_size=2, max_size=8)


@given(REWARDS, REWARDS)
def test_each_group_has_a_mean_of_zero(one, other):
    found = group_advantages([*one, *other], ["a"] * len(one) + ["b"] * len(other))
    assert sum(found[: len(one)]) == pytest.approx(0.0, abs=1e-6)
    assert sum(found[len(one) :]) == pytest.approx(0.0, abs=1e-6)


@given(REWARDS, st.randoms())
def test_the_order_of_answers_does_not_matter(rewards, random):
    groups = [n % 2 for n in range(len(rewards))]
    order = list(range(len(rewards)))
    random.shuffle(order)
    shuffled = group_advantages([rewards[n] for n in order], [groups[n] for n in order])
    straight = group_advantages(rewards, groups)
    assert shuffled == pytest.approx([straight[n] for n in order], abs=1e-6)


def test_a_group_of_equals_teaches_nothing():
    assert group_advantages([1.0, 1.0, 1.0], [0, 0, 0]) == [0.0, 0.0, 0.0]


def test_large_equals_teach_nothing_either():
    """Their mean, as it is rounded, is not one of them."""
    worth = 0.1 * 2.0**60
    assert sum([worth] * 7) / 7 != worth
    assert group_advantages([worth] * 7, [0] * 7) == [0.0] * 7


def test_the_spread_of_a_group_is_divided_by():
    narrow = group_advantages([0.0, 1.0], [0, 0])
    assert narrow == pytest.approx(group_advantages([0.0, 10.0], [0, 0]), rel=1e-3)
    assert narrow == pytest.approx([-(0.5**0.5), 0.5**0.5], rel=1e-3)


def test_without_division_advantages_are_differences_from_the_mean():
    assert group_advantages([0.0, 10.0], [0, 0], normalise=False) == [-5.0, 5.0]
