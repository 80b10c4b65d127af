from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.programs import mlp, transformer
from weft.core.errors import VerifyError
from weft.program.graph import Value
from weft.program.infer import infer_types
from weft.program.operators import OPERATORS, Kind
from weft.program.types import DType, TensorType
from weft.program.work import NO_WORK, work

X, Y = Value(0), Value(1)


def t(*shape, dtype=DType.F32):
    return TensorType(dtype, shape)


def work_of(op, args, *operands):
    return work(op, args, operands, infer_types(op, args, operands))


def nbytes(*types):
    return sum(of.num_bytes for of in types)


@settings(max_examples=50)
@given(data=st.data())
def test_a_product_multiplies_once_for_each_choice_of_letters(data):
    letters = data.draw(st.permutations("abcd"))
    sizes = {letter: data.draw(st.integers(1, 4)) for letter in letters}
    terms = [
        "".join(data.draw(st.lists(st.sampled_from(letters), unique=True, max_size=4)))
        for _ in range(2)
    ]
    met = sorted(set("".join(terms)))
    out = "".join(data.draw(st.lists(st.sampled_from(met), unique=True)) if met else [])
    operands = [t(*(sizes[c] for c in term)) for term in terms]
    made = work_of("einsum", (f"{terms[0]},{terms[1]}->{out}", X, Y), *operands)
    multiplications = sum(1 for _ in product(*(range(sizes[c]) for c in met)))
    assert made.flops == 2 * multiplications
    assert made.read_bytes == nbytes(*operands)
    assert made.written_bytes == 4 * np.prod([sizes[c] for c in out])


@pytest.mark.parametrize("dtype", [DType.F32, DType.BF16])
def test_a_product_runs_in_the_type_of_its_operands(dtype):
    a = t(2, 3, dtype=dtype)
    assert work_of("einsum", ("ab,ab->a", X, Y), a, a).flops_dtype == dtype.value


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("view", (X, (8, 6))),
        ("permute", (X, (1, 0))),
        ("expand", (X, (5, 6, 8))),
        ("slice", (X, 0, 1, 3, 1)),
    ],
)
def test_what_only_renames_data_does_no_work(op, args):
    assert work_of(op, args, t(6, 8)) == NO_WORK


def test_inputs_do_no_work():
    assert work("input", ("x",), (), (t(6, 8),)) == NO_WORK


def test_element_wise_work_streams_operands_and_output():
    a, b = t(8, 1, dtype=DType.BF16), t(6)
    made = work_of("mul.Tensor", (X, Y), a, b)
    assert (made.read_bytes, made.written_bytes) == (8 * 2 + 6 * 4, 48 * 4)
    assert (made.vector_ops, made.flops) == (48, 0)


def test_a_square_reads_its_operand_once():
    a = t(6, 8)
    assert work_of("mul.Tensor", (X, X), a, a).read_bytes == a.num_bytes
    assert work_of("mul.Tensor", (X, Y), a, a).read_bytes == 2 * a.num_bytes


def test_a_reduction_works_on_what_it_reads():
    made = work_of("sum", (X, (0, 1)), t(6, 8))
    assert (made.vector_ops, made.read_bytes, made.written_bytes) == (48, 192, 4)


def attention(queries, keys, causal):
    q, k = t(2, 3, queries, 8), t(2, 3, keys, 8)
    return work_of("attention", (X, X, X, causal, 1.0), q, k, k)


def attention_backward(queries, keys, causal):
    q, k, statistics = t(2, 3, queries, 8), t(2, 3, keys, 8), t(2, 3, queries)
    return work_of("attention_backward", (*(X,) * 6, causal, 1.0), q, q, k, k, q, statistics)


def test_attention_is_two_products_and_half_of_that_if_causal():
    scores = work_of("einsum", ("bhtd,bhsd->bhts", X, Y), t(2, 3, 5, 8), t(2, 3, 7, 8))
    assert attention(5, 7, False).flops == 2 * scores.flops
    assert attention(7, 7, True).flops == attention(7, 7, False).flops / 2


def test_the_last_rows_of_a_sequence_see_most_of_it():
    share = attention(2, 8, True).flops / attention(2, 8, False).flops
    assert share == 1 - 2 / 16


@pytest.mark.parametrize("causal", [True, False])
def test_attention_backward_is_five_products_where_forward_is_two(causal):
    assert attention_backward(5, 7, causal).flops == 2.5 * attention(5, 7, causal).flops


def test_attention_never_writes_its_scores():
    short, long = attention(8, 64, False), attention(8, 128, False)
    assert short.written_bytes == long.written_bytes
    assert short.vector_ops * 2 == long.vector_ops


