from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.tokens import Count, TokenClass, Usage, usd
from weft.tokens.prices import FREE, UNPRICED, Cost, Rates, Step, cost
from weft.tokens.prices.rates import unknown_rates

PRICES = {
    TokenClass.FRESH: Decimal("0.00000125"),
    TokenClass.CACHE_READ: Decimal("0.000000125"),
    TokenClass.TEXT: Decimal("0.00001"),
}
RATES = Rates(provider="openai", model="gpt-5", steps=(Step(usd=PRICES),))
SIZES = st.integers(0, 10**7)


def test_the_worked_example_is_exact():
    used = Usage.of(fresh=4_000, cache_read=16_000, text=500, reasoning=2_500)
    assert cost(used, RATES) == Cost(Decimal("0.037"), Decimal("0.037"))


@given(SIZES, SIZES, SIZES, SIZES)
def test_known_counts_have_one_price(fresh, cached, text, reasoning):
    used = Usage.of(fresh=fresh, cache_read=cached, text=text, reasoning=reasoning)
    found = cost(used, RATES)
    assert found.is_exact
    assert found.low * 10**9 == 1250 * fresh + 125 * cached + 10_000 * (text + reasoning)


@given(SIZES, SIZES, SIZES)
def test_a_usage_that_is_known_less_well_holds_the_price_of_what_it_may_be(fresh, cached, text):
    whole = fresh + cached
    loose = Usage.of(
        fresh=Count(0, whole), cache_read=Count(0, whole), text=Count(0, text), input=whole
    )
    bounds = cost(loose, RATES)
    for exact in (
        Usage.of(fresh=fresh, cache_read=cached, text=text),
        Usage.of(fresh=whole),
        Usage.of(cache_read=whole, text=text),
    ):
        assert bounds.low <= cost(exact, RATES).low <= bounds.high
    assert bounds.low == cost(Usage.of(cache_read=whole), RATES).low
    assert bounds.high == cost(Usage.of(fresh=whole, text=text), RATES).high


@given(st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=5))
def test_bounds_of_a_sum_are_sums_of_bounds(sizes):
    usages = [
        Usage.of(fresh=Count(0, whole), cache_read=Count(0, whole), input=whole, text=text)
        for whole, text in sizes
    ]
    assert cost(sum(usages, Usage()), RATES) == sum((cost(u, RATES) for u in usages), FREE)


def test_what_nothing_limits_has_no_upper_price():
    found = cost(Usage.of(fresh=Count(1000, None)), RATES)
    assert found == Cost(Decimal("0.00125"), None)


def test_a_class_without_a_price_leaves_the_rest_as_a_lower_bound():
    found = cost(Usage.of(fresh=1000, audio_in=5), RATES)
    assert found == Cost(Decimal("0.00125"), None)


def test_a_model_without_a_price_costs_nobody_knows_what():
    rates = unknown_rates("p", "m", "no such model")
    assert cost(Usage.of(fresh=1), rates) == UNPRICED
    assert cost(Usage(), rates) == FREE


DEAR = Step(above=200, usd={leaf: 2 * price for leaf, price in PRICES.items()})
STEPPED = Rates(provider="", model="", steps=(RATES.steps[0], DEAR))


@pytest.mark.parametrize(("size", "factor"), [(200, 1), (201, 2)])
def test_a_long_call_is_dearer_as_a_whole(size, factor):
    found = cost(Usage.of(fresh=size, text=1), STEPPED)
    assert found.low == factor * (size * PRICES[TokenClass.FRESH] + PRICES[TokenClass.TEXT])


def test_a_call_that_may_be_long_is_priced_at_both_steps():
    found = cost(Usage.of(fresh=Count(100, 300)), STEPPED)
    assert found.low == 100 * PRICES[TokenClass.FRESH]
    assert found.high == 600 * PRICES[TokenClass.FRESH]


def test_money_is_rounded_once_and_up_at_the_upper_end():
    found = Cost(Decimal("0.0000000001"), Decimal("0.0000000001"))
    assert found.money() == (usd(0), usd("0.000000001"))
    assert UNPRICED.money() == (usd(0), None)


def test_many_short_calls_are_not_one_long_one():
    used = Usage.of(fresh=100_000, text=500)
    assert cost(used, STEPPED, size=Count(0, 200)) == cost(used, RATES)
    assert cost(used, STEPPED, size=Count(201, None)).low == 2 * cost(used, RATES).low
