"""Laws of signatures that ATen does not have, or tells differently; the rest is compared with
ATen itself in tests/property/test_program_aten.py."""

import pytest

from weft.core.errors import VerifyError
from weft.program.graph import Value
from weft.program.infer import infer_types
from weft.program.types import DType, TensorType

X = Value(0)


def t(*shape, dtype=DType.F32):
    return TensorType(dtype, shape)


IDS = t(2, dtype=DType.I64)

BROKEN = {
    "negative dim": ("_softmax.default", (X, -1, False), (t(2, 3),), "integer|counted from 0"),
    "dim out of range": ("cumsum", (X, 2), (t(2, 3),), "counted from 0"),
    "no dims": ("sum", (X, ()), (t(2),), "one or more different dims"),
    "dims twice": ("sum", (X, (0, 0)), (t(2),), "different dims"),
    "negative dims": ("amax", (X, (-1,)), (t(2),), "integers of at least 0"),
    "elements lost": ("view", (X, (5,)), (t(2, 3),), "as many elements"),
    "open size": ("view", (X, (-1,)), (t(2, 3),), "integers of at least 0"),
    "permutation": ("permute", (X, (0, 0)), (t(2, 3),), "each dim of the tensor once"),
    "expansion": ("expand", (X, (4,)), (t(2),), "the old sizes"),
    "open slice": ("slice", (X, 0, 0, 2**63 - 1, 1), (t(4),), "clamp the bounds"),
    "slice step": ("slice", (X, 0, 0, 4, 0), (t(4),), "step of at least 1"),
    "slice gradient": ("slice_backward", (X, (4,), 0, 0, 3), (t(4),), "slice's own shape"),
    "cat types": ("cat", ((X, X), 0), (t(2), t(2, dtype=DType.F64)), "agree in type"),
    "cat sizes": ("cat", ((X, X), 0), (t(2, 3), t(2, 4)), "agree in type and in every dim"),
    "cat of none": ("cat", ((), 0), (), "at least one tensor"),
    "equation": ("einsum", ("ab->b", X, X), (t(2, 3), t(3)), "two operands"),
    "letters": ("einsum", ("ab,bc->ac", X, X), (t(2, 3), t(4, 5)), "one size for letter 'b'"),
    "letter twice": ("einsum", ("aa,ab->b", X, X), (t(2, 2), t(2, 3)), "each letter once"),
    "unknown letter": ("einsum", ("ab,bc->ad", X, X), (t(2, 3), t(3, 4)), "that an operand has"),
    "letter count": ("einsum", ("ab,bc->ac", X, X), (t(2), t(3, 4)), "one letter for each dim"),
    "product types": (
        "einsum",
        ("a,a->", X, X),
        (t(2), t(2, dtype=DType.BF16)),
        "one element type",
    ),
    "attention": (
        "attention",
        (X, X, X, True, 1.0),
        (t(1, 2, 3, 4), t(1, 1, 3, 4), t(1, 1, 3, 4)),
        r"q \[B,H,T,D\]",
    ),
    "float seed": ("uniform", (X, 0, (2,)), (t(),), "integer seed"),
    "salt": ("uniform", (X, -1, (2,)), (t(dtype=DType.I64),), "salt from 0"),
    "float index": ("index_select.default", (X, 0, X), (t(2), t(2)), "integer indices"),
    "too many of top": ("topk.default", (X, 3, 0), (t(2),), "at most 2"),
    "condition": ("where.self", (X, X, X), (t(2), t(2), t(2)), "condition of bool"),
    "no limits": ("clamp.default", (X,), (t(2),), "lower or an upper limit"),
    "gradient": ("silu_backward.default", (X, X), (t(2), t(3)), "like the saved tensor"),
    "number for tensor": ("relu.default", (0.5,), (), "a tensor as x"),
    "tensor for number": ("pow.Tensor_Scalar", (X, (X,)), (t(2), t(2)), "a number as other"),
    "flag for integer": ("cumsum", (X, True), (t(2, 3),), "an integer as dim"),
    "element type": ("cast", (X, "float32"), (t(2),), "name of an element type as dtype"),
    "too few": ("_softmax.default", (X,), (t(2),), "2 to 3 arguments: x, dim, half_to_float"),
    "too many": ("exp.default", (X, 1), (t(2),), "1 to 1 arguments"),
    "normalized": ("native_layer_norm.default", (X, (2,), None, None, 1e-5), (t(2, 3),), "last"),
    "statistics": (
        "native_layer_norm_backward.default",
        (X, X, (3,), X, X, None, None, (True, False, False)),
        (t(2, 3), t(2, 3), t(2), t(2)),
        r"statistics f32\[2,1\]",
    ),
    "channels": (
        "convolution.default",
        (X, X, None, (1,), (0,), (1,), False, (0,), 1),
        (t(1, 3, 8), t(4, 2, 3)),
        "2 input channels in 1 groups",
    ),
    "kernel": (
        "convolution.default",
        (X, X, None, (1,), (0,), (1,), False, (0,), 1),
        (t(1, 2, 2), t(4, 2, 3)),
        "kernel that fits",
    ),
    "an input": ("input", ("x",), (), "given, not inferred"),
    "no such operator": ("addmm.default", (X, X, X), (t(2),) * 3, "operator of the table"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_laws_are_told(name):
    op, args, operands, words = BROKEN[name]
    with pytest.raises(VerifyError, match=words):
        infer_types(op, args, operands)


def test_the_error_shows_the_call_with_its_types():
    with pytest.raises(VerifyError) as caught:
        infer_types("cat", ((X, X), 0), (t(2, 3), t(2, 4)))
    assert caught.value.where == "cat((f32[2,3], f32[2,4]), 0)"


def test_outputs_that_a_mask_switches_off_are_empty():
    operands = (t(1, 4, 6), t(1, 2, 8), t(4, 2, 3))
    args = (X, X, X, (4,), (1,), (0,), (1,), False, (0,), 1, (False, True, False))
    made = infer_types("convolution_backward.default", args, operands)
    assert [str(of) for of in made] == ["f32[0]", "f32[4,2,3]", "f32[0]"]


def test_attention_statistics_are_f32_unless_attention_is_f64():
    for dtype, statistics in ((DType.BF16, DType.F32), (DType.F64, DType.F64)):
        q = t(1, 2, 5, 4, dtype=dtype)
        out, logsumexp = infer_types("attention", (X, X, X, False, 1.0), (q, q, q))
        assert (out, logsumexp) == (q, t(1, 2, 5, dtype=statistics))


def test_trailing_defaults_may_be_left_out():
    assert infer_types("sum", (X, (1,)), (t(2, 3),)) == infer_types(
        "sum", (X, (1,), False), (t(2, 3),)
    )


def test_numbers_stand_in_for_the_second_tensor():
    assert infer_types("add.Tensor", (X, 0.5), (IDS,)) == (t(2),)
