"""Extrapolation is exact for polynomials of its degree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.diffusion.extrapolate import weights


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=4, unique=True),
    st.integers(-60, 60),
    st.lists(st.integers(-9, 9), min_size=4, max_size=4),
)
def test_a_polynomial_through_enough_values_is_exact(positions, at, coefficients):
    own = coefficients[: len(positions)]

    def value(x):
        return sum(c * x**n for n, c in enumerate(own))

    factors = weights([float(p) for p in positions], float(at))
    found = sum(f * value(p) for f, p in zip(factors, positions, strict=True))
    scale = 1.0 + sum(abs(f * value(p)) for f, p in zip(factors, positions, strict=True))
    assert found == pytest.approx(value(at), abs=1e-12 * scale)


@given(
    st.lists(st.floats(0.0, 1.0).map(lambda x: round(x, 3)), min_size=1, unique=True, max_size=3)
)
def test_what_is_constant_stays_so(positions):
    assert sum(weights(positions, 0.3)) == pytest.approx(1.0, abs=1e-3)
