import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.core.provenance import Origin, Quantity, derived, measured, ported


@pytest.mark.parametrize(
    ("make", "origin"),
    [(derived, Origin.DERIVED), (ported, Origin.PORTED), (measured, Origin.MEASURED)],
)
def test_each_origin_has_its_own_constructor(make, origin):
    quantity = make(3.35e12, "B/s", "data sheet")
    assert quantity == Quantity(value=3.35e12, unit="B/s", origin=origin, source="data sheet")


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), -float("inf")])
def test_a_value_that_no_hardware_has_is_refused(value):
    with pytest.raises(InputError, match="at least 0"):
        ported(value, "B/s", "data sheet")


@given(st.floats(0, 1e30))
def test_every_finite_value_of_at_least_0_is_kept_as_it_is(value):
    assert measured(value, "s", "this host, 2026-01-01").value == value


def test_a_number_without_a_source_is_refused():
    with pytest.raises(InputError, match="source ''"):
        derived(1.0, "s", "")


def test_a_quantity_cannot_be_changed_only_replaced():
    quantity = ported(1.0, "s", "data sheet")
    with pytest.raises(dataclasses.FrozenInstanceError):
        quantity.value = 2.0  # pyright: ignore[reportAttributeAccessIssue]
    assert dataclasses.replace(quantity, value=2.0).source == "data sheet"
