from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.tokens.money import NANO, Money, parse_money, usd

NANOS = st.integers(-(2**62), 2**62)


@given(NANOS, NANOS, NANOS)
def test_amounts_add_up_exactly_in_any_order(one, other, third):
    a, b, c = Money(one), Money(other), Money(third)
    assert (a + b) + c == a + (b + c) == Money(one + other + third)
    assert a + b - b == a


@given(st.decimals(-(10**6), 10**6, places=9))
def test_dollars_are_read_as_they_are_written(amount):
    assert usd(str(amount)).amount == amount


@given(st.decimals(0, 10**6, places=14))
def test_rounding_up_never_reserves_too_little(amount):
    up = usd(amount, up=True)
    assert amount <= up.amount < amount + Decimal(1) / NANO


def test_a_float_is_taken_as_it_prints():
    assert usd(0.1) + usd(0.2) == usd("0.3")


def test_ties_go_to_the_even_billionth():
    assert usd("0.0000000005").nano == 0
    assert usd("0.0000000015").nano == 2


def test_two_currencies_do_not_add_or_compare():
    for use in (lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a < b):
        with pytest.raises(InputError, match="tokens"):
            use(usd(1), Money(1, "tokens"))


@pytest.mark.parametrize(
    ("text", "money"),
    [
        ("50usd", usd(50)),
        (" $0.25 ", usd("0.25")),
        ("0.25", usd("0.25")),
        ("2e6 tokens", Money(2 * 10**6 * NANO, "tokens")),
        ("3 EUR", Money(3 * NANO, "eur")),
    ],
)
def test_amounts_are_read_with_their_currency(text, money):
    assert parse_money(text) == money


@pytest.mark.parametrize("text", ["", "dollars", "1,5 usd", "1e999 usd", "nan", "3 usd 4"])
def test_what_is_no_amount_is_named(text):
    with pytest.raises(InputError):
        parse_money(text)


@pytest.mark.parametrize("amount", ["x", float("nan"), float("inf")])
def test_what_is_no_number_is_no_dollars(amount):
    with pytest.raises(InputError):
        usd(amount)
