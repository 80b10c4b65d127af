"""Checks correct what is predicted of plans, by speed and by style of search."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from weft.diffusion.likeness import Check, Likeness
from weft.diffusion.search import STYLES

SAFE, BOLD = STYLES[0], STYLES[1]


MARGIN = 2.0**0.5 * 1.8946  # eight videos: Student's t of 7 degrees of freedom at 0.95


def check(speedup, got_psnr_db, style=SAFE, *, psnr_db=40.0, doubt_db=0.0):
    """A plan that was run, of which 40 dB were predicted."""
    return Check(
        speedup=speedup,
        psnr_db=psnr_db,
        got_speedup=speedup,
        got_psnr_db=got_psnr_db,
        doubt_db=doubt_db,
        videos=8,
        style=style,
    )


@pytest.fixture
def known():
    """Bold plans are better at twice the speed and collapse at four times."""
    return Likeness(
        [
            check(4.0, 30.0, doubt_db=1.0),
            check(2.0, 42.0),
            check(2.0, 46.0, BOLD),
            check(4.0, 20.0, BOLD),
        ]
    )


def test_what_checks_missed_is_corrected_between_their_speeds(known):
    assert known.corrected_db(40.0, 2.0, SAFE) == pytest.approx(42.0)
    assert known.corrected_db(40.0, 3.0, SAFE) == pytest.approx(36.0)
    assert known.corrected_db(35.0, 3.0, BOLD) == pytest.approx(28.0)
    assert known.corrected_db(50.0, 1.1, SAFE) == pytest.approx(52.0)


def test_the_margin_is_that_of_the_checks_around(known):
    assert known.surely_db(40.0, 2.0, SAFE) == pytest.approx(42.0)
    assert known.surely_db(40.0, 4.0, SAFE) == pytest.approx(30.0 - MARGIN, abs=0.01)
    assert known.surely_db(40.0, 3.0, SAFE) == pytest.approx(36.0 - MARGIN / 2, abs=0.01)


@pytest.mark.parametrize(
    ("videos", "quantile"), [(2, 6.3138), (4, 2.3534), (8, 1.8946), (13, 1.7823), (1001, 1.6464)]
)
def test_fewer_videos_make_the_margin_wider(videos, quantile):
    """As tables of Student's t have it."""
    own = replace(check(2.0, 40.0, doubt_db=1.0), videos=videos)
    near = 0.02 if videos == 4 else 0.002
    assert own.margin_db == pytest.approx(2.0**0.5 * quantile, rel=near)
    assert replace(own, videos=1).margin_db == 0.0


def test_each_speed_has_its_own_style(known):
    assert known.style_for_speed(2.0) == BOLD and known.style_for_speed(3.5) == SAFE


def test_a_style_that_was_not_checked_as_far_is_not_taken():
    own = Likeness([check(2.0, 60.0, BOLD), check(2.0, 40.0), check(4.0, 30.0)])
    assert own.style_for_speed(1.5) == BOLD and own.style_for_speed(3.0) == SAFE
    assert own.style_for_speed(9.0) in (SAFE, BOLD)


def test_a_quality_takes_the_style_that_keeps_it_longest(known):
    assert known.style_for_psnr(44.0) == BOLD and known.style_for_psnr(29.9 - MARGIN) == SAFE
    assert known.style_for_psnr(90.0) == BOLD, "the better one where nothing is good enough"


def test_nothing_is_known_beyond_the_fastest_check(known):
    assert known.fastest(SAFE) == 4.0
    assert Likeness([]).fastest(SAFE) == math.inf


def test_without_checks_nothing_is_corrected():
    own = Likeness([])
    assert own.surely_db(37.0, 2.0, BOLD) == 37.0
    assert own.style_for_speed(2.0) == own.style_for_psnr(30.0) == STYLES[0]
    assert own.leading() == ()


def test_leading_checks_are_surpassed_by_none(known):
    assert [(c.speedup, c.got_psnr_db) for c in known.leading()] == [(2.0, 46.0), (4.0, 30.0)]


def test_checks_that_others_do_not_foretell_make_the_margin_wider():
    """Three between others miss by 2, -2 and 2 dB of a line; t of 3 degrees of freedom at 0.95."""
    smooth = Likeness([check(speed, 45.0 - speed) for speed in (1.0, 2.0, 3.0, 4.0, 5.0)])
    assert smooth.surely_db(40.0, 2.5, SAFE) == pytest.approx(42.5)
    level = (40.0, 42.0, 40.0, 42.0, 40.0)
    rough = Likeness([check(s, db) for s, db in zip((1.0, 2.0, 3.0, 4.0, 5.0), level, strict=True)])
    assert rough.surely_db(40.0, 3.0, SAFE) == pytest.approx(40.0 - 2.3534 * 2.0, abs=0.01)
    # Videos and plans are unsure by themselves, so squares add up.
    both = Likeness([check(s, db, doubt_db=1.0) for s, db in zip(range(1, 6), level, strict=True)])
    margin = math.hypot(MARGIN, 2.3534 * 2.0)
    assert both.surely_db(40.0, 3.0, SAFE) == pytest.approx(40.0 - margin, abs=0.01)
