import numpy as np
import pytest

from weft.core.errors import InputError
from weft.tokens import usd
from weft.tokens.allocate import (
    Option,
    Step,
    hull_choice,
    pace_start,
    pace_update,
    spend_more,
    which_option,
)


def menus(count, seed):
    rng = np.random.default_rng(seed)
    return [
        (
            Option(name="skip", cost=usd(0), value=0.0),
            Option(name="small", cost=usd("0.02"), value=float(0.5 * hard)),
            Option(name="large", cost=usd("0.1"), value=float(hard)),
        )
        for hard in rng.random(count)
    ]


def follow(tasks, budget, price):
    pace, value = pace_start(budget, len(tasks), price), 0.0
    for options in tasks:
        pick = which_option(pace, options)
        spent = usd(0) if pick is None else options[pick].cost
        value += 0.0 if pick is None else options[pick].value
        pace = pace_update(pace, spent)
    return pace, value


@pytest.mark.parametrize("first", [0.1, 1.0, 30.0])
def test_value_is_near_the_best_in_hindsight_whatever_the_first_price(first):
    tasks, budget = menus(2000, 0), usd(60)
    best = hull_choice([Step(name=str(n), options=o) for n, o in enumerate(tasks)], budget)
    pace, value = follow(tasks, budget, first)
    assert value >= 0.95 * best.bound
    assert pace.left.nano >= 0
    assert float(pace.left.amount) < 3.0  # hardly anything is left over


def test_the_price_that_is_followed_is_the_shadow_price():
    tasks, budget = menus(4000, 1), usd(120)
    best = hull_choice([Step(name=str(n), options=o) for n, o in enumerate(tasks)], budget)
    pace, seen = pace_start(budget, len(tasks), 1.0), []
    for options in tasks:
        pick = which_option(pace, options)
        pace = pace_update(pace, usd(0) if pick is None else options[pick].cost)
        seen.append(pace.price)
    assert np.mean(seen[1000:3500]) == pytest.approx(best.shadow_price, rel=0.15)


def test_spending_too_fast_raises_the_price_and_too_slowly_lowers_it():
    pace = pace_start(usd(10), 10, 1.0)
    assert pace_update(pace, usd(2)).price > 1.0 > pace_update(pace, usd(0)).price
    assert pace_update(pace, usd(1)).price == pytest.approx(1.0)


def test_one_more_is_bought_where_it_brings_more_than_its_price():
    pace = pace_start(usd(1), 10, 2.0)
    assert spend_more(pace, 0.21, usd("0.1"))
    assert not spend_more(pace, 0.19, usd("0.1"))
    assert not spend_more(pace, 1e9, usd(2))


def test_what_is_not_there_cannot_be_spent():
    with pytest.raises(InputError, match="at most the 1 usd"):
        pace_update(pace_start(usd(1), 10, 2.0), usd(2))
    with pytest.raises(InputError, match="above zero"):
        pace_start(usd(0), 10, 2.0)
