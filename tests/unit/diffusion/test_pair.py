"""What is said of a pair of models by how far they are from each other."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import FileError, InputError, MismatchError
from weft.diffusion.pair import Disagreement, load_disagreement, save_disagreement
from weft.diffusion.validity import Validity

RUNS = Validity(pipeline="P", denoiser="L", scheduler="S", guidance=5.0, shape=(4, 2))


def pair(*values, positions=None):
    levels = positions or tuple(1000.0 - 100.0 * n for n in range(len(values)))
    return Disagreement(holds_for=RUNS, small="s", positions=levels, values=values, prompts=2)


@given(st.lists(st.floats(0.0, 9.0), min_size=2, max_size=40))
def test_a_pair_survives_json(values):
    own = pair(*values)
    assert Disagreement.from_json(own.to_json()) == own


def test_a_pair_survives_a_file(tmp_path):
    save_disagreement(pair(0.3, 0.2), tmp_path / "pair.json")
    assert load_disagreement(tmp_path / "pair.json") == pair(0.3, 0.2)


@pytest.mark.parametrize(
    ("values", "trend", "keeps"),
    [
        ((0.4, 0.3, 0.2, 0.1), -1.0, True),
        ((0.1, 0.2, 0.3, 0.4), 1.0, False),
        ((0.2, 0.2, 0.2, 0.2), 0.0, False),
        ((0.1, 0.9, 0.2, 0.3), 0.4, False),  # less on average later on, and yet no fall
        ((0.5, 0.4, 0.9, 0.1, 0.2), -0.6, True),  # the one in the middle is of neither half
    ],
)
def test_the_premise_is_a_fall_on_average_and_in_order(values, trend, keeps):
    own = pair(*values)
    assert own.trend == pytest.approx(trend)
    assert own.keeps_the_premise is keeps


def test_halves_are_averaged():
    own = pair(0.5, 0.4, 0.9, 0.1, 0.2)
    assert (own.early, own.late) == pytest.approx((0.45, 0.15))
    assert "45.0%" in str(own) and "15.0%" in str(own) and "-0.60" in str(own)


def test_the_steps_of_best_agreement_need_not_follow_each_other():
    own = pair(0.5, 0.1, 0.4, 0.2, 0.2)
    assert own.least(own.positions, 0) == frozenset()
    assert own.least(own.positions, 2) == {1, 4}  # of equals the later
    assert own.least(own.positions, 5) == set(range(5))


def test_other_steps_are_interpolated_whichever_way_noise_is_counted():
    own = pair(0.4, 0.2, 0.0)
    assert own.at((1000.0, 950.0, 900.0, 800.0)) == pytest.approx((0.4, 0.3, 0.2, 0.0))
    rising = replace(own, positions=(0.0, 100.0, 200.0))
    assert rising.at((0.0, 50.0)) == pytest.approx((0.4, 0.3))


def test_another_pair_is_refused():
    pair(0.2, 0.1).require_pair("L", "s")
    with pytest.raises(MismatchError, match="large"):
        pair(0.2, 0.1).require_pair("other", "s")
    with pytest.raises(MismatchError, match="small"):
        pair(0.2, 0.1).require_pair("L", "other")


@pytest.mark.parametrize("values", [(0.1,), (0.1, -0.1), (0.1, float("nan"))])
def test_values_that_are_none_are_refused(values):
    with pytest.raises(InputError, match="at least 0"):
        pair(*values)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda plain: plain | {"version": 2},
        lambda plain: plain | {"weft": "denoise plan"},
        lambda plain: plain | {"values": [0.1]},
        lambda plain: plain | {"holds_for": {}},
        lambda plain: [plain],
    ],
)
def test_what_is_no_disagreement_is_refused(spoil, tmp_path):
    path = tmp_path / "pair.json"
    path.write_text(json.dumps(spoil(json.loads(pair(0.2, 0.1).to_json()))))
    with pytest.raises(FileError, match=r"pair\.json"):
        load_disagreement(path)
