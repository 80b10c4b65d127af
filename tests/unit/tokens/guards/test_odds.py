import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.tokens.guards import Odds, chance_bound, learn_odds


def at_most(seen, of, chance):
    """The binomial tail, summed exactly."""
    return sum(math.comb(of, k) * chance**k * (1.0 - chance) ** (of - k) for k in range(seen + 1))


@given(st.integers(1, 300), st.data(), st.sampled_from([0.1, 0.01, 1e-4]))
def test_with_the_bound_so_few_are_seen_as_often_as_doubt_allows(of, data, doubt):
    seen = data.draw(st.integers(0, of - 1))
    bound = chance_bound(seen, of, doubt)
    assert seen / of < bound < 1.0
    assert at_most(seen, of, bound) == pytest.approx(doubt, rel=1e-2)


def test_bounds_are_too_low_as_seldom_as_stated():
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        own = learn_odds(rng.random(200), doubt=0.1)
        beyond = 1.0 - np.array(own.thresholds)
        wrong += bool((beyond > np.array(own.chances)).any())
    assert wrong <= 30 + 3 * math.sqrt(30)


def test_scores_that_come_in_clumps_raise_chances():
    rng = np.random.default_rng(1)
    state = np.cumsum(rng.random(2000) < 1.0 / 20.0) % 2
    clumped = state + rng.random(2000)
    alone = learn_odds(rng.permutation(clumped), doubt=0.01)
    own = learn_odds(clumped, doubt=0.01)
    assert own.clumping > 5.0 > 2.5 > alone.clumping >= 1.0
    assert all(a > b for a, b in zip(own.chances, alone.chances, strict=True))


@pytest.mark.parametrize("scores", [[1.0] * 50, [1.0] * 10 + [2.0] * 40, [1.0] * 5 + [math.inf]])
def test_equal_and_infinite_scores_are_on_one_side(scores):
    own = learn_odds(scores, doubt=0.01)
    for threshold, chance in zip(own.thresholds, own.chances, strict=True):
        assert math.isfinite(threshold)
        assert chance >= np.mean(np.array(scores) > threshold)
    assert learn_odds([math.inf] * 9, doubt=0.01).thresholds == ()


def test_what_is_a_little_higher_is_tolerated():
    strict, lenient = (learn_odds(range(100), doubt=0.1, tolerance=own) for own in (0.0, 5.0))
    assert np.allclose(np.subtract(lenient.thresholds, strict.thresholds), 5.0)
    assert lenient.chances == strict.chances


@pytest.mark.parametrize("scores", [[], [1.0, math.nan]])
def test_scores_that_are_none_are_refused(scores):
    with pytest.raises(InputError, match="longer log"):
        learn_odds(scores, doubt=0.1)


def test_thresholds_that_do_not_rise_are_refused():
    with pytest.raises(InputError, match="rise"):
        Odds(thresholds=(2.0, 1.0), chances=(0.1, 0.2))
