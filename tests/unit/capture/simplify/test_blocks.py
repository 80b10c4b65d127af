"""Blocks of a fused dim are taken and joined as blocks, and only where they are asked for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from weft.capture.simplify import simplify
from weft.program.builder import Builder
from weft.program.evaluate import evaluate
from weft.program.graph import Phase, Role
from weft.program.types import DType, TensorType

X = TensorType(DType.F64, (2, 3, 4))
WEIGHTS = TensorType(DType.F64, (2, 12))
BACKWARD = {"phase": Phase.BACKWARD}
THIRDS = frozenset({(3, 4)})


def program(make):
    """Joins or takes parts of a [2,3,4] in the backward phase, weighs and sums them."""
    b = Builder("blocks")
    x = b.input("x", Role.BATCH, X)
    weights = b.input("w", Role.BATCH, WEIGHTS)
    made = b.add("mul.Tensor", make(b, b.add("view", x, (2, 12))), weights, **BACKWARD)
    new = b.add("sum", made, (0, 1), False, phase=Phase.UPDATE)
    count = b.input("count", Role.STATE, TensorType(DType.F64, ()))
    return b.build(b.add("full", (), 1.0, "f64"), ((count, new),))


def parts(b, x, edges):
    return [b.add("slice", x, 1, start, end, 1, **BACKWARD) for start, end in pairwise(edges)]


def joined(b, x):
    return b.add("cat", tuple(parts(b, x, (0, 4, 8, 12))), 1, **BACKWARD)


def padded(order):
    def make(b, x):
        total = None
        pieces = parts(b, x, (0, 4, 8, 12))
        for k in order:
            size = (2, 12)
            piece = b.add("slice_backward", pieces[k], size, 1, 4 * k, 4 * k + 4, 1, **BACKWARD)
            total = piece if total is None else b.add("add.Tensor", total, piece, **BACKWARD)
        return total

    return make


def ops(found):
    return [node.op for node in found.nodes]


def assert_same(before, after):
    rng = np.random.default_rng(0)
    inputs = {
        "x": rng.normal(size=X.shape),
        "w": rng.normal(size=WEIGHTS.shape),
        "count": np.zeros(()),
    }
    wanted, found = (evaluate(p, inputs)[1]["count"] for p in (before, after))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_gradients_of_neighbours_among_zeros_are_joined(order):
    before = program(padded(order))
    after = simplify(before, THIRDS)
    assert "slice_backward" not in ops(after)
    assert_same(before, after)


def test_gradients_that_are_no_neighbours_stay_a_sum_until_they_meet():
    before = program(padded((0, 2, 1)))
    after = simplify(before, THIRDS)
    assert "slice_backward" in ops(after)
    assert_same(before, after)


@pytest.mark.parametrize("make", [joined, padded((0, 1, 2))])
def test_blocks_are_elements_of_an_undivided_dim(make):
    before = program(make)
    after = simplify(before, THIRDS)
    (cat,) = (node for node in after.nodes if node.op == "cat")
    assert len(cat.args[0]) == 3
    assert cat.outputs[0].shape == (2, 3, 4)
    assert_same(before, after)


@pytest.mark.parametrize("make", [joined, padded((0, 1, 2))])
@pytest.mark.parametrize("factors", [frozenset(), frozenset({(2, 6)}), frozenset({(5, 7)})])
def test_without_factors_that_fit_nothing_changes(make, factors):
    before = program(make)
    assert simplify(before, factors).digest == simplify(before).digest
