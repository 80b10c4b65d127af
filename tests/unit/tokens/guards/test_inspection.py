import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.tokens.guards import best_interval, inspection_usd, security_price


@pytest.mark.parametrize("caught", [1.0, 0.5])
def test_the_cost_is_that_of_a_simulation(caught):
    rng = np.random.default_rng(0)
    fails = rng.exponential(200.0, 200_000)
    looks = np.ceil(fails / 30.0) + rng.geometric(caught, len(fails)) - 1.0
    total = (looks * 0.4 + 0.1 * (looks * 30.0 - fails) + 2.0).sum()
    told = inspection_usd(
        30, rate=1 / 200, damage_usd=0.1, inspect_usd=0.4, caught=caught, repair_usd=2.0
    )
    assert told == pytest.approx(total / (looks * 30.0).sum(), rel=0.01)


@given(st.floats(1e-5, 0.5), st.floats(1e-3, 10.0), st.floats(1e-4, 10.0), st.floats(0.1, 1.0))
def test_no_interval_around_is_better(rate, damage, look, caught):
    own = {"rate": rate, "damage_usd": damage, "inspect_usd": look, "caught": caught}
    best = best_interval(**own)
    others = [inspection_usd(n, **own) for n in range(1, 400)]
    others += [inspection_usd(round(n), **own) for n in np.geomspace(400, 1e9, 300)]
    assert best.usd <= min(others) * (1.0 + 1e-12)


@pytest.mark.parametrize("caught", [1.0, 0.4])
def test_for_rare_trouble_it_is_the_square_root_law(caught):
    best = best_interval(rate=1e-8, damage_usd=0.5, inspect_usd=1.0, caught=caught)
    law = math.sqrt(2.0 * 1.0 * caught / (1e-8 * 0.5 * (2.0 - caught)))
    assert best.every == pytest.approx(law, rel=0.01)


risks = st.fixed_dictionaries(
    {
        "model_usd": st.floats(0.0, 1.0),
        "check_usd": st.floats(0.0, 1.0),
        "check_s": st.floats(0.0, 10.0),
        "wage_usd_per_s": st.floats(0.0, 0.1),
        "wrong": st.floats(0.0, 0.5),
        "caught": st.floats(0.0, 1.0),
        "damage_usd": st.floats(0.0, 10.0),
        "tempted": st.floats(0.0, 0.5),
        "gain_usd": st.floats(0.01, 5.0),
        "stake_usd": st.floats(0.0, 10.0),
    }
)


@given(risks)
def test_no_share_of_checks_is_cheaper(own):
    def usd(share):
        pays = own["gain_usd"] > share * own["caught"] * own["stake_usd"]
        bad = own["wrong"] + own["tempted"] * pays
        check = own["check_usd"] + own["check_s"] * own["wage_usd_per_s"]
        loss = bad * (1.0 - share * own["caught"]) * own["damage_usd"]
        return own["model_usd"] + share * check + loss

    priced = security_price(**own)
    assert priced.usd <= min(map(usd, np.linspace(0.0, 1.0, 101))) + 1e-9
    assert priced.usd == pytest.approx(priced.model_usd + priced.check_usd + priced.loss_usd)
    assert priced.unchecked_usd == pytest.approx(usd(0.0))
    assert priced.usd <= min(priced.unchecked_usd, priced.all_checked_usd) + 1e-12


def test_a_check_pays_for_itself_from_the_break_even_on():
    at = {"model_usd": 0.01, "check_usd": 0.02, "caught": 0.8, "damage_usd": 1.0}
    even = security_price(wrong=0.0, **at).even_wrong
    assert even == pytest.approx(0.025)
    assert security_price(wrong=even * 0.99, **at).share == 0.0
    assert security_price(wrong=even * 1.01, **at).share == 1.0


@pytest.mark.parametrize(
    "wrong", [{"check_s": -1.0}, {"tempted": 1.0}, {"caught": 2.0}, {"damage_usd": -1.0}]
)
def test_risks_that_cannot_be_are_refused(wrong):
    own = {"model_usd": 0.01, "check_usd": 0.02, "wrong": 0.1, "caught": 0.8, "damage_usd": 1.0}
    with pytest.raises(InputError):
        security_price(**{**own, **wrong})


def test_inspections_that_cannot_be_are_refused():
    with pytest.raises(InputError):
        inspection_usd(0, rate=0.1, damage_usd=1.0, inspect_usd=1.0)
    with pytest.raises(InputError):
        best_interval(rate=0.1, damage_usd=1.0, inspect_usd=1.0, caught=0.0)
