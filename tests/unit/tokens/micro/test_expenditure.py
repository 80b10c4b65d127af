from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import InfeasibleError, InputError
from weft.tokens.micro import (
    Ces,
    CobbDouglas,
    Estimate,
    Link,
    Mode,
    Production,
    Translog,
    cheapest,
    fit_production,
    least_cost,
    simulated,
)

NESTED = Ces((("a",), ("b", "c")))
SHAPES = [
    (CobbDouglas(), [0.2, 0.3, 0.1]),
    (Ces(), [0.7, -1.5, 0.2, -0.4]),
    (Ces(), [0.7, 0.6, 0.2, -0.4]),
    (NESTED, [0.7, -1.0, 0.2, 0.5, -0.4]),
]


def production(family, theta, link=Link.LOG, factors=("a", "b", "c")):
    values = np.array([0.1, *theta])
    return Production(
        family=family,
        link=link,
        mode=Mode.EXPERIMENTAL,
        factors=factors,
        centre=np.log([500.0, 1000.0, 200.0][: len(factors)]),
        tried=np.array([[-9.0] * len(factors), [9.0] * len(factors)]),
        models=("",),
        parameters=Estimate(values=values, influence=np.zeros((30, len(values)))),
        controls=None,
        first_stage=(),
        num_trials=100,
        num_tasks=30,
        num_arms=4,
        warnings=(),
    )


prices = st.lists(st.floats(1e-7, 1e-4), min_size=3, max_size=3).map(
    lambda p: dict(zip("abc", p, strict=True))
)


@pytest.mark.parametrize(("family", "theta"), SHAPES)
@settings(max_examples=30)
@given(at=prices, floor=st.floats(0.5, 3.0))
def test_what_is_bought_is_the_derivative_of_the_cost_and_reaches_the_floor(
    family, theta, at, floor
):
    own = production(family, theta)
    cost, tokens = least_cost(own, floor, at)
    assert sum(tokens[f] * at[f] for f in at) == pytest.approx(cost)
    assert own.outcome(tokens).value == pytest.approx(floor)
    for factor in at:
        step = 1e-5 * at[factor]
        up, down = (least_cost(own, floor, at | {factor: at[factor] + s})[0] for s in (step, -step))
        assert (up - down) / (2 * step) == pytest.approx(
            tokens[factor], rel=1e-6, abs=1e-9 * cost / at[factor]
        )


@pytest.mark.parametrize(("family", "theta"), SHAPES)
@settings(max_examples=30)
@given(at=prices, other=prices, scale=st.floats(0.1, 10.0), weight=st.floats(0.0, 1.0))
def test_cost_is_homogeneous_and_concave_in_prices(family, theta, at, other, scale, weight):
    own = production(family, theta)

    def cost(p):
        return least_cost(own, 1.5, p)[0]

    assert cost({f: scale * p for f, p in at.items()}) == pytest.approx(scale * cost(at))
    mixed = {f: weight * at[f] + (1 - weight) * other[f] for f in at}
    assert cost(mixed) >= (weight * cost(at) + (1 - weight) * cost(other)) * (1 - 1e-9)


@pytest.mark.parametrize(("family", "theta"), SHAPES)
def test_nothing_else_that_reaches_the_floor_is_cheaper(family, theta):
    own, at = production(family, theta), {"a": 1e-5, "b": 3e-6, "c": 2e-5}
    cost, tokens = least_cost(own, 1.5, at)
    rng = np.random.default_rng(0)
    best = np.log([tokens[f] for f in at]) - own.centre
    need = family.index(np.array(theta), best[None, :])[0]
    returns = own.elasticities(tokens)
    for _ in range(200):
        logs = best + 0.3 * rng.standard_normal(3)
        short = need - family.index(np.array(theta), logs[None, :])[0]
        logs = logs + short / sum(own.value for own in returns.values())  # all inputs in step
        assert float(np.exp(logs + own.centre) @ list(at.values())) >= cost * (1 - 1e-9)


def test_the_price_of_quality_is_the_slope_of_the_cost_also_with_controls():
    drawn = simulated(tasks=150, attempts=4, elasticity=0.6, difficulty=1.0, seed=2)
    fit = fit_production(drawn.trials, mode=Mode.EXPERIMENTAL)
    at = {"tokens": 1e-5}
    found = cheapest(fit, 0.6, at)
    up, down = (least_cost(fit, 0.6 + s, at)[0] for s in (1e-5, -1e-5))
    assert found.usd_per_outcome.value == pytest.approx((up - down) / 2e-5, rel=1e-6)
    assert fit.outcome({"tokens": found.tokens["tokens"].value}).value == pytest.approx(0.6)
    # The cheapest way is where one more dollar brings as much as the price of quality says.
    again = fit.usd_per_outcome("tokens", at, {"tokens": found.tokens["tokens"].value})
    assert again.value == pytest.approx(found.usd_per_outcome.value)
    assert found.usd.low < found.usd.value < found.usd.high
    assert found.explain().startswith("an outcome of 0.6 costs")


def test_tokens_beyond_what_was_tried_are_named():
    own = production(CobbDouglas(), [0.2, 0.3, 0.1])
    near = replace(own, tried=np.array([[-0.1] * 3, [0.1] * 3]))
    assert "beyond what was tried" in cheapest(near, 3.0, dict.fromkeys("abc", 1e-5)).warnings[0]


def test_what_has_no_cost_says_why():
    at = dict.fromkeys("abc", 1e-5)
    with pytest.raises(InputError, match="picture of the surroundings"):
        least_cost(production(Translog(), [0.1] * 9), 1.0, at)
    with pytest.raises(InputError, match=r"elasticity of -0\.1 for b"):
        least_cost(production(CobbDouglas(), [0.2, -0.1, 0.1]), 1.0, at)
    with pytest.raises(InputError, match="isoquants bend outward"):
        least_cost(production(Ces(), [0.7, 1.2, 0.0, 0.0]), 1.0, at)
    with pytest.raises(InfeasibleError, match="between 0 and 1"):
        least_cost(production(CobbDouglas(), [0.2] * 3, link=Link.LOGIT), 1.0, at)
    with pytest.raises(InputError, match="a price above zero for each of a, b, c"):
        least_cost(production(CobbDouglas(), [0.2] * 3), 1.0, {"a": 1e-5})
