import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.tokens.meso import contract

shares = st.tuples(st.floats(0.0, 0.45), st.floats(0.5, 1.0))


@given(shares=shares, effort=st.floats(0.01, 1.0))
def test_effort_is_just_worth_its_while_and_less_pay_is_not_enough(shares, effort):
    low, high = shares
    own = contract(effort_usd=effort, high=high, low=low, worth_usd=10.0)
    assert high * own.pay_usd - effort == pytest.approx(low * own.pay_usd)
    assert own.rent_usd == pytest.approx(own.expected_usd - effort)
    less = 0.99 * own.pay_usd
    assert high * less - effort < low * less


def test_effort_that_is_worth_less_than_its_rent_is_not_asked_for():
    assert contract(effort_usd=0.2, high=0.9, low=0.5, worth_usd=2.0).is_worth_it
    assert not contract(effort_usd=0.2, high=0.9, low=0.5, worth_usd=1.0).is_worth_it
    with pytest.raises(InputError, match="raises the chance"):
        contract(effort_usd=0.2, high=0.5, low=0.5, worth_usd=1.0)
