import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.tokens.allocate import OddsCurve, PowerCurve, SaturatingCurve, StepCurve

CURVES = [
    PowerCurve(worth=2.0, exponent=0.4),
    PowerCurve(worth=2.0, exponent=0.4, most_usd=0.5),
    SaturatingCurve(worth=3.0, scale_usd=0.7),
    OddsCurve(worth=1.0, even_usd=0.5, elasticity=0.6),
    OddsCurve(worth=1.0, even_usd=0.5, elasticity=1.0),
    StepCurve(points=((1.0, 2.0), (2.0, 3.0), (4.0, 3.5))),
]


@pytest.mark.parametrize("curve", CURVES)
@settings(max_examples=30)
@given(price=st.floats(1e-2, 1e2), other=st.floats(0.0, 6.0))
def test_nothing_else_is_worth_more_beyond_its_price(curve, price, other):
    for usd in curve.bought(price):
        assert 0.0 <= usd <= curve.most_usd
        other = min(other, curve.most_usd)
        best = curve.value(usd) - price * usd
        assert best >= curve.value(other) - price * other - 1e-9 * max(1.0, abs(best))


@pytest.mark.parametrize("curve", CURVES)
@given(usd=st.floats(0.01, 0.45))
def test_the_slope_is_the_derivative(curve, usd):
    step = 1e-6
    rise = (curve.value(usd + step) - curve.value(usd - step)) / (2 * step)
    assert curve.slope(usd) == pytest.approx(rise, rel=1e-4)
    assert curve.value(0.0) == 0.0


def test_a_straight_run_is_bought_in_part_or_whole_at_its_slope():
    assert CURVES[-1].bought(1.0) == (1.0, 2.0)
    assert CURVES[-1].bought(1.5) == (1.0, 1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PowerCurve(worth=1.0, exponent=1.2),
        lambda: SaturatingCurve(worth=0.0, scale_usd=1.0),
        lambda: OddsCurve(worth=1.0, even_usd=1.0, elasticity=1.5),
        lambda: StepCurve(points=((1.0, 1.0), (2.0, 3.0))),
        lambda: StepCurve(points=((0.0, 1.0),)),
        lambda: StepCurve(points=()),
        lambda: PowerCurve(worth=1.0, exponent=math.nan),
    ],
)
def test_what_does_not_rise_ever_more_slowly_is_refused(make):
    with pytest.raises(InputError, match="a curve that rises and ever more slowly"):
        make()


def test_of_two_that_cost_the_same_the_better_is_on_the_hull():
    assert StepCurve.hull([(1.0, 2.0), (1.0, 3.0), (2.0, 3.5), (2.0, 3.5)]).points == (
        (1.0, 3.0),
        (2.0, 3.5),
    )
