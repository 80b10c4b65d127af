from decimal import Decimal

import numpy as np
import pytest

from weft.tokens.prices import Cost
from weft.tokens.prices.passing import pass_cost


def each(amount):
    return Cost(Decimal(str(amount)), Decimal(str(amount)))


def test_those_that_failed_were_paid_for_too():
    told = pass_cost([each(1), each(2), each(3), each(6)], [True, False, True, False])
    assert told.usd == (6.0, 6.0)
    assert (told.tasks, told.passed) == (4, 2)


def test_if_all_pass_at_one_price_nothing_is_uncertain():
    told = pass_cost([each(3)] * 50, [True] * 50)
    assert (told.low, told.high) == pytest.approx((3.0, 3.0))


def test_if_none_passes_the_cost_is_known_from_below():
    told = pass_cost([each(1)] * 20, [False] * 20)
    assert told.usd == (None, None)
    assert told.high is None
    # 1 - 0.025^(1/20) is the share of passes that still leaves 20 failures in 40 cases.
    assert told.low == pytest.approx(1.0 / 0.16843, rel=1e-4)


def test_what_is_unknown_of_the_costs_is_in_the_interval():
    loose = [Cost(Decimal(1), Decimal(3))] * 400
    told = pass_cost(loose, [True, False] * 200)
    assert told.usd == (2.0, 6.0)
    assert told.low < 2.0 and told.high > 6.0
    assert pass_cost([Cost(Decimal(1), None)] * 3, [True] * 3).high is None


@pytest.mark.slow
@pytest.mark.parametrize("count", [300, 3000])
def test_intervals_hold_the_truth_about_as_often_as_they_say(count):
    rng = np.random.default_rng(1)
    truth, held, worlds = 1.5 / 0.6, 0, 60
    for _ in range(worlds):
        passed = rng.random(count) < 0.6
        # Failures cost more: means of 1.2 and 1.95 give 1.5 in all.
        costs = rng.exponential(np.where(passed, 1.2, 1.95))
        told = pass_cost([each(round(c, 6)) for c in costs], list(map(bool, passed)))
        held += told.low <= truth <= told.high
    assert (
        held >= 0.85 * worlds
    )  # 95 % are expected; fewer than 85 % would be one case in a thousand


def test_the_same_seed_gives_the_same_interval():
    costs, passed = [each(n) for n in range(1, 30)], [n % 3 > 0 for n in range(1, 30)]
    assert pass_cost(costs, passed, seed=4) == pass_cost(costs, passed, seed=4)
    assert pass_cost(costs, passed, seed=4) != pass_cost(costs, passed, seed=5)
