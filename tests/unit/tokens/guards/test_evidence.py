import itertools

import numpy as np
import pytest

from weft.tokens.guards.evidence import BETS, capital, part, play, returns, unbegun


@pytest.mark.parametrize("horizon", [None, 4, 20])
def test_what_has_begun_and_what_has_not_are_all_of_the_capital(horizon):
    steps = 20 if horizon is None else min(horizon, 20)
    begun = sum(part(step, horizon) for step in range(1, steps + 1))
    assert begun + unbegun(steps, horizon) == pytest.approx(1.0)
    assert all(part(step, horizon) > 0.0 for step in range(1, 100))


def test_parts_last_for_ever():
    assert unbegun(10**9) > 0.03
    assert part(10**6) * 10**6 > 1e-3


@pytest.mark.parametrize("horizon", [None, 7])
def test_at_the_chances_that_are_bounds_capital_is_expected_to_stay(horizon):
    # All sequences of seven scores, each beyond neither, the lower or both of two thresholds.
    chances = np.array([0.4, 0.1])
    weights = {(0.0, 0.0): 0.6, (1.0, 0.0): 0.3, (1.0, 1.0): 0.1}
    expected = 0.0
    for scores in itertools.product(weights, repeat=7):
        played = np.zeros((2, len(BETS)))
        for step, own in enumerate(scores, start=1):
            played = play(played, part(step, horizon), returns(np.array(own), chances))
        expected += np.prod([weights[own] for own in scores]) * capital(played, 7, horizon)
    assert expected == pytest.approx(1.0)


def test_several_streams_go_side_by_side():
    exceeded = np.array([[1.0, 0.0], [0.0, 0.0]])
    both = play(np.zeros((2, 2, 3)), 0.5, returns(exceeded, np.array([0.5, 0.1])))
    one = play(np.zeros((2, 3)), 0.5, returns(exceeded[0], np.array([0.5, 0.1])))
    assert np.allclose(both[0], one) and capital(both, 1).shape == (2,)


def test_capital_has_an_end_and_no_threshold_is_no_bet():
    played = np.full((1, 3), 1e300)
    assert np.isfinite(capital(play(played, 0.0, returns(np.ones(1), np.full(1, 1e-3))), 5))
    nothing = play(np.zeros((0, 3)), 0.5, returns(np.zeros(0), np.zeros(0)))
    assert capital(nothing, 1) == unbegun(1)
