import numpy as np
import pytest

from weft.core.errors import InputError
from weft.tokens.meso import team_size


def runs(noise, count=200, seed=0):
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 9, count)
    usd = 0.3 * n + 0.05 * n * (n - 1) / 2 + noise * rng.standard_normal(count)
    return n, usd, 2.0 * n**0.5 * np.exp(noise * rng.standard_normal(count))


def test_without_noise_it_is_the_best_whole_number():
    n, usd, worth = runs(0.0)
    found = team_size(n, usd, worth, draws=20)
    sizes = np.arange(1, 30)
    best = sizes[np.argmax(2.0 * sizes**0.5 - 0.3 * sizes - 0.05 * sizes * (sizes - 1) / 2)]
    assert found.agents.value == best
    assert (found.each_usd.value, found.pair_usd.value) == pytest.approx((0.3, 0.05))


def test_intervals_hold_what_is_true():
    found = team_size(*runs(0.1))
    assert 0.3 in found.each_usd and 0.05 in found.pair_usd and 0.5 in found.exponent
    assert found.agents.low <= 4 <= found.agents.high


def test_two_sizes_tell_no_curve():
    with pytest.raises(InputError, match=r"sizes \[1, 2\]"):
        team_size([1, 2, 1], [1, 2, 1], [1, 1, 1])
