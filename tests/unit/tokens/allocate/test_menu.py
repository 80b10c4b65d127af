import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import InfeasibleError, InputError
from weft.tokens import Money, usd
from weft.tokens.allocate import Option, Step, dynamic_choice, exact_choice, hull_choice

CENT = usd("0.01")
option = st.builds(
    lambda cents, value: Option(name="", cost=CENT * cents, value=value),
    st.integers(0, 20),
    st.floats(0.0, 1.0),
)
menus = st.lists(st.lists(option, min_size=1, max_size=4), min_size=1, max_size=4).map(
    lambda steps: [Step(name=str(n), options=tuple(own)) for n, own in enumerate(steps)]
)


def exhaustive(steps, budget):
    values = [
        sum(own.value for own in picks)
        for picks in itertools.product(*(step.options for step in steps))
        if sum(own.cost.nano for own in picks) <= budget.nano
    ]
    return max(values, default=None)


@settings(max_examples=80)
@given(steps=menus, cents=st.integers(0, 60))
def test_exact_choices_are_those_of_an_exhaustive_search(steps, cents):
    budget = CENT * cents
    best = exhaustive(steps, budget)
    if best is None:
        with pytest.raises(InfeasibleError, match="the cheapest ones cost"):
            exact_choice(steps, budget)
        return
    hull = hull_choice(steps, budget)
    assert hull.value <= best + 1e-12 and hull.bound >= best - 1e-9
    for found in (exact_choice(steps, budget), dynamic_choice(steps, budget, CENT)):
        assert found.value == pytest.approx(best)
        assert found.cost <= budget
        picked = [step.options[p] for step, p in zip(steps, found.picks, strict=True)]
        assert sum(own.value for own in picked) == found.value
        assert found.bound >= best - 1e-9


@settings(max_examples=60)
@given(steps=menus, cents=st.integers(0, 60))
def test_a_hull_is_off_by_less_than_one_upgrade(steps, cents):
    if exhaustive(steps, CENT * cents) is None:
        return
    hull = hull_choice(steps, CENT * cents)
    values = [[own.value for own in step.options] for step in steps]
    assert hull.bound - hull.value <= max(max(own) - min(own) for own in values) + 1e-12


def test_the_shadow_price_is_the_slope_of_the_relaxation():
    steps = [
        Step(
            name=str(n),
            options=tuple(
                Option(name="", cost=CENT * (c * (1 + n)), value=v)
                for c, v in ((0, 0.0), (3, 0.5), (7, 0.8))
            ),
        )
        for n in range(5)
    ]
    # Between two breakpoints of the relaxation the bound is straight.
    found, more = (hull_choice(steps, CENT * c) for c in (22, 23))
    assert found.shadow_price == pytest.approx((more.bound - found.bound) / 0.01)


def test_a_greedy_choice_can_lose_to_the_exact_one():
    def step(name, *pairs):
        return Step(
            name=name, options=tuple(Option(name="", cost=usd(c), value=v) for c, v in pairs)
        )

    steps = [step("a", (0, 0), (1, 2)), step("b", (0, 0), (10, 11))]
    assert hull_choice(steps, usd(10)).value == 2
    found = exact_choice(steps, usd(10))
    assert (found.picks, found.value) == ((0, 1), 11)


def test_costs_between_units_are_refused():
    steps = [Step(name="a", options=(Option(name="x", cost=usd("0.015"), value=1.0),))]
    with pytest.raises(InputError, match=r"0.015 usd for x"):
        dynamic_choice(steps, usd(1), CENT)


def test_the_budget_is_kept_to_the_billionth():
    steps = [
        Step(
            name=str(n),
            options=(
                Option(name="no", cost=Money(0), value=0.0),
                Option(name="yes", cost=Money(333_333_334), value=1.0),
            ),
        )
        for n in range(3)
    ]
    assert exact_choice(steps, usd(1)).value == 2.0
