"""Small calls of every operator, drawn at random: arguments and operand types.

Sizes are mostly 6, so that cuts in two and in three both divide, with some 1, 2 and 3 so that
broadcasts and cuts that do not divide occur too.
"""

import math
from dataclasses import dataclass

from hypothesis import strategies as st

from weft.program.graph import Arg, Value
from weft.program.infer import infer_types
from weft.program.operators import OPERATORS, Kind
from weft.program.types import DType, TensorType

F, INT, B = DType.F64, DType.I64, DType.BOOL
SIZES = st.sampled_from((6, 6, 6, 6, 2, 3, 1))


@dataclass(frozen=True)
class Sample:
    """One call; `below` bounds integer operands by operand index."""

    op: str
    args: tuple[Arg, ...]
    operands: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    below: tuple[tuple[int, int], ...] = ()


def values(*numbers):
    return tuple(Value(number) for number in numbers)


def shapes(min_rank=0, max_rank=3):
    return st.lists(SIZES, min_size=min_rank, max_size=max_rank).map(tuple)


@st.composite
def broadcastable(draw, shape):
    """A shape that repeats up to `shape`."""
    kept = shape[draw(st.integers(0, len(shape))) :]
    return tuple(1 if draw(st.integers(0, 3)) == 0 else size for size in kept)


# --- element-wise ----------------------------------------------------------------------------

# Arguments by name: t, u tensors of the result's category, s a number, b a bool tensor.
FORMS = {
    "add.Tensor": ("tu", "tu", "tus", "ts"),
    "sub.Tensor": ("tu", "tus", "ts"),
    "mul.Tensor": ("tu", "ts"),
    "div.Tensor": ("tu", "ts"),
    "pow.Scalar": ("st",),
    "clamp.default": ("tss",),
    "clamp_min.default": ("ts",),
    "where.self": ("btu",),
    "masked_fill.Scalar": ("tbs", "tb0"),
    "threshold_backward.default": ("tvs",),
}
TWO_TENSORS = ("maximum", "minimum", "logical_and", "logical_or", "bitwise_and", "bitwise_or")
INTEGRAL = ("bitwise_and.Tensor", "bitwise_or.Tensor", "bitwise_not.default")


def form(op):
    if op in FORMS:
        return st.sampled_from(FORMS[op])
    name, _, overload = op.partition(".")
    if name.endswith("_backward"):
        return st.just("tv")
    if overload.endswith("Scalar"):
        return st.just("ts")
    return st.just("tu" if overload == "Tensor" or name in TWO_TENSORS else "t")


@st.composite
def pointwise(draw, op):
    letters = draw(form(op))
    shape = draw(shapes(max_rank=3))
    dtype = INT if op in INTEGRAL else F
    args, operands = [], []
    for letter in letters:
        if letter in "s0":
            args.append(0.0 if letter == "0" else draw(st.sampled_from((0.5, 2.0))))
            continue
        mine = shape if letter in "tv" else draw(broadcastable(shape))
        args.append(Value(len(operands)))
        operands.append(TensorType(B if letter == "b" else dtype, mine))
    if op == "cast":
        target = draw(st.sampled_from((F, INT, B)))
        operands = [TensorType(draw(st.sampled_from((F, INT, B))), shape)]
        args.append(target.value)
    if len(operands) == 2 and operands[0].shape == operands[1].shape and draw(st.booleans()):
        # One value read twice; both reads are operands of their own.
        args = [Value(0) if isinstance(arg, Value) else arg for arg in args]
        args = args if operands[0] == operands[1] else [Value(0), Value(1), *args[2:]]
    return tuple(args), operands, {}


# --- views and moves -------------------------------------------------------------------------


