import numpy as np
import pytest

from weft.core.errors import InputError
from weft.tokens.micro import (
    Candidate,
    CobbDouglas,
    Criterion,
    Knowledge,
    Link,
    Mode,
    design,
    fit_production,
    simulated,
    verdict,
)

ARMS = [
    Candidate(name=str(tokens), tokens={"tokens": float(tokens)}, usd=tokens * 1e-5)
    for tokens in (250, 500, 1000, 2000, 4000)
]


def known(doubt=(1.0, 1.0), link=Link.LOG):
    return Knowledge.supposed(CobbDouglas(), {"tokens": 1000.0}, (0.0, 0.5), doubt, link)


def error(knowledge, counts, factor="tokens"):
    by_name = {arm.name: arm for arm in ARMS}
    told = sum(n * knowledge.told_by(by_name[name]) for name, n in counts.items())
    c = knowledge.log_marginal(factor)
    return float(np.sqrt(c @ np.linalg.solve(knowledge.information + told, c)))


def test_no_split_on_a_grid_tells_more():
    own = known()
    found = design(own, ARMS[::2], usd=1.0, factor="tokens")
    assert found.after == pytest.approx(error(own, found.attempts))
    best = min(
        error(own, {"250": a / 250e-5, "1000": b / 1000e-5, "4000": (1 - a - b) / 4000e-5})
        for a in np.linspace(0, 1, 41)
        for b in np.linspace(0, 1 - a, 41)
    )
    assert found.after <= best * 1.02
    assert found.efficiency > 0.999
    assert found.usd <= 1.0 + 1e-9


def test_arms_of_one_price_are_drawn_at_both_ends_and_equally():
    alike = [Candidate(name=a.name, tokens=a.tokens, usd=0.01) for a in ARMS]
    own = Knowledge.supposed(CobbDouglas(), {"tokens": 1000.0}, (0, 0.5), (99, 99), Link.IDENTITY)
    found = design(own, alike, usd=2.0, factor="tokens", criterion=Criterion.ALL)
    assert found.attempts["250"] == pytest.approx(100, abs=2)
    assert found.attempts["4000"] == pytest.approx(100, abs=2)


def test_what_a_pilot_says_is_predicted_to_be_what_it_said():
    drawn = simulated(tasks=400, attempts=4, elasticity=0.5, difficulty=1.0, seed=0)
    fit = fit_production(drawn.trials, mode=Mode.EXPERIMENTAL)
    marginal = fit.marginal("tokens")
    said = float(marginal.errors[0] / marginal.values[0])
    found = design(Knowledge.of(fit), ARMS, usd=1.0, factor="tokens")
    assert found.before == pytest.approx(said, rel=0.25)
    assert found.after < found.before
    assert "one standard error" in found.explain()


def test_the_predicted_error_is_that_of_the_larger_experiment():
    small, large = (
        fit_production(
            simulated(tasks=t, attempts=4, elasticity=0.5, difficulty=1.0, seed=5).trials,
            mode=Mode.EXPERIMENTAL,
        )
        for t in (150, 1200)
    )
    # As many more attempts under the same arms as the larger experiment has.
    own = Knowledge.of(small)
    names = (354, 707, 1414, 2828)
    arms = [Candidate(name=str(t), tokens={"tokens": float(t)}, usd=1.0) for t in names]
    told = sum(own.told_by(arm) for arm in arms) * (1050 * 4 / 4)
    c = own.log_marginal("tokens")
    predicted = float(np.sqrt(c @ np.linalg.solve(own.information + told, c)))
    marginal = large.marginal("tokens")
    assert predicted == pytest.approx(float(marginal.errors[0] / marginal.values[0]), rel=0.35)


def test_it_stops_when_enough_is_known_and_not_before():
    few, many = (
        fit_production(
            simulated(tasks=t, attempts=4, elasticity=0.5, difficulty=1.0, seed=1).trials,
            mode=Mode.EXPERIMENTAL,
        )
        for t in (60, 3000)
    )
    price = {"tokens": 1e-5}
    assert not verdict(few, "tokens", price, tolerance=0.3).stop
    assert verdict(many, "tokens", price, tolerance=0.3).stop
    sure = verdict(few, "tokens", price, tolerance=0.3, worth_usd=1e-4)
    assert sure.stop and "costs more than the 0.0001 usd" in sure.reason


def test_one_arm_is_no_experiment():
    with pytest.raises(InputError, match="two arms or more"):
        design(known(), ARMS[:1], usd=1.0, factor="tokens")
