"""Operators with ATen names do what ATen does: same types, same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.program.evaluate import apply_operator
from weft.program.evaluate.arrays import held
from weft.program.graph import Value
from weft.program.infer import infer_types
from weft.program.operators import OPERATORS, Kind
from weft.program.types import DType, TensorType

F64, F32, BF16, F16 = DType.F64, DType.F32, DType.BF16, DType.F16
I64, I32, U8, BOOL = DType.I64, DType.I32, DType.U8, DType.BOOL

TORCH = {
    F64: torch.float64,
    F32: torch.float32,
    BF16: torch.bfloat16,
    F16: torch.float16,
    I64: torch.int64,
    I32: torch.int32,
    U8: torch.uint8,
    BOOL: torch.bool,
}
DTYPES = {of: name for name, of in TORCH.items()}
TOLERANCE = {F64: 1e-12, F32: 1e-5, BF16: 2.0**-6, F16: 2.0**-9}


def array(dtype, *shape, seed=0, low=None, high=None):
    """A random array as the evaluator holds it: floats normal or in a range, integers small."""
    random = np.random.default_rng([seed, *shape, 3])
    if dtype is BOOL:
        return held(random.integers(0, 2, shape), TensorType(BOOL, shape))
    if not dtype.is_float:
        return held(random.integers(low or 0, high or 4, shape), TensorType(dtype, shape))
    made = random.uniform(low, high, shape) if low is not None else random.normal(size=shape)
    return held(made, TensorType(dtype, shape))


class Tensor:
    """An array with the element type that it stands for."""

    def __init__(self, data, dtype):
        self.data, self.dtype = data, dtype
        self.type = TensorType(dtype, np.shape(data))

    def torch(self):
        return torch.from_numpy(np.array(self.data)).to(TORCH[self.dtype])


def tensor(dtype, *shape, **options):
    return Tensor(array(dtype, *shape, **options), dtype)


def as_torch(arg):
    if isinstance(arg, Tensor):
        return arg.torch()
    if isinstance(arg, tuple):
        return [as_torch(a) for a in arg]
    return torch.float32 if arg == "f32" else TORCH[BF16] if arg == "bf16" else arg


def as_numpy(arg):
    if isinstance(arg, Tensor):
        return arg.data
    return tuple(map(as_numpy, arg)) if isinstance(arg, tuple) else arg


def tensors_in(args):
    for arg in args:
        if isinstance(arg, Tensor):
            yield arg
        elif isinstance(arg, tuple):
            yield from tensors_in(arg)


def as_values(args):
    return tuple(
        Value(0) if isinstance(a, Tensor) else as_values(a) if isinstance(a, tuple) else a
        for a in args
    )


def aten(op):
    name, overload = op.split(".")
    return getattr(getattr(torch.ops.aten, name), overload)


def check(op, *args, reference=None, tolerance=None):
    """Types and values of weft's operator are those of the reference, ATen's by default.

    The tolerance, relative to the largest element, is that of the output's type if left out.
    """
    wanted = (reference or aten(op))(*map(as_torch, args))
    wanted = wanted if isinstance(wanted, tuple | list) else (wanted,)
    types = infer_types(op, as_values(args), tuple(t.type for t in tensors_in(args)))
    made = apply_operator(op, tuple(map(as_numpy, args)), types)
    for expected, of, values in zip(wanted, types, made, strict=True):
        if expected is None:
            assert of.shape == (0,)
            continue
        assert of == TensorType(DTYPES[expected.dtype], tuple(expected.shape))
        reference_values = expected.to(torch.float64).numpy()
        allowed = TOLERANCE.get(of.dtype, 0.0) if tolerance is None else tolerance
        finite = reference_values[np.isfinite(reference_values)]
        scale = max(1.0, float(np.max(np.abs(finite), initial=0.0)))
        np.testing.assert_allclose(
            values.astype(np.float64), reference_values, rtol=allowed, atol=allowed * scale
        )


def keywords(op):
    """ATen operators whose last arguments are keyword-only, as functions of their position."""
    if op in ("add.Tensor", "sub.Tensor"):
        return lambda x, other, alpha=1: aten(op)(x, other, alpha=alpha)
    if op == "gelu.default":
        return lambda x, approximate="none": aten(op)(x, approximate=approximate)
    if op == "gelu_backward.default":
        return lambda g, x, approximate="none": aten(op)(g, x, approximate=approximate)
    return aten(op)


FLOAT_UNARY = [
    *("neg", "abs", "sign", "sqrt", "rsqrt", "reciprocal", "exp", "log", "log1p", "sin", "cos"),
    *("tanh", "erf", "sigmoid", "relu", "silu", "gelu", "floor"),
]
INT_UNARY = [
    *("neg", "abs", "sign", "sqrt", "reciprocal", "exp", "sin", "tanh", "erf", "sigmoid"),
    *("relu", "bitwise_not", "floor"),
]
ARITHMETIC = ["add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor"]
COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]
BACKWARDS = ["tanh_backward", "sigmoid_backward", "silu_backward", "gelu_backward"]


@pytest.mark.parametrize("dtype", [F64, F32, BF16, F16])
@pytest.mark.parametrize("name", FLOAT_UNARY)
def test_unary_operators_on_floats(name, dtype):
    check(f"{name}.default", tensor(dtype, 3, 5, low=0.1, high=2.0))


@pytest.mark.parametrize("name", INT_UNARY)
def test_unary_operators_on_integers(name):
    check(f"{name}.default", tensor(I64, 3, 5, low=1, high=5))


@pytest.mark.parametrize("op", ARITHMETIC)
@settings(max_examples=25)
@given(
    left=st.sampled_from([F64, F32, BF16, F16, I64, I32, U8]),
    right=st.sampled_from([F64, F32, BF16, F16, I64, I32, U8]),
    shapes=st.sampled_from(
        [((2, 3), (2, 3)), ((2, 3), ()), ((), (3,)), ((), ()), ((2, 1), (4, 1, 3)), ((3,), (1,))]
    ),
)
def test_arithmetic_promotes_and_broadcasts_as_aten_does(op, left, right, shapes):
    a = tensor(left, *shapes[0], low=1, high=4)
    b = tensor(right, *shapes[1], seed=1, low=1, high=4)
    check(op, a, b)


@pytest.mark.parametrize("dtype", [F64, F32, BF16, I64, BOOL])
@pytest.mark.parametrize("number", [2, 0.5])
@pytest.mark.parametrize(
    "op", ["add.Tensor", "mul.Tensor", "div.Tensor", "add.Scalar", "mul.Scalar", "div.Scalar"]
)
def test_a_plain_number_promotes_only_to_a_higher_category(op, number, dtype):
    check(op, tensor(dtype, 3), number)


@pytest.mark.parametrize("op", ["add.Tensor", "sub.Tensor"])
def test_alpha_scales_the_second_operand(op):
    check(op, tensor(F32, 3), tensor(F32, 3, seed=1), 0.25, reference=keywords(op))


@pytest.mark.parametrize("op", ["sub.Scalar", "rsub.Scalar", "add.Scalar"])
def test_scalar_sums_take_alpha(op):
    check(op, tensor(F32, 3), 3.0, 0.5)


@pytest.mark.parametrize("op", ["sub.Scalar", "rsub.Scalar"])
def test_scalar_differences(op):
    check(op, tensor(BF16, 3), 3)


@pytest.mark.parametrize("dtype", [F32, I64])
@pytest.mark.parametrize("exponent", [2, 3.0])
def test_powers_of_tensors(dtype, exponent):
    check("pow.Tensor_Scalar", tensor(dtype, 4, low=1, high=4), exponent)


@pytest.mark.parametrize("dtype", [F32, BF16, I64])
@pytest.mark.parametrize("base", [2, 0.9])
def test_powers_of_numbers(dtype, base):
    check("pow.Scalar", base, tensor(dtype, 4, low=1, high=4))


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("dtype", [F32, I64])
def test_comparisons(name, dtype):
    a, b = tensor(dtype, 3, 4), tensor(dtype, 4, seed=1)
    check(f"{name}.Tensor", a, b)
    check(f"{name}.Scalar", a, 1)


@pytest.mark.parametrize("dtype", [F64, F32, BF16])
@pytest.mark.parametrize("name", BACKWARDS)
def test_gradients_of_activations(name, dtype):
    saved = tensor(dtype, 3, 5, low=-0.9, high=0.9, seed=1)
    check(f"{name}.default", tensor(dtype, 3, 5), saved)


@pytest.mark.parametrize("dtype", [F64, BF16])
def test_gelu_by_tanh(dtype):
    x, grad = tensor(dtype, 9), tensor(dtype, 9, seed=1)
    check("gelu.default", x, "tanh", reference=keywords("gelu.default"))
    check("gelu_backward.default", grad, x, "tanh", reference=keywords("gelu_backward.default"))


def test_threshold_backward():
    check("threshold_backward.default", tensor(F32, 9), tensor(F32, 9, seed=1), 0)


@pytest.mark.parametrize("op", ["maximum.default", "minimum.default"])
def test_extrema_promote(op):
    check(op, tensor(F32, 3, 1), tensor(I64, 4))


@pytest.mark.parametrize("limits", [(-0.5, 0.5), (None, 0.5), (-0.5, None), (0, 1)])
def test_clamp(limits):
    check("clamp.default", tensor(F32, 9), *limits)
    check("clamp.default", tensor(I64, 9), *limits)


def test_clamp_min_of_integers_by_a_float_is_float():
    check("clamp_min.default", tensor(I64, 9), 0.5)


def test_where_broadcasts_and_promotes():
    check("where.self", tensor(BOOL, 3, 1), tensor(BF16, 3, 4), tensor(F32))
    check("where.self", tensor(BOOL, 4), tensor(BF16, 3, 4), tensor(F32, 1, 1))


def test_masked_fill_keeps_the_type():
    check("masked_fill.Scalar", tensor(BF16, 3, 4), tensor(BOOL, 4), float("-inf"))


@pytest.mark.parametrize("op", ["logical_and.default", "logical_or.default"])
def test_logic_on_any_type_is_bool(op):
    check(op, tensor(F32, 3, 1), tensor(I64, 4))
    check("logical_not.default", tensor(F32, 3))


@pytest.mark.parametrize("dtype", [BOOL, I64])
@pytest.mark.parametrize("op", ["bitwise_and.Tensor", "bitwise_or.Tensor"])
def test_bits(op, dtype):
    check(op, tensor(dtype, 3, 1), tensor(dtype, 4, seed=1))


# --- reductions, moves, indices ---


@pytest.mark.parametrize("dtype", [F64, F32, BF16, I64, I32, BOOL])
@pytest.mark.parametrize("keepdim", [False, True])
def test_sums(dtype, keepdim):
    check("sum", tensor(dtype, 2, 3, 4), (0, 2), keepdim, reference=torch.ops.aten.sum.dim_IntList)


def test_maxima():
    check("amax", tensor(BF16, 2, 3, 4), (1,), True, reference=torch.amax)


@pytest.mark.parametrize("dtype", [F32, I32, BOOL])
def test_cumulative_sums(dtype):
    check("cumsum", tensor(dtype, 2, 5), 1, reference=torch.cumsum)


@pytest.mark.parametrize("args", [(), (1,), (1, True), (0, False)])
def test_argmax(args):
    check("argmax.default", tensor(F32, 3, 4), *args)


@settings(max_examples=25)
@given(data=st.data())
def test_slices_and_their_gradient(data):
    length = data.draw(st.integers(1, 9))
    start = data.draw(st.integers(0, length))
    end = data.draw(st.integers(start, length))
    step = data.draw(st.integers(1, 4))
    x = tensor(F32, 2, length, 3)
    check("slice", x, 1, start, end, step, reference=torch.ops.aten.slice.Tensor)
    part = tensor(F32, 2, -(-(end - start) // step), 3)
    check(
        "slice_backward",
        *(part, (2, length, 3), 1, start, end, step),
        reference=torch.ops.aten.slice_backward.default,
    )


def test_moves():
    x = tensor(F32, 2, 1, 3)
    check("cat", (x, tensor(F32, 2, 4, 3)), 1, reference=torch.cat)
    check("expand", x, (5, 2, 4, 3), reference=torch.Tensor.expand)
    check("permute", x, (2, 0, 1), reference=torch.permute)
    check("view", x, (3, 2), reference=torch.reshape)


def test_embedding_and_its_gradient_leave_out_the_padding_row():
    ids = tensor(I64, 2, 3)
    check("embedding.default", tensor(F32, 4, 5), ids, 1)
    check("embedding_dense_backward.default", tensor(F32, 2, 3, 5), ids, 4, 1, False)
    check("embedding_dense_backward.default", tensor(F32, 2, 3, 5), ids, 4, -1, False)


def test_indices():
    x, index = tensor(F32, 5, 4), tensor(I64, 3, 2)
    check("gather.default", x, 0, index)
    check("scatter_add.default", x, 1, index, tensor(F32, 4, 3, seed=1))
    check("index_select.default", x, 1, tensor(I64, 6))


@pytest.mark.parametrize("largest", [True, False])
def test_topk(largest):
    check("topk.default", tensor(F32, 3, 7), 4, 1, largest)


# --- products and norms ---


@pytest.mark.parametrize("equation", ["btd,ed->bte", "bhtd,bhsd->bhts", "btd,bte->ed", "ab,cb->ca"])
def test_products(equation):
    sizes = dict(zip("abcdehst", (2, 3, 4, 5, 6, 2, 3, 4), strict=True))
    first, second = equation.partition("->")[0].split(",")
    a = tensor(F64, *(sizes[c] for c in first))
    b = tensor(F64, *(sizes[c] for c in second), seed=1)
    check("einsum", equation, a, b, reference=lambda e, x, y: torch.einsum(e, x, y))


@pytest.mark.parametrize("causal", [True, False])
def test_attention_and_its_gradient_are_those_of_scaled_dot_product_attention(causal):
    q, k, v = (tensor(F64, 2, 3, t, 4, seed=s) for s, t in enumerate((5, 6, 6)))
    grad = tensor(F64, 2, 3, 5, 4, seed=9)
    leaves = [t.torch().requires_grad_() for t in (q, k, v)]
    out = torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=causal, scale=0.3)
    wanted = torch.autograd.grad(out, leaves, grad.torch())
    types = infer_types("attention", (*(Value(0),) * 3, causal, 0.3), (q.type, k.type, v.type))
    made, logsumexp = apply_operator("attention", (q.data, k.data, v.data, causal, 0.3), types)
    np.testing.assert_allclose(made, out.detach().numpy(), rtol=1e-12, atol=1e-12)
    gradients = apply_operator(
        "attention_backward",
        (grad.data, q.data, k.data, v.data, made, logsumexp, causal, 0.3),
        (q.type, k.type, v.type),
    )
    for gradient, expected in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(gradient, expected.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("dtype", [F64, F32, BF16])
def test_softmax_and_its_gradient(dtype, dim):
    x = tensor(dtype, 2, 3, 4)
    check("_softmax.default", x, dim, False)
    out = Tensor(apply_operator("_softmax.default", (x.data, dim, False), (x.type,))[0], dtype)
    name = dtype.value

    def reference(g, o, d, _):
        return aten("_softmax_backward_data.default")(g, o, d, TORCH[dtype])

    check(
        "_softmax_backward_data.default",
        tensor(dtype, 2, 3, 4, seed=1),
        out,
        dim,
        name,
        reference=reference,
    )


@pytest.mark.parametrize("mask", [(True, True, True), (True, False, False), (False, True, True)])
@pytest.mark.parametrize("dtypes", [(F64, F64), (F32, F32), (BF16, BF16), (BF16, F32)])
def test_layer_norm_and_its_gradient(dtypes, mask):
    dtype, affine = dtypes
    x, weight, bias = tensor(dtype, 3, 2, 5), tensor(affine, 5), tensor(affine, 5, seed=1)
    check("native_layer_norm.default", x, (5,), weight, bias, 1e-5)
    types = infer_types(
        "native_layer_norm.default",
        (Value(0), (5,), Value(1), Value(2), 1e-5),
        (x.type, weight.type, bias.type),
    )
    made = apply_operator(
        "native_layer_norm.default", (x.data, (5,), weight.data, bias.data, 1e-5), types
    )
    mean, rstd = (Tensor(m, of.dtype) for m, of in zip(made[1:], types[1:], strict=True))
    grad = tensor(dtype, 3, 2, 5, seed=2)
    # For a mixed pair ATen's gradients of the weight go through the narrower type.
    coarse = max(TOLERANCE[dtype], TOLERANCE[affine])
    op = "native_layer_norm_backward.default"
    check(op, grad, x, (5,), mean, rstd, weight, bias, mask, tolerance=coarse)


def test_layer_norm_without_weight_and_over_two_dims():
    check("native_layer_norm.default", tensor(F32, 3, 4, 5), (4, 5), None, None, 1e-5)


# --- convolution and pools ---

CONVOLUTIONS = {
    "plain": ((2, 4, 7, 6), (6, 4, 3, 3), (1, 1), (0, 0), (1, 1), False, (0, 0), 1),
    "strided": ((2, 4, 7, 6), (6, 4, 3, 2), (2, 3), (1, 2), (1, 1), False, (0, 0), 1),
    "dilated": ((2, 4, 9, 9), (6, 4, 3, 3), (1, 2), (2, 1), (2, 3), False, (0, 0), 1),
    "grouped": ((2, 4, 7, 6), (6, 2, 3, 3), (2, 1), (1, 1), (1, 1), False, (0, 0), 2),
    "depthwise": ((2, 4, 7, 6), (8, 1, 3, 3), (1, 1), (1, 1), (1, 1), False, (0, 0), 4),
    "one dim": ((2, 4, 9), (6, 4, 3), (2,), (1,), (1,), False, (0,), 1),
    "three dims": (
        (1, 2, 4, 5, 3),
        (3, 2, 2, 2, 2),
        (1,) * 3,
        (1,) * 3,
        (1,) * 3,
        False,
        (0,) * 3,
        1,
    ),
    "transposed": ((2, 4, 5, 6), (4, 3, 3, 3), (2, 2), (1, 0), (1, 1), True, (1, 0), 1),
    "transposed groups": ((2, 4, 5, 6), (4, 3, 3, 3), (2, 1), (1, 1), (1, 2), True, (1, 0), 2),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_and_its_gradients(name):
    x_shape, weight_shape, *rest = CONVOLUTIONS[name]
    transposed, groups = rest[3], rest[5]
    channels = weight_shape[1] * groups if transposed else weight_shape[0]
    x, weight, bias = tensor(F64, *x_shape), tensor(F64, *weight_shape), tensor(F64, channels)
    check("convolution.default", x, weight, bias, *rest)
    check("convolution.default", x, weight, None, *rest)
    (out,) = infer_types(
        "convolution.default", (Value(0), Value(1), None, *rest), (x.type, weight.type)
    )
    grad = tensor(F64, *out.shape, seed=1)
    for mask in ((True, True, True), (False, True, False), (True, False, True)):
        check("convolution_backward.default", grad, x, weight, (channels,), *rest, mask)


POOLS = {
    "plain": ((2, 3, 6, 6), (2, 2), (), (0, 0), False),
    "overlapping": ((2, 3, 7, 8), (3, 3), (2, 2), (1, 1), False),
    "one number": ((2, 3, 7, 8), (3,), (2,), (1,), False),
    "ceiling": ((2, 3, 6, 7), (3, 2), (2, 2), (1, 1), True),
    "no batch": ((3, 6, 7), (2, 3), (2, 1), (0, 1), True),
}


@pytest.mark.parametrize("name", POOLS)
def test_max_pool_and_its_gradient(name):
    shape, kernel, stride, padding, ceil = POOLS[name]
    x = tensor(F64, *shape)
    args = (kernel, stride, padding, (1, 1), ceil)
    check("max_pool2d_with_indices.default", x, *args)
    types = infer_types("max_pool2d_with_indices.default", (Value(0), *args), (x.type,))
    indices = Tensor(
        apply_operator("max_pool2d_with_indices.default", (x.data, *args), types)[1], I64
    )
    grad = tensor(F64, *types[0].shape, seed=1)
    check("max_pool2d_with_indices_backward.default", grad, x, *args, indices)


@pytest.mark.parametrize("rest", [(True, None), (False, None), (True, 5)])
@pytest.mark.parametrize("name", POOLS)
def test_average_pool_and_its_gradient(name, rest):
    shape, kernel, stride, padding, ceil = POOLS[name]
    x = tensor(F64, *shape)
    args = (kernel, stride, padding, ceil, *rest)
    check("avg_pool2d.default", x, *args)
    (out,) = infer_types("avg_pool2d.default", (Value(0), *args), (x.type,))
    check("avg_pool2d_backward.default", tensor(F64, *out.shape, seed=1), x, *args)


def test_every_operator_with_an_aten_name_is_one():
    names = [name for name, row in OPERATORS.items() if "." in name and row.kind is not Kind.INPUT]
    assert all(aten(name) for name in names)
