import math
from types import SimpleNamespace

import numpy as np
import pytest

from tests.unit.tokens.macro.test_batching import TIMES
from tests.unit.tokens.macro.test_trace import drawn
from weft.core.errors import InputError
from weft.tokens.macro.clients import Client, crowd
from weft.tokens.macro.comparison import MECHANISMS, Comparison, compare, posted_toll, schedule
from weft.tokens.macro.market import run_market
from weft.tokens.macro.mechanisms import EqualShare, Free, PostedToll

CLIENTS = (
    Client(name="chat", share=0.4, value_usd=1.0, delay_usd_per_s=0.003),
    Client(name="agent", share=0.4, value_usd=0.5, delay_usd_per_s=0.001),
    Client(name="batch", share=0.2, value_usd=0.3, delay_usd_per_s=0.0001, identities=8),
)
TRACE = drawn(1500)


@pytest.fixture(scope="module")
def compared():
    return compare(TRACE, TIMES, CLIENTS, load=2.0, seeds=1, max_sequences=64)


def test_tolls_do_more_good_than_what_is_free(compared):
    assert tuple(compared.runs) == MECHANISMS
    for toll in ("posted toll", "adaptive toll"):
        for free in MECHANISMS[:4]:
            assert compared.gain(toll, free).value > 0.1
        assert compared.interval(toll, "revenue_usd").value > 0.0
        assert (
            compared.interval(toll, "delay_s").value
            < compared.interval("first come", "delay_s").value
        )


def test_runs_account_for_themselves(compared):
    for runs in compared.runs.values():
        for run in runs:
            assert 0.0 < run.sent < 1.0 and run.work > 0.0
            assert run.welfare_usd <= run.value_usd and run.delay_s <= run.late_s
            assert 1 / 3 <= run.fairness <= 1.0 and sum(run.shares) == pytest.approx(1.0)


def test_the_same_seed_gives_the_same():
    once, again = (
        compare(TRACE.first(200), TIMES, CLIENTS, load=1.0, seeds=1, mechanisms=["first come"])
        for _ in range(2)
    )
    assert once == again
    assert once.interval("first come", "sent").high == math.inf  # one draw tells no spread


def test_no_constant_price_does_much_better_than_the_posted_toll():
    those = crowd(TRACE.at_load(1.5, TIMES, 64), CLIENTS, TIMES, max_sequences=64, seed=3)
    tolls, best = posted_toll(those, TIMES, 64)
    posted = run_market(those, TIMES, PostedToll(tolls), max_sequences=64).welfare_usd
    flat = [
        run_market(those, TIMES, PostedToll(those.work_s * price), max_sequences=64).welfare_usd
        for price in np.arange(0.0, 1.0, 0.2)
    ]
    assert posted > 0.93 * max(flat) and flat[0] < 0.9 * max(flat)
    assert posted == pytest.approx(best.welfare, rel=0.2)


def test_the_fuller_a_server_the_higher_the_toll():
    present, tolls = schedule(TRACE, TIMES, 64)
    assert (np.diff(present) > 0).all() and (np.diff(tolls) > 0).all()


def test_a_limit_refuses_what_goes_beyond_an_equal_part():
    mostly = [Client(name="a", share=0.9, value_usd=50.0, delay_usd_per_s=0.0), *CLIENTS[2:]]
    mostly[1] = Client(name="b", share=0.1, value_usd=50.0, delay_usd_per_s=0.0)
    those = crowd(TRACE.at_load(0.9, TIMES, 64), mostly, TIMES, max_sequences=64, seed=0)
    free = run_market(those, TIMES, Free(), max_sequences=64)
    limited = run_market(those, TIMES, EqualShare(2, burst_s=10.0), max_sequences=64)
    assert free.sent == 1.0
    assert limited.work * limited.shares[0] == pytest.approx(0.5, abs=0.1)


def test_what_is_not_known_is_named():
    with pytest.raises(InputError, match="lottery"):
        compare(TRACE, TIMES, CLIENTS, load=1.0, mechanisms=["lottery"])
    with pytest.raises(InputError, match="add up to one"):
        crowd(TRACE, CLIENTS[:2], TIMES, max_sequences=64, seed=0)


def test_a_gain_over_a_loss_is_above_zero():
    def run(usd):
        return SimpleNamespace(welfare_usd=usd)

    runs = {"a": (run(1.0), run(1.0)), "b": (run(-1.0), run(-2.0)), "c": (run(0.0), run(0.0))}
    found = Comparison(load=1.0, runs=runs)
    assert found.gain("a", "b").value == pytest.approx((2.0 + 1.5) / 2)
    assert math.isnan(found.gain("a", "c").value)
