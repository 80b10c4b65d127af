import pytest

from weft.core.errors import InputError
from weft.tokens.meso import checking

CASE = {
    "check_usd": 0.1,
    "wrong": 0.05,
    "caught": 0.8,
    "damage_usd": 1.0,
    "saving_usd": 0.2,
    "stake_usd": 1.0,
}


def test_just_enough_is_checked_that_corners_are_not_cut():
    found = checking(**CASE)
    assert found.share * CASE["stake_usd"] * CASE["caught"] == pytest.approx(CASE["saving_usd"])
    assert found.usd_per_task == pytest.approx(0.025)


def test_all_is_checked_where_a_check_mends_more_than_it_costs():
    assert checking(**CASE | {"damage_usd": 3.0}).share == 1.0


def test_a_stake_that_is_too_small_is_said():
    found = checking(**CASE | {"stake_usd": 0.1})
    assert found.share == 1.0 and not found.is_enough
    assert not checking(**CASE | {"caught": 0.0}).is_enough


def test_what_saves_nothing_needs_no_check():
    assert checking(**CASE | {"saving_usd": 0.0}).share == 0.0
    with pytest.raises(InputError, match="shares from 0 to 1"):
        checking(**CASE | {"wrong": 2.0})
