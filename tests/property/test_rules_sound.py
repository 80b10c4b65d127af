"""Every rule of every operator, tried on pretended devices against the undivided result."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.property.rule_calls import NAMES, calls
from tests.property.rule_devices import apply, run_split
from weft.parallel.placement import PARTIAL, PARTIAL_MAX, Mesh
from weft.parallel.plan import Strategy
from weft.parallel.rules import rules
from weft.parallel.strategies import fits
from weft.program.graph import values_in
from weft.program.types import DType

POSITIVE = ("log", "log1p", "sqrt", "rsqrt", "reciprocal", "pow", "div")
TIES = ("eq", "ne", "le", "ge", "lt", "gt")


def draw_arrays(sample, rng):
    """Operands of the call; a value that is read twice is the same array twice."""
    arrays, name = {}, sample.op.partition(".")[0]
    for k, value in enumerate(values_in(sample.args)):
        tensor, below = sample.operands[k], dict(sample.below).get(k)
        if tensor.dtype is DType.BOOL:
            made = rng.integers(0, 2, tensor.shape).astype(bool)
        elif tensor.dtype is DType.I64:
            made = rng.integers(0 if below else -5, below or 6, tensor.shape)
        elif name in POSITIVE:
            made = rng.uniform(0.5, 2.0, tensor.shape)
        elif name in TIES:
            made = rng.integers(0, 3, tensor.shape).astype(float)
        else:
            made = rng.normal(size=tensor.shape)
        arrays.setdefault(value, np.asarray(made))
    return tuple(arrays[value] for value in values_in(sample.args))


def run_whole(sample, arrays):
    return apply(sample.op, sample.args, arrays)


def assert_equal_outputs(got, expected, what):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-7, err_msg=str(what))


def strategy_of(*one_for_each_axis):
    return Strategy(
        outputs=tuple(zip(*(rule.outputs for rule in one_for_each_axis), strict=True)),
        operands=tuple(zip(*(rule.operands for rule in one_for_each_axis), strict=True)),
    )


@pytest.mark.parametrize("op", NAMES)
@settings(max_examples=20)
@given(data=st.data(), seed=st.integers(0, 999))
def test_every_rule_gives_what_one_device_computes(op, data, seed):
    sample, rng = data.draw(calls(op)), np.random.default_rng(seed)
    arrays = draw_arrays(sample, rng)
    expected = run_whole(sample, arrays)
    for rule, n in itertools.product(
        rules(sample.op, sample.args, sample.operands, sample.outputs), (2, 3)
    ):
        strategy = strategy_of(rule)
        if fits(Mesh((n,)), strategy, sample.operands, sample.outputs):
            got = run_split(sample, strategy, (n,), arrays, rng)
            assert_equal_outputs(got, expected, rule)


@pytest.mark.parametrize("op", NAMES)
@settings(max_examples=15)
@given(data=st.data(), seed=st.integers(0, 999))
def test_rules_of_two_axes_combine_freely(op, data, seed):
    sample, rng = data.draw(calls(op)), np.random.default_rng(seed)
    mesh = data.draw(st.sampled_from(((2, 3), (3, 2), (2, 2))))
    choices = st.sampled_from(rules(sample.op, sample.args, sample.operands, sample.outputs))
    strategy = strategy_of(data.draw(choices), data.draw(choices))
    assume(fits(Mesh(mesh), strategy, sample.operands, sample.outputs))
    # A sum of maxima is not a maximum of sums: no operator makes both in one tensor.
    assume(not any({PARTIAL, PARTIAL_MAX} <= set(s) for s in strategy.outputs + strategy.operands))
    arrays = draw_arrays(sample, rng)
    got = run_split(sample, strategy, mesh, arrays, rng)
    assert_equal_outputs(got, run_whole(sample, arrays), strategy)