CONV = ((2,), (1,), (1,), False, (0,), 2)


def test_a_convolution_is_the_product_of_its_windows():
    x, weight = t(3, 4, 9), t(6, 2, 3)
    made = work_of("convolution.default", (X, Y, None, *CONV), x, weight)
    # Each of 3 x 6 x 5 results is a sum over 2 channels (of 4, in 2 groups) times 3 places.
    assert made.flops == 2 * (3 * 6 * 5) * (2 * 3)
    assert made.flops_dtype == "f32"


def test_a_transposed_convolution_works_as_much_as_the_convolution_that_it_undoes():
    plain = work_of("convolution.default", (X, Y, None, *CONV[:-1], 1), t(3, 4, 9), t(6, 4, 3))
    back = work_of(
        "convolution.default",
        (X, Y, None, (2,), (1,), (1,), True, (0,), 1),
        t(3, 6, 5),
        t(6, 4, 3),
    )
    assert plain.flops == back.flops


def test_a_convolution_backward_is_one_forward_for_each_wanted_product():
    x, weight, grad = t(3, 4, 9), t(6, 2, 3), t(3, 6, 5)
    forward = work_of("convolution.default", (X, Y, None, *CONV), x, weight).flops

    def backward(*mask):
        args = (X, X, X, (6,), *CONV, mask)
        return work_of("convolution_backward.default", args, grad, x, weight)

    assert backward(True, True, True).flops == 2 * forward
    assert backward(False, True, False).flops == forward
    assert backward(False, False, True).flops == 0
    assert backward(False, True, False).read_bytes == nbytes(grad, x)
    assert backward(True, False, False).written_bytes == nbytes(x)


def test_a_lookup_reads_only_the_rows_it_names():
    ids = t(3, dtype=DType.I64)
    small = work_of("embedding.default", (X, Y), t(10, 8), ids)
    assert small == work_of("embedding.default", (X, Y), t(10_000, 8), ids)
    assert small.read_bytes == 3 * 8 + 3 * 8 * 4


def test_a_table_gradient_is_written_whole():
    grad, ids = t(3, 8), t(3, dtype=DType.I64)
    args = (X, Y, 10_000, -1, False)
    assert work_of("embedding_dense_backward.default", args, grad, ids).written_bytes > 320_000


def test_operands_that_only_tell_a_shape_are_not_read():
    grad, x = t(2, 3, 4, 4), t(2, 3, 8, 8)
    args = (X, Y, (2, 2), (2, 2), (0, 0), False, True, None)
    assert work_of("avg_pool2d_backward.default", args, grad, x).read_bytes == grad.num_bytes


def test_size_arguments_of_the_whole_tensor_do_not_count():
    # One of two devices: half the batch, and arguments that still name the whole.
    whole, local = t(8, 6), t(4, 6)
    args = ((8, 6), 0.0, "f32")
    assert work("full", args, (), (local,)).written_bytes == local.num_bytes
    ids = t(3, dtype=DType.I64)
    table = work("embedding_dense_backward.default", (X, Y, 8, -1, False), (t(3, 6), ids), (local,))
    assert table.written_bytes == local.num_bytes + 3 * 6 * 4
    assert work("full", args, (), (whole,)).written_bytes == 2 * local.num_bytes


@pytest.mark.parametrize("program", [mlp(2), transformer(2, dropout=0.1)], ids=lambda p: p.name)
def test_nothing_is_free_but_views(program):
    for number, node in enumerate(program.nodes):
        operands = tuple(map(program.type_of, program.operands(number)))
        made = work(node.op, node.args, operands, node.outputs)
        free = OPERATORS[node.op].kind in (Kind.INPUT, Kind.VIEW)
        assert (made == NO_WORK) == free
        assert (made.flops > 0) == bool(made.flops_dtype)
        assert free or made.written_bytes >= nbytes(*node.outputs)


def test_a_training_step_of_products_is_three_forwards():
    program = mlp(3)
    flops = {"forward": 0.0, "backward": 0.0, "update": 0.0}
    for number, node in enumerate(program.nodes):
        operands = tuple(map(program.type_of, program.operands(number)))
        flops[node.phase.value] += work(node.op, node.args, operands, node.outputs).flops
    first = 2 * 4 * 8 * 16  # the gradient by the batch itself is left out
    assert flops["backward"] == 2 * flops["forward"] - first
    assert flops["update"] == 0


def test_an_unknown_operator_is_named():
    with pytest.raises(VerifyError, match="sinh"):
        work("sinh.default", (X,), (t(2),), (t(2),))
