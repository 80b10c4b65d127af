import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.tokens.macro import fair_shares


@st.composite
def shops(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    users, resources = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    uses = rng.random((resources, users)) * (rng.random((resources, users)) < 0.6)
    uses[0] += 0.1
    most = np.exp(rng.normal(-2, 2, users))
    most = np.where(rng.random(users) < draw(st.sampled_from([0.0, 0.5, 1.0])), most, np.inf)
    weights = np.exp(rng.normal(0, 2, users))
    return weights, uses, np.exp(rng.normal(0, 2, resources)), most


@settings(max_examples=150, deadline=None)
@given(shop=shops())
def test_shares_and_prices_prove_each_other(shop):
    weights, uses, capacities, most = shop
    found = fair_shares(*shop)
    assert (uses @ found.shares <= capacities * (1 + 1e-9)).all()
    assert (found.shares <= most * (1 + 1e-9)).all() and (found.prices >= 0).all()
    assert found.bound - found.value <= 1e-9 * weights.sum()
    # The conditions of Karush, Kuhn and Tucker: all pay their weight, or have all that they want.
    paid = found.prices @ uses * found.shares
    wants_more = found.shares < most * (1 - 1e-5)
    assert paid[wants_more] == pytest.approx(weights[wants_more], rel=1e-4)
    assert (paid <= weights * (1 + 1e-4)).all()
    assert found.prices @ (capacities - uses @ found.shares) <= 1e-6 * weights.sum()


@given(
    weights=st.lists(st.floats(0.1, 10.0), min_size=2, max_size=8),
    wants=st.lists(st.floats(0.05, 2.0), min_size=8, max_size=8),
)
def test_one_resource_is_filled_like_water(weights, wants):
    weights, wants = np.array(weights), np.array(wants[: len(weights)])
    found = fair_shares(weights, np.ones((1, len(weights))), np.array([1.0]), wants)
    if wants.sum() <= 1.0:
        assert found.shares == pytest.approx(wants)
        return
    low, high = 0.0, 100.0
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if np.minimum(wants, weights * level).sum() < 1 else (low, level)
    assert found.shares == pytest.approx(np.minimum(wants, weights * low), rel=1e-6)


def test_a_path_over_two_links_gets_half_of_what_short_ones_leave():
    # Kelly's example: one user over both links, one over each.
    uses = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    assert fair_shares(np.ones(3), uses, np.ones(2)).shares == pytest.approx([1 / 3, 2 / 3, 2 / 3])


def test_who_nothing_limits_is_refused():
    with pytest.raises(InputError, match="something that limits each user"):
        fair_shares(np.ones(2), np.array([[1.0, 0.0]]), np.ones(1))
