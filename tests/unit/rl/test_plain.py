"""Decisions in plain numbers are those made on tensors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weft.rl.alignment import Mode, Regime, Thresholds, decide_all, summarise
from weft.rl.plain import decide_plainly, summarise_plainly

SIZES = st.sampled_from([0.0, 1e-30, 0.3, 1.0, 2.5, 1e12])


@st.composite
def products(draw):
    """Of vectors that there are: a norm for each, and a cosine."""
    one, other = draw(SIZES), draw(SIZES)
    cosine = draw(st.sampled_from([-1.0, 0.0, 1.0]) | st.floats(-1.0, 1.0))
    return (one * one, cosine * one * other, other * other)


@given(
    st.lists(products(), min_size=1, max_size=4),
    st.sampled_from([(0.0, None), (0.1, None), (0.2, 0.6), (0.0, 1.0)]),
    st.sampled_from(list(Mode)),
    st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
)
def test_they_are_those_on_tensors(rows, bounds, mode, flags):
    invalid, first, may_act, may_skip = flags
    options = {
        "thresholds": Thresholds(cosine_low=bounds[0], cosine_high=bounds[1]),
        "mode": mode,
        "may_act": may_act,
        "may_skip": may_skip,
    }
    found = decide_plainly(rows, invalid=invalid, first=first, **options)
    gram = torch.tensor([[[g, d], [d, r]] for g, d, r in rows], dtype=torch.float64)
    flagged = {"invalid": torch.tensor(invalid), "first": torch.tensor(first)}
    decisions = decide_all(gram, **flagged, **options)
    wanted = decisions.read()
    for row, own, other in zip(rows, found, wanted, strict=True):
        assert own.regime is other.regime
        assert own.scale == pytest.approx(other.scale, rel=1e-7, abs=1e-7)
        assert own.factors == pytest.approx(other.factors, rel=1e-9)
        assert (own.cosine_raw, own.norm_raw) == pytest.approx((other.cosine_raw, other.norm_raw))
        # Where nearly nothing is left, its norm and direction are noise.
        assert own.norm_applied == pytest.approx(
            other.norm_applied, rel=1e-6, abs=1e-7 * math.sqrt(row[0])
        )
        if own.norm_applied > 1e-5 * own.norm_raw:
            assert own.cosine_applied == pytest.approx(other.cosine_applied, abs=1e-6)
    regime, *numbers = summarise_plainly(rows, found)
    own = summarise(gram, decisions).tolist()
    assert regime is Regime(int(own[0])) and numbers[0] == pytest.approx(own[1])
    assert numbers[2:] == pytest.approx(own[3:], rel=1e-6, abs=1e-7 * numbers[2])
    if numbers[3] > 1e-5 * numbers[2]:
        assert numbers[1] == pytest.approx(own[2], abs=1e-6)


def test_what_is_left_of_a_repetition_is_nothing():
    (found,) = decide_plainly([(4.0, 2.0, 1.0)], thresholds=Thresholds())
    assert (found.regime, found.factors, found.scale) == (Regime.PROJECT, (0.0,), 0.0)
    assert (found.norm_applied, found.cosine_applied) == (0.0, 0.0)
