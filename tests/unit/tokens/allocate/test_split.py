import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.tokens.allocate import OddsCurve, PowerCurve, SaturatingCurve, StepCurve, split_budget

worth = st.floats(0.2, 5.0)
curve = st.one_of(
    st.builds(PowerCurve, worth=worth, exponent=st.floats(0.1, 0.9)),
    st.builds(SaturatingCurve, worth=worth, scale_usd=worth),
    st.builds(OddsCurve, worth=worth, even_usd=worth, elasticity=st.floats(0.2, 1.0)),
    st.builds(lambda w: StepCurve(points=((1.0, w), (3.0, 1.5 * w))), worth),
)
curves = st.lists(curve, min_size=1, max_size=5).map(
    lambda some: {str(place): own for place, own in enumerate(some)}
)


@settings(max_examples=60)
@given(curves=curves, budget=st.floats(0.5, 20.0))
def test_all_is_spent_the_bound_is_met_and_a_dollar_brings_the_same_everywhere(curves, budget):
    found = split_budget(curves, budget)
    most = sum(own.most_usd for own in curves.values())
    if found.shadow_price > 1e-17:
        assert sum(found.usd.values()) == pytest.approx(min(budget, most), rel=1e-7)
    assert found.bound == pytest.approx(found.value, rel=1e-7)
    for name, own in curves.items():
        usd = found.usd[name]
        if 1e-6 < usd < own.most_usd and not isinstance(own, StepCurve):
            assert own.slope(usd) == pytest.approx(found.shadow_price, rel=1e-4)


@settings(max_examples=30)
@given(curves=curves.filter(lambda own: not any(isinstance(c, StepCurve) for c in own.values())))
def test_the_shadow_price_is_what_one_dollar_more_brings(curves):
    step = 1e-4
    up, down = (split_budget(curves, 4.0 + s).value for s in (step, -step))
    price = split_budget(curves, 4.0).shadow_price
    assert price == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-7)


def test_no_split_on_a_grid_is_better():
    curves = {
        "a": SaturatingCurve(worth=2.0, scale_usd=1.0),
        "b": StepCurve(points=((1.0, 1.2), (2.0, 1.6))),
        "c": PowerCurve(worth=1.0, exponent=0.5),
    }
    found = split_budget(curves, 3.0)
    shares = [n * 0.05 for n in range(61)]
    best = max(
        curves["a"].value(a)
        + curves["b"].value(min(b, 2.0))
        + curves["c"].value(max(3.0 - a - b, 0.0))
        for a, b in itertools.product(shares, shares)
        if a + b <= 3.0
    )
    assert best <= found.value <= best + 0.01


def test_a_budget_for_everything_has_no_price():
    own = split_budget({"a": StepCurve(points=((1.0, 2.0),))}, 5.0)
    assert (own.usd["a"], own.value, own.shadow_price) == (1.0, 2.0, 0.0)


def test_nothing_cannot_be_split():
    with pytest.raises(InputError, match="0 usd for 1"):
        split_budget({"a": PowerCurve(worth=1.0, exponent=0.5)}, 0)