@st.composite
def view(draw, op):
    """Split and merge the factors of a product at random places."""
    factors = draw(st.lists(st.sampled_from((6, 6, 2, 3, 1)), max_size=4))

    def grouped():
        sizes, group = [], 1
        for factor in factors:
            group *= factor
            if draw(st.booleans()):
                sizes.append(group)
                group = 1
        sizes += [group] if group > 1 or not sizes else []
        at = draw(st.integers(0, len(sizes)))
        return (*sizes[:at], *(1,) * draw(st.integers(0, 1)), *sizes[at:])

    source, target = grouped(), grouped()
    return (Value(0), target), [TensorType(F, source)], {}


@st.composite
def permute(draw, op):
    shape = draw(shapes(max_rank=4))
    dims = tuple(draw(st.permutations(range(len(shape)))))
    return (Value(0), dims), [TensorType(F, shape)], {}


@st.composite
def expand(draw, op):
    target = draw(shapes(max_rank=4))
    return (Value(0), target), [TensorType(F, draw(broadcastable(target)))], {}


@st.composite
def bounds(draw, length):
    if draw(st.booleans()):
        return 0, length, 1
    start = draw(st.integers(0, length - 1))
    return start, draw(st.integers(start + 1, length)), draw(st.integers(1, 2))


@st.composite
def slices(draw, op):
    shape = draw(shapes(min_rank=1))
    dim = draw(st.integers(0, len(shape) - 1))
    start, end, step = draw(bounds(shape[dim]))
    if op == "slice":
        return (Value(0), dim, start, end, step), [TensorType(F, shape)], {}
    kept = (*shape[:dim], len(range(start, end, step)), *shape[dim + 1 :])
    return (Value(0), shape, dim, start, end, step), [TensorType(F, kept)], {}


@st.composite
def cat(draw, op):
    shape = draw(shapes(min_rank=1))
    dim = draw(st.integers(0, len(shape) - 1))
    lengths = draw(st.lists(SIZES, min_size=1, max_size=3))
    operands = [TensorType(F, (*shape[:dim], n, *shape[dim + 1 :])) for n in lengths]
    return (values(*range(len(lengths))), dim), operands, {}


# --- reductions and products -----------------------------------------------------------------


@st.composite
def reduction(draw, op):
    shape = draw(shapes(min_rank=1))
    dtype = draw(st.sampled_from((F, INT, B))) if op == "sum" else F
    dims = draw(st.sets(st.integers(0, len(shape) - 1), min_size=1).map(sorted))
    return (Value(0), tuple(dims), draw(st.booleans())), [TensorType(dtype, shape)], {}


@st.composite
def cumsum(draw, op):
    shape = draw(shapes(min_rank=1))
    return (Value(0), draw(st.integers(0, len(shape) - 1))), [TensorType(F, shape)], {}


@st.composite
def argmax(draw, op):
    shape = draw(shapes(min_rank=1))
    dim = draw(st.sampled_from((None, *range(len(shape)))))
    return (Value(0), dim, draw(st.booleans())), [TensorType(F, shape)], {}


@st.composite
def einsum(draw, op):
    letters = "abcd"[: draw(st.integers(1, 4))]
    sizes = {letter: draw(SIZES) for letter in letters}
    left, right = (
        "".join(draw(st.permutations([c for c in letters if draw(st.integers(0, 2))])))
        for _ in range(2)
    )
    both = sorted(set(left + right))
    out = "".join(draw(st.permutations([c for c in both if draw(st.integers(0, 2))])))
    operands = [TensorType(F, tuple(sizes[c] for c in term)) for term in (left, right)]
    return (f"{left},{right}->{out}", *values(0, 1)), operands, {}


@st.composite
def attention(draw, op):
    batch, heads, rows, keys, width = (draw(SIZES) for _ in range(5))
    causal = draw(st.booleans())
    q, k = TensorType(F, (batch, heads, rows, width)), TensorType(F, (batch, heads, keys, width))
    lse = TensorType(F, q.shape[:3])
    operands = [q, k, k] if op == "attention" else [q, q, k, k, q, lse]
    return (*values(*range(len(operands))), causal, 0.5), operands, {}


# --- convolution and pools -------------------------------------------------------------------


