import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.tokens import Money, usd
from weft.tokens.budgets.reserving import CallPrice, Outputs


@pytest.mark.parametrize(("alpha", "least"), [(0.5, 1), (0.1, 9), (0.01, 99)])
def test_a_group_is_asked_from_the_first_call_at_which_its_quantile_is_valid(alpha, least):
    outputs = Outputs(alpha=alpha)
    for _ in range(least - 1):
        outputs.observe("m", "t", 7)
    assert outputs.quote("m", "t", 100).tokens == 100
    outputs.observe("m", "t", 7)
    assert outputs.quote("m", "t", 100).tokens == 7


def test_exceedance_stays_within_alpha_at_a_small_sample():
    # Continuous lengths, so the law is exact: the next of 10 exceeds rank 10 of 9 + 1 in 1 of 10.
    drawn = random.Random(5)
    over = 0
    for _ in range(4000):
        outputs = Outputs(alpha=0.1)
        for _ in range(12):
            outputs.observe("m", "t", int(drawn.lognormvariate(10, 2)))
        over += int(drawn.lognormvariate(10, 2)) > outputs.quote("m", "t", 10**9).tokens
    # rank 12 of 12: exactly 1/13; four standard errors around it
    assert abs(over / 4000 - 1 / 13) < 4 * (1 / 13 * 12 / 13 / 4000) ** 0.5


def test_larger_groups_are_asked_where_a_smaller_one_has_seen_too_little():
    outputs = Outputs(alpha=0.5)
    outputs.observe("m", "t", 5)
    assert outputs.quote("m", "t", 100).group == ("m", "t")
    assert outputs.quote("m", "other", 100).group == ("m",)
    assert outputs.quote("n", "t", 100).group == ()


def test_what_was_cut_counts_as_longer_than_anything():
    outputs = Outputs(alpha=0.5)
    for _ in range(3):
        outputs.observe("m", "t", 5, cut=True)
    assert outputs.quote("m", "t", 100).tokens == 100


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.integers(2, 20))
def test_only_the_latest_are_remembered(lengths, window):
    outputs, fresh = Outputs(alpha=0.5, window=window), Outputs(alpha=0.5)
    for length in lengths:
        outputs.observe("m", "t", length)
    for length in lengths[-window:]:
        fresh.observe("m", "t", length)
    assert outputs.quote("m", "t", 100) == fresh.quote("m", "t", 100)


@given(st.integers(1, 10**6), st.integers(1, 10**12), st.integers(0, 10**9))
def test_the_longest_answer_within_an_amount_costs_at_most_that(tokens, million, fixed):
    price = CallPrice(fixed=Money(fixed), million=Money(million))
    cost = price.cost(tokens)
    longest = price.tokens(cost)
    assert longest >= tokens
    assert price.cost(longest) <= cost


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match=r"alpha 0\.01, window 50"):
        Outputs(alpha=0.01, window=50)
    with pytest.raises(InputError, match="reserve at least"):
        CallPrice(fixed=usd(1), million=usd(1)).tokens(usd("0.5"))
