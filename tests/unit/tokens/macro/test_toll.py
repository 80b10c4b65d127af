import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.tokens.macro import (
    BatchServer,
    Demand,
    EvenValues,
    FifoQueue,
    Kind,
    Market,
    SkewedValues,
    best_toll,
    equilibrium,
    exponential,
    fixed,
)
from weft.tokens.serving import ResourceTime, StepTimes

TIMES = StepTimes(
    (
        ResourceTime("compute", fixed_s=1e-3, token_s=2e-5, pair_s=1e-9),
        ResourceTime("memory", fixed_s=0.010, context_token_s=1e-8, sequence_s=1e-5),
    ),
    40_000,
)
BATCHING = BatchServer(TIMES, (Kind(fresh=1000, output=200), Kind(fresh=300, output=50)))
QUEUE = FifoQueue((exponential(0.5), fixed(0.1)))


def a_group(scale, mean, cost, skewed):
    values = SkewedValues(mean_usd=mean) if skewed else EvenValues(low_usd=0, high_usd=2 * mean)
    return Demand(rate=scale, values=values, delay_usd_per_s=cost)


groups = st.builds(
    a_group, st.floats(0.2, 8.0), st.floats(0.2, 3.0), st.floats(0.01, 0.5), st.booleans()
)
markets = st.builds(
    lambda server, pair: Market(server=server, groups=pair),
    st.sampled_from([QUEUE, BATCHING]),
    st.tuples(groups, groups),
)


def searched(market, start, seed):
    """A local search that knows nothing but the welfare of rates."""
    rng = np.random.default_rng(seed)
    best, here = market.welfare(start), start
    for size in (0.3, 0.03, 0.003):
        for _ in range(12):
            there = np.clip(here + size * market.most * rng.standard_normal(2), 0, market.most)
            if market.server.load(there) < 1.0 and (found := market.welfare(there)) > best:
                best, here = found, there
    return best


@settings(max_examples=8, deadline=None)
@given(market=markets)
def test_nothing_that_is_tried_beats_the_toll(market):
    found = best_toll(market)
    assert searched(market, found.rates, 0) <= found.welfare * (1 + 1e-7) + 1e-12
    assert found.welfare >= equilibrium(market, [0.0, 0.0]).welfare - 1e-9
    assert found.revenue == pytest.approx(float(found.rates @ found.prices_usd))


@settings(max_examples=15, deadline=None)
@given(market=markets, prices=st.tuples(st.floats(0.0, 2.0), st.floats(0.0, 2.0)))
def test_in_equilibrium_everybody_sends_what_is_worth_it(market, prices):
    found = equilibrium(market, prices)
    full = np.array(prices) + market.costs * market.server.response(found.rates).delays_s
    assert found.rates == pytest.approx(market.sent(full), rel=1e-6, abs=1e-7)


def test_the_toll_of_a_queue_without_memory_is_known():
    # 4 users a second with values even from 0 to 1, c = 1/4, mu = 2: without a toll
    # (4 - r)(2 - r) = 1; with one, 1 - r / 4 = c mu / (mu - r)^2.
    users = Demand(rate=4.0, values=EvenValues(low_usd=0, high_usd=1), delay_usd_per_s=0.25)
    market = Market(server=FifoQueue((exponential(0.5),)), groups=(users,))
    assert equilibrium(market, [0.0]).rates == pytest.approx([3.0 - 2.0**0.5])
    r = float(best_toll(market).rates[0])
    assert 1.0 - r / 4.0 == pytest.approx(0.25 * 2.0 / (2.0 - r) ** 2)


@pytest.mark.parametrize(
    "values", [EvenValues(low_usd=0.5, high_usd=2.0), SkewedValues(mean_usd=0.7)]
)
def test_curves_of_values_agree_with_themselves(values):
    for share in (0.1, 0.5, 0.9):
        assert values.share(values.least(share)) == pytest.approx(share)
        slope = (values.total(share + 1e-6) - values.total(share - 1e-6)) / 2e-6
        assert slope == pytest.approx(values.least(share), rel=1e-6)
    assert values.total(0.0) == 0.0


def test_groups_need_a_kind_each():
    users = Demand(rate=4.0, values=SkewedValues(mean_usd=1), delay_usd_per_s=0.25)
    with pytest.raises(InputError, match="2 kinds for 1 groups"):
        Market(server=QUEUE, groups=(users,))