@st.composite
def convolution(draw, op):
    rank = draw(st.integers(1, 2))
    groups = draw(st.sampled_from((1, 1, 1, 2)))
    inner, made = (groups * draw(st.sampled_from((1, 3, 6))) for _ in range(2))
    kernel = tuple(draw(st.integers(1, 2)) for _ in range(rank))
    transposed = draw(st.booleans()) and groups == 1
    x = TensorType(F, (draw(SIZES), inner, *(draw(st.integers(3, 6)) for _ in range(rank))))
    channels = (inner, made // groups) if transposed else (made, inner // groups)
    weight = TensorType(F, (*channels, *kernel))
    steps = tuple((draw(st.integers(1, 2)),) * rank for _ in range(2))
    constants = (steps[0], (draw(st.integers(0, 1)),) * rank, (1,) * rank, transposed)
    constants += ((0,) * rank, groups)
    bias = TensorType(F, (made,))
    if op == "convolution.default":
        if draw(st.booleans()):
            return (*values(0, 1), None, *constants), [x, weight], {}
        return (*values(0, 1, 2), *constants), [x, weight, bias], {}
    mask = tuple(draw(st.booleans()) for _ in range(3))
    sizes = (made,) if mask[2] else None
    forward = (*values(0, 1), None, *constants)
    (grad,) = infer_types("convolution.default", forward, (x, weight))
    return (*values(0, 1, 2), sizes, *constants, mask), [grad, x, weight], {}


@st.composite
def pool(draw, op):
    shape = (*draw(shapes(min_rank=1, max_rank=2)), *(draw(st.integers(2, 6)) for _ in range(2)))
    x = TensorType(F, shape)
    kernel, stride = ((draw(st.integers(1, 2)),) * 2 for _ in range(2))
    window = (kernel, stride, (draw(st.integers(0, kernel[0] // 2)),) * 2)
    ceil = draw(st.booleans())
    if op.startswith("max"):
        window += ((1, 1), ceil)
        out, indices = infer_types("max_pool2d_with_indices.default", (Value(0), *window), (x,))
        if op == "max_pool2d_with_indices.default":
            return (Value(0), *window), [x], {}
        operands = [out, x, indices]
        return (*values(0, 1), *window, Value(2)), operands, {2: shape[-1] * shape[-2]}
    window += (ceil, draw(st.booleans()), None)
    (out,) = infer_types("avg_pool2d.default", (Value(0), *window), (x,))
    if op == "avg_pool2d.default":
        return (Value(0), *window), [x], {}
    return (*values(0, 1), *window), [out, x], {}


# --- normalisation ---------------------------------------------------------------------------


@st.composite
def softmax(draw, op):
    x = TensorType(F, draw(shapes(min_rank=1)))
    dim = draw(st.integers(0, len(x.shape) - 1))
    if op == "_softmax.default":
        return (Value(0), dim, False), [x], {}
    return (*values(0, 1), dim, "f64"), [x, x], {}


@st.composite
def layer_norm(draw, op):
    shape = draw(shapes(min_rank=1))
    count = draw(st.integers(1, len(shape)))
    x, affine = TensorType(F, shape), TensorType(F, shape[-count:])
    statistics = TensorType(F, shape[:-count] + (1,) * count)
    backward = op != "native_layer_norm.default"
    operands = [x, x, statistics, statistics] if backward else [x]
    tail = []
    for _ in range(2):
        there = draw(st.booleans())
        tail.append(Value(len(operands)) if there else None)
        operands += [affine] if there else []
    if not backward:
        return (Value(0), affine.shape, *tail, 1e-5), operands, {}
    # ATen makes no gradient of a weight or bias that is not there.
    mask = tuple(draw(st.booleans()) and v is not None for v in (Value(0), *tail))
    return (*values(0, 1), affine.shape, *values(2, 3), *tail, mask), operands, {}


# --- lookups ---------------------------------------------------------------------------------


@st.composite
def embedding(draw, op):
    rows, columns = draw(SIZES), draw(SIZES)
    ids = TensorType(INT, draw(shapes(max_rank=2)))
    padding = draw(st.sampled_from((-1, rows - 1)))
    if op == "embedding.default":
        table = TensorType(F, (rows, columns))
        return (*values(0, 1), padding, False, False), [table, ids], {1: rows}
    grad = TensorType(F, (*ids.shape, columns))
    return (*values(0, 1), rows, padding, False), [grad, ids], {1: rows}


@st.composite
def lookup(draw, op):
    shape = draw(shapes(min_rank=1))
    dim = draw(st.integers(0, len(shape) - 1))
    x = TensorType(F, shape)
    if op == "index_select.default":
        return (Value(0), dim, Value(1)), [x, TensorType(INT, (draw(SIZES),))], {1: shape[dim]}
    smaller = [draw(st.sampled_from((n, n, max(n // 2, 1)))) for n in shape]
    smaller[dim] = draw(SIZES)
    index = TensorType(INT, tuple(smaller))
    if op == "gather.default":
        return (Value(0), dim, Value(1)), [x, index], {1: shape[dim]}
    larger = tuple(n + draw(st.sampled_from((0, 0, n))) for n in smaller)
    operands = [x, index, TensorType(F, larger)]
    return (Value(0), dim, *values(1, 2)), operands, {1: shape[dim]}


@st.composite
def topk(draw, op):
    shape = draw(shapes(min_rank=1))
    dim = draw(st.integers(0, len(shape) - 1))
    return (Value(0), draw(st.integers(1, shape[dim])), dim), [TensorType(F, shape)], {}


# --- creation --------------------------------------------------------------------------------


@st.composite
def creation(draw, op):
    shape = draw(shapes())
    if op == "full":
        return (shape, draw(st.sampled_from((0.0, 1.5))), "f64"), [], {}
    if op == "iota":
        return (draw(SIZES), draw(st.integers(-2, 2)), draw(st.integers(1, 3)), "i64"), [], {}
    salt = draw(st.integers(0, 9))
    if op == "uniform_part" and shape:
        dim, pieces = draw(st.integers(0, len(shape) - 1)), draw(st.integers(1, 3))
        operands = [TensorType(INT, ())] * 2
        return (*values(0, 1), salt, shape, dim, pieces), operands, {1: pieces}
    if op == "uniform_part":
        return (*values(0, 1), salt, (4,), 0, 2), [TensorType(INT, ())] * 2, {1: 2}
    return (Value(0), salt, shape), [TensorType(INT, ())], {}


@st.composite
def sending(draw, op):
    return (Value(0), "forward.3.0.1"), [TensorType(F, draw(shapes()))], {}


BY_NAME = {
    "view": view, "send": sending, "permute": permute, "expand": expand, "slice": slices,
    "slice_backward": slices, "cat": cat, "sum": reduction, "amax": reduction,
    "cumsum": cumsum, "argmax.default": argmax, "einsum": einsum, "attention": attention,
    "attention_backward": attention, "_softmax.default": softmax,
    "_softmax_backward_data.default": softmax, "native_layer_norm.default": layer_norm,
    "native_layer_norm_backward.default": layer_norm, "embedding.default": embedding,
    "embedding_dense_backward.default": embedding, "topk.default": topk,
}  # fmt: skip
BY_KIND = {
    Kind.POINTWISE: pointwise, Kind.CONVOLUTION: convolution, Kind.POOL: pool,
    Kind.INDEX: lookup, Kind.CREATE: creation,
}  # fmt: skip

NAMES = tuple(name for name in OPERATORS if name != "input")


@st.composite
def calls(draw, op):
    """A sample of one operator."""
    family = BY_NAME.get(op) or BY_KIND[OPERATORS[op].kind]
    args, operands, below = draw(family(op))
    outputs = infer_types(op, args, tuple(operands))
    assert max(math.prod(t.shape) for t in (*operands, *outputs)) <= 6**5
    return Sample(op, args, tuple(operands), outputs, tuple(below.items()))
