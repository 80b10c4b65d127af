"""Skips are bounded in a row, and end for good once they are a habit."""

from __future__ import annotations

import pytest

from weft.rl.alignment import Thresholds
from weft.rl.skips import Skips


def make(**bounds):
    return Skips(Thresholds(cosine_high=0.5, **bounds))


def test_only_so_many_in_a_row():
    skips = make(consecutive_skips=2)
    for expected in (True, True, False):
        assert skips.may_skip is expected
        skips.note(skipped=expected)
    assert skips.may_skip


def test_a_habit_ends_them_for_good_with_one_warning():
    skips = make(window=10, window_skips=2)
    for n in range(4):
        skips.note(skipped=n % 2 == 0)
    assert skips.may_skip
    with pytest.warns(UserWarning, match="cosine_high=0.5"):
        skips.note(skipped=True)
    for _ in range(50):
        skips.note(skipped=False)
    assert not skips.may_skip


def test_skips_that_are_far_apart_are_no_habit():
    skips = make(window=3, window_skips=1)
    for n in range(30):
        skips.note(skipped=n % 3 == 0)
    assert skips.may_skip


def test_a_copy_from_a_checkpoint_goes_on_counting():
    skips, other = make(window=9, window_skips=2), make(window=9, window_skips=2)
    skips.note(skipped=True)
    other.load(skips.state())
    assert not other.may_skip
    other.note(skipped=False)
    other.note(skipped=True)
    with pytest.warns(UserWarning, match="No more"):
        other.note(skipped=True)
    another = make()
    another.load(other.state())
    assert not another.may_skip
