import numpy as np
import pytest

from tests.unit.tokens.macro.test_batching import SIZES, TIMES
from weft.core.errors import InputError
from weft.tokens.macro import BatchServer, Kind, externality, request_tolls, tariff
from weft.tokens.serving import ResourceTime, StepTimes

RATES, COSTS = np.array([1.0, 2.0, 0.5]), np.array([0.01, 0.002, 0.0])
SERVER = BatchServer(TIMES, SIZES)


def test_tolls_of_sizes_that_come_are_their_externalities():
    found = request_tolls(SERVER, RATES, COSTS, SIZES)
    assert found == pytest.approx(externality(SERVER.response(RATES), RATES, COSTS))


def test_prices_of_classes_are_what_a_token_more_costs():
    sizes = [Kind(fresh=k.fresh, cached=k.cached, output=k.output + 1) for k in SIZES]
    more = request_tolls(SERVER, RATES, COSTS, sizes)
    slope = (RATES / RATES.sum()) @ (more - request_tolls(SERVER, RATES, COSTS, SIZES))
    assert tariff(SERVER, RATES, COSTS).output_usd == pytest.approx(float(slope), rel=0.05)


def test_prices_rise_with_load_and_cached_tokens_cost_less():
    low, high = (tariff(SERVER, RATES * scale, COSTS) for scale in (1.0, 2.5))
    assert low.load < high.load
    for name in ("request_usd", "fresh_usd", "output_usd", "delay_s", "token_s"):
        assert getattr(low, name) < getattr(high, name)
    assert 0.0 <= high.cached_usd < high.fresh_usd < high.output_usd


def test_who_does_not_mind_waiting_makes_no_toll():
    found = tariff(SERVER, RATES, np.zeros(3))
    assert (found.request_usd, found.fresh_usd, found.output_usd) == (0.0, 0.0, 0.0)


def test_where_prompts_take_nothing_only_answers_cost():
    times = StepTimes((ResourceTime("memory", fixed_s=0.01, sequence_s=1e-3),), 10**7)
    found = tariff(BatchServer(times, (Kind(fresh=500, output=100),)), np.array([5.0]), np.ones(1))
    assert found.fresh_usd == pytest.approx(0.0, abs=1e-9)
    assert found.output_usd > 0.0


def test_numbers_of_kinds_have_to_agree():
    with pytest.raises(InputError, match="2 rates"):
        tariff(SERVER, RATES[:2], COSTS)
