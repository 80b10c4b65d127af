from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.programs import mlp, random_inputs, transformer
from weft.core.errors import InputError, VerifyError
from weft.program.builder import Builder
from weft.program.evaluate import apply_operator, evaluate, evaluate_nodes
from weft.program.evaluate.arrays import round_to_bf16
from weft.program.graph import Role
from weft.program.random import uniform
from weft.program.types import DType, TensorType

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def rounded(x):
    return float(round_to_bf16(np.asarray(x, dtype=np.float32)))


@given(x=FLOATS)
def test_bf16_keeps_the_upper_half_of_the_bits(x):
    bits = np.asarray(rounded(x), dtype=np.float32).view(np.uint32)
    assert int(bits) & 0xFFFF == 0


@given(x=st.floats(width=32, min_value=-(2.0**100), max_value=2.0**100))
def test_bf16_rounds_to_one_of_the_two_neighbours_and_the_nearer_one(x):
    down = np.asarray(x, dtype=np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    up = down + np.uint32(0x10000)
    neighbours = [float(np.asarray(n).view(np.float32)) for n in (down, up)]
    assert rounded(x) in neighbours
    assert abs(rounded(x) - x) == min(abs(n - x) for n in neighbours)


@pytest.mark.parametrize(
    ("x", "nearest"), [(1 + 2**-8, 1.0), (1 + 3 * 2**-8, 1 + 2**-6), (3.4e38, np.inf)]
)
def test_bf16_ties_go_to_even_and_overflow_to_infinity(x, nearest):
    assert rounded(x) == nearest


def test_bf16_keeps_what_is_not_a_number():
    assert np.isnan(rounded(np.nan))


def test_results_are_rounded_after_each_operator():
    b = Builder("sum")
    x = b.input("x", Role.BATCH, TensorType(DType.BF16, ()))
    total = b.add("add.Scalar", b.add("add.Scalar", x, 2**-9), 2**-9)
    one = {"x": np.float32(1.0)}
    assert evaluate(b.build(total), one)[0] == 1.0  # f32 would give 1 + 2**-8


def test_gradient_descent_moves_against_the_gradient():
    program = mlp(2, dtype=DType.F64, slots=("momentum",))
    inputs = dict(random_inputs(program))
    loss, updates = evaluate(program, inputs)
    name = "layers.0.up"
    momentum = updates[f"optimizer.momentum.{name}"]
    np.testing.assert_allclose(updates[name], inputs[name] - 0.1 * momentum, rtol=1e-14)
    for _ in range(20):
        inputs |= evaluate(program, inputs)[1]
    assert evaluate(program, inputs)[0] < 0.5 * loss


def test_dropout_masks_are_those_of_uniform():
    program = transformer(1, dropout=0.25)
    values = evaluate_nodes(program, random_inputs(program))
    number = next(n for n, node in enumerate(program.nodes) if node.op == "uniform")
    _, salt, size = program.nodes[number].args
    assert (values[number][0] == uniform(7, salt, size)).all()


INPUTS = random_inputs(mlp(1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch.x": None}, r"missing batch\.x"),
        ({"extra": np.zeros(3)}, "unknown extra"),
        ({"batch.x": np.zeros((1, 4, 8))}, r"batch\.x : f32\[4,1,8\]"),
        ({"batch.x": np.zeros((4, 1, 8), dtype=int)}, "an array of int64"),
    ],
)
def test_inputs_that_do_not_fit_are_named(changes, words):
    inputs = {name: array for name, array in {**INPUTS, **changes}.items() if array is not None}
    with pytest.raises(InputError, match=words):
        evaluate(mlp(1), inputs)


def test_an_operator_that_makes_another_shape_is_told():
    program = mlp(1)
    number = next(n for n, node in enumerate(program.nodes) if node.op == "relu.default")
    nodes = list(program.nodes)
    nodes[number] = replace(nodes[number], outputs=(TensorType(DType.F32, (4, 16)),))
    with pytest.raises(VerifyError, match=r"relu\.default to make f32\[4,16\]"):
        evaluate(replace(program, nodes=tuple(nodes)), INPUTS)


def test_inputs_and_unknown_operators_do_not_compute():
    for op in ("input", "sinh.default"):
        with pytest.raises(VerifyError):
            apply_operator(op, (), ())
