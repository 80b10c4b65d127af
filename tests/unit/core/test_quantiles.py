"""Quantiles are those of the tables."""

from __future__ import annotations

import pytest

from weft.core.quantiles import student_t

# From the tables of Student's t, two-sided.
TABLE = {(0.95, 1): 12.706, (0.95, 2): 4.303, (0.95, 5): 2.571, (0.99, 10): 3.169, (0.9, 30): 1.697}


@pytest.mark.parametrize(("level", "freedom"), TABLE)
def test_quantiles_are_those_of_the_tables(level, freedom):
    assert student_t(level, freedom) == pytest.approx(TABLE[level, freedom], rel=1.1e-3)
