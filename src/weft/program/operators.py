"""The operators a program may use, as one table.

Capture reduces what a model does to these; sharding rules, costs, the reference evaluator
and the lowering cover these and no others. Names with a dot are ATen overloads and take
ATen's arguments in schema order. Names without one are weft's own, where ATen has several
spellings of one thing or none that can be split:

    input(name)                                 an input of the step
    full(size, value, dtype)                    a constant tensor
    iota(n, start, step, dtype)                 start, start + step, ...            [n]
    uniform(seed, salt, size)                   f32 in [0, 1): a hash of the seed, the salt and
                                                the element's position in the whole tensor, so
                                                that it does not depend on how it is split
    cast(x, dtype)
    view(x, size)                               any reshape, squeeze and unsqueeze included
    permute(x, dims)                            any transposition
    expand(x, size)                             repeat dims of size 1 and new leading dims
    slice(x, dim, start, end, step)
    slice_backward(grad, size, dim, start, end, step)   zeros with grad in the slice
    cat(tensors, dim)
    sum(x, dims, keepdim), amax(x, dims, keepdim)
    cumsum(x, dim)
    einsum(equation, a, b)                      every matrix product, batched or not; each
                                                letter once per operand, two operands
    attention(q, k, v, causal, scale)           -> (out, logsumexp); q [B,H,T,D]; k, v [B,H,S,D];
                                                logsumexp [B,H,T], f64 if q is, else f32
    attention_backward(grad, q, k, v, out, logsumexp, causal, scale)   -> (dq, dk, dv)

Element types in arguments are the strings of `DType`. Dims count from 0 and the bounds of slices
lie inside the tensor: see `weft.program.signatures`. Random numbers, matrix products,
means, variances, cross entropy and batch norm never appear in another form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from weft.core.errors import VerifyError

__all__ = ["OPERATORS", "Kind", "Operator", "operator"]


class Kind(Enum):
    """What sort of operator: decides the shape of its cost and of its sharding rule."""

    INPUT = "input"
    CREATE = "create"
    POINTWISE = "pointwise"
    VIEW = "view"
    """Moves no data, or only renames it."""
    MOVE = "move"
    """Copies data without arithmetic."""
    REDUCE = "reduce"
    CONTRACT = "contract"
    ATTENTION = "attention"
    CONVOLUTION = "convolution"
    NORMALIZE = "normalize"
    INDEX = "index"
    POOL = "pool"


@dataclass(frozen=True, slots=True)
class Operator:
    """One row of the table.

    Attributes:
        name: as it stands in a program.
        kind: see `Kind`.
        vector_ops: simple arithmetic operations per element of the largest operand or output;
            a transcendental counts as several. Used where arithmetic, not memory, is the limit.
        linear: pointwise only: which operands it is linear in *jointly*, so that summands may
            pass through: "" none, "one" its only tensor operand, "all" all operands together
            (addition), "each" each operand alone while the others are whole (multiplication),
            "first" the first operand alone (division, gradients of activations).
    """

    name: str
    kind: Kind
    vector_ops: float = 1.0
    linear: str = ""


def _rows() -> dict[str, Operator]:
    rows: list[Operator] = [
        Operator("input", Kind.INPUT, 0.0),
        *(Operator(n, Kind.CREATE) for n in ("full", "iota")),
        # Two rounds of `weft.program.random.mix` each.
        *(Operator(n, Kind.CREATE, 26.0) for n in ("uniform", "uniform_part")),
        *(Operator(n, Kind.VIEW, 0.0) for n in ("view", "permute", "expand")),
        Operator("send", Kind.VIEW, 0.0),  # a value on its way to another pipeline stage
        *(Operator(n, Kind.MOVE, 0.0) for n in ("slice", "slice_backward", "cat")),
        *(Operator(n, Kind.REDUCE) for n in ("sum", "amax", "cumsum")),
        Operator("argmax.default", Kind.REDUCE),
        Operator("einsum", Kind.CONTRACT),
        *(Operator(n, Kind.ATTENTION) for n in ("attention", "attention_backward")),
        *(
            Operator(n, Kind.CONVOLUTION)
            for n in ("convolution.default", "convolution_backward.default")
        ),
        Operator("_softmax.default", Kind.NORMALIZE, 12.0),
        Operator("_softmax_backward_data.default", Kind.NORMALIZE, 4.0),
        Operator("native_layer_norm.default", Kind.NORMALIZE, 8.0),
        Operator("native_layer_norm_backward.default", Kind.NORMALIZE, 12.0),
        Operator("embedding.default", Kind.INDEX, 0.0),
        Operator("embedding_dense_backward.default", Kind.INDEX),
        Operator("gather.default", Kind.INDEX, 0.0),
        Operator("scatter_add.default", Kind.INDEX),
        Operator("index_select.default", Kind.INDEX, 0.0),
        Operator("topk.default", Kind.INDEX, 8.0),
        Operator("max_pool2d_with_indices.default", Kind.POOL, 9.0),
        Operator("max_pool2d_with_indices_backward.default", Kind.POOL, 4.0),
        Operator("avg_pool2d.default", Kind.POOL, 9.0),
        Operator("avg_pool2d_backward.default", Kind.POOL, 9.0),
    ]
    rows += [Operator(n, Kind.POINTWISE, c, lin) for n, c, lin in _POINTWISE]
    return {row.name: row for row in rows}


# (name, simple operations an element, linearity). Costs of transcendentals are the lengths of
# the vectorised polynomial sequences in SLEEF, rounded: exp 10, tanh 15, erf 20, log 12.
_POINTWISE: tuple[tuple[str, float, str], ...] = (
    ("cast", 1.0, "one"),
    ("accumulate", 1.0, "one"),  # the sum of a value over the micro-batches of a step
    ("add.Tensor", 1.0, "all"),
    ("add.Scalar", 1.0, ""),
    ("sub.Tensor", 1.0, "all"),
    ("sub.Scalar", 1.0, ""),
    ("rsub.Scalar", 1.0, ""),
    ("mul.Tensor", 1.0, "each"),
    ("mul.Scalar", 1.0, "one"),
    ("div.Tensor", 4.0, "first"),
    ("div.Scalar", 4.0, "one"),
    ("neg.default", 1.0, "one"),
    ("abs.default", 1.0, ""),
    ("sign.default", 1.0, ""),
    ("pow.Tensor_Scalar", 2.0, ""),
    ("pow.Scalar", 12.0, ""),
    ("sqrt.default", 4.0, ""),
    ("rsqrt.default", 4.0, ""),
    ("reciprocal.default", 4.0, ""),
    ("exp.default", 10.0, ""),
    ("log.default", 12.0, ""),
    ("log1p.default", 14.0, ""),
    ("sin.default", 12.0, ""),
    ("cos.default", 12.0, ""),
    ("tanh.default", 15.0, ""),
    ("tanh_backward.default", 3.0, "first"),
    ("erf.default", 20.0, ""),
    ("sigmoid.default", 14.0, ""),
    ("sigmoid_backward.default", 3.0, "first"),
    ("relu.default", 1.0, ""),
    ("threshold_backward.default", 1.0, "first"),
    ("gelu.default", 22.0, ""),
    ("gelu_backward.default", 34.0, "first"),
    ("silu.default", 15.0, ""),
    ("silu_backward.default", 19.0, "first"),
    ("maximum.default", 1.0, ""),
    ("minimum.default", 1.0, ""),
    ("clamp.default", 2.0, ""),
    ("clamp_min.default", 1.0, ""),
    ("where.self", 1.0, ""),
    ("masked_fill.Scalar", 1.0, ""),
    ("eq.Scalar", 1.0, ""),
    ("eq.Tensor", 1.0, ""),
    ("ne.Scalar", 1.0, ""),
    ("ne.Tensor", 1.0, ""),
    ("lt.Scalar", 1.0, ""),
    ("lt.Tensor", 1.0, ""),
    ("le.Scalar", 1.0, ""),
    ("le.Tensor", 1.0, ""),
    ("gt.Scalar", 1.0, ""),
    ("gt.Tensor", 1.0, ""),
    ("ge.Scalar", 1.0, ""),
    ("ge.Tensor", 1.0, ""),
    ("logical_not.default", 1.0, ""),
    ("logical_and.default", 1.0, ""),
    ("logical_or.default", 1.0, ""),
    ("bitwise_not.default", 1.0, ""),
    ("bitwise_and.Tensor", 1.0, ""),
    ("bitwise_or.Tensor", 1.0, ""),
    ("floor.default", 1.0, ""),
    ("remainder.Scalar", 8.0, ""),
    ("floor_divide.Scalar", 8.0, ""),
)

OPERATORS: Mapping[str, Operator] = MappingProxyType(_rows())
"""Every operator, by name."""


def operator(name: str) -> Operator:
    """The table's row for an operator.

    Raises:
        VerifyError: the table has none.
    """
    try:
        return OPERATORS[name]
    except KeyError:
        raise VerifyError(
            need="an operator of the table in weft.program.operators",
            got=repr(name),
            hint="capture has to decompose it, or the table, the sharding rules, the "
            "evaluator and the cost model need a row for it",
        ) from None
