"""Arithmetic and memory traffic of one operator, from the types it is given.

Types may be those of a whole tensor or of one device's part: sizes are always taken from them,
never from size arguments. Counts are of an operator that runs alone: each operand is read once
and each output written once. Knows nothing of devices: `weft.cost` turns work into seconds.

Matrix work is counted in multiply and add, 2 operations each. Attention counts the two products
of its forward, 4 B H T S D, half of that where causal (the blocks above the diagonal are
skipped); its backward has five products of the same size, one of them the forward's again, so
2.5 times as much.

Source: products counted from the definitions; attention as in Dao, FlashAttention-2
(arXiv 2307.08691), section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from types import MappingProxyType
from typing import TypeAlias

from weft.program.graph import Arg
from weft.program.operators import OPERATORS, Kind, operator
from weft.program.types import TensorType

__all__ = ["NO_WORK", "Work", "work"]

_Types: TypeAlias = tuple[TensorType, ...]
_Args: TypeAlias = tuple[Arg, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """What one operator does.

    Attributes:
        flops: floating-point operations of matrix products.
        flops_dtype: element type of those, such as "bf16"; "" if there are none.
        vector_ops: simple operations of element-wise arithmetic; see `Operator.vector_ops`.
        read_bytes: memory read [bytes].
        written_bytes: memory written [bytes].
    """

    flops: float = 0.0
    flops_dtype: str = ""
    vector_ops: float = 0.0
    read_bytes: float = 0.0
    written_bytes: float = 0.0


NO_WORK = Work()
"""The work of views and inputs."""


def work(op: str, args: _Args, operands: _Types, outputs: _Types) -> Work:
    """Work of an operator on operands of the given types.

    Args:
        op: operator name.
        args: arguments in schema order.
        operands: type of each value among the arguments, in order, repeats included.
        outputs: type of each output.

    Raises:
        VerifyError: no such operator.

    Example:
        >>> from weft.program.graph import Value
        >>> from weft.program.types import DType
        >>> a, b, c = (TensorType(DType.F32, s) for s in ((2, 3), (5, 3), (2, 5)))
        >>> work("einsum", ("td,ed->te", Value(0), Value(1)), (a, b), (c,))
        Work(flops=60.0, flops_dtype='f32', vector_ops=0.0, read_bytes=84, written_bytes=40)
    """
    rule = _RULES.get(op)
    if rule is None:
        operator(op)
        raise AssertionError(f"{op} is in the operator table but has no work rule")
    return rule(op, args, operands, outputs)


def _bytes(types: _Types) -> int:
    return sum(prod(t.shape) * t.dtype.num_bytes for t in types)


def _nothing(op: str, args: _Args, operands: _Types, outputs: _Types) -> Work:
    return NO_WORK


def _streamed(op: str, args: _Args, operands: _Types, outputs: _Types) -> Work:
    """Reads every operand, writes every output, works on the largest of them."""
    read = operands
    if len(read) == 2 and len(args) > 1 and args[0] == args[1]:
        read = read[:1]  # a square reads its operand once
    largest = max([prod(t.shape) for t in read] + [prod(t.shape) for t in outputs])
    return Work(0.0, "", _VECTOR_OPS[op] * largest, _bytes(read), _bytes(outputs))


def _shape_only(position: int) -> _Rule:
    """As `_streamed`, for operators of which one operand only tells a shape."""

    def rule(op: str, args: _Args, operands: _Types, outputs: _Types) -> Work:
        return _streamed(op, (), operands[:position] + operands[position + 1 :], outputs)

    return rule


@lru_cache(maxsize=4096)
def _letters_of_second_only(equation: str) -> tuple[int, ...]:
    first, _, rest = equation.partition(",")
    second = rest.partition("->")[0]
    return tuple(d for d, letter in enumerate(second) if letter not in first)


def _einsum(op: str, args: _Args, operands: _Types, outputs: _Types) -> Work:
    a, b = operands
    flops = 2.0 * prod(a.shape)
    for dim in _letters_of_second_only(str(args[0])):
        flops *= b.shape[dim]
    return Work(flops, a.dtype.value, 0.0, _bytes(operands), _bytes(outputs))


def causal_share(num_rows: int, num_keys: int) -> float:
    """Share of all scores that the last rows of a sequence see: half of them if it is all rows."""
    return 1.0 - num_rows / (2.0 * max(num_rows, num_keys, 1))


def _attention_work(
    q: TensorType, k: TensorType, causal: bool, num_products: float, ops: float
) -> tuple[float, float]:
    scores = float(prod(q.shape[:3]) * k.shape[2])
    if causal:
        scores *= causal_share(q.shape[2], k.shape[2])
    return 2.0 * num_products * scores * q.shape[3], ops * scores


def _attention(op: str, args: _Args, operands: _Types, outputs: _Types) -> Work:
    q, k, _ = operands
    flops, vector_ops = _attention_work(q, k, args[3] is True, 2.0, _SOFTMAX_OPS)
    return Work(flops, q.dtype.value, vector_ops, _bytes(operands), _bytes(outputs))


def _attention_backward(op: str, args: _Args, operands: _Types, outputs: _Types) -> Work:
    _, q, k, *_ = operands
    ops = _SOFTMAX_OPS + _SOFTMAX_BACKWARD_OPS
    flops, vector_ops = _attention_work(q, k, args[6] is True, 5.0, ops)
    return Work(flops, q.dtype.value, vector_ops, _bytes(operands), _bytes(outputs))


def _conv_flops(transposed: bool, x: TensorType, weight: TensorType, out: TensorType) -> float:
    # Each element on the side of the weight's dim 0 meets every other element of its weights.
    driven = x if transposed else out
    return 2.0 * prod(driven.shape) * prod(weight.shape[1:])


def _convolution(op: str, args: _Args, operands: _Types, outputs: _Types) -> Work:
    x, weight, *bias = operands
    (out,) = outputs
    flops = _conv_flops(args[6] is True, x, weight, out)
    vector_ops = float(prod(out.shape)) if bias else 0.0
    return Work(flops, x.dtype.value, vector_ops, _bytes(operands), _bytes(outputs))


def _convolution_backward(op: str, args: _Args, operands: _Types, outputs: _Types) -> Work:
    grad, x, weight = operands
    mask = args[10]
    assert isinstance(mask, tuple)
    wanted = [switch is True for switch in mask]
    flops = _conv_flops(args[7] is True, x, weight, grad) * (wanted[0] + wanted[1])
    read = _bytes((grad,)) + wanted[0] * _bytes((weight,)) + wanted[1] * _bytes((x,))
    written = sum(_bytes((t,)) for t, on in zip(outputs, wanted, strict=True) if on)
    vector_ops = float(prod(grad.shape)) if wanted[2] else 0.0
    return Work(flops, x.dtype.value if flops else "", vector_ops, read, written)


def _looked_up(op: str, args: _Args, operands: _Types, outputs: _Types) -> Work:
    """Reads indices and only the elements that they name."""
    made = _bytes(outputs)
    return Work(0.0, "", 0.0, _bytes(operands[1:]) + made, made)


def _embedding_backward(op: str, args: _Args, operands: _Types, outputs: _Types) -> Work:
    """Clears the table, then adds each gradient row to one of its rows."""
    grad, indices = operands
    rows = _bytes((grad,))
    ops = float(prod(grad.shape))
    return Work(0.0, "", ops, 2 * rows + _bytes((indices,)), _bytes(outputs) + rows)


def _scatter_add(op: str, args: _Args, operands: _Types, outputs: _Types) -> Work:
    """Copies the tensor, then adds one source element for each index."""
    x, index, src = operands
    num_added = prod(index.shape)
    added = num_added * src.dtype.num_bytes
    read = _bytes((x, index)) + 2 * added
    return Work(0.0, "", float(num_added), read, _bytes(outputs) + added)


_Rule: TypeAlias = Callable[[str, _Args, _Types, _Types], Work]

_VECTOR_OPS = {name: row.vector_ops for name, row in OPERATORS.items()}
_SOFTMAX_OPS = _VECTOR_OPS["_softmax.default"]
_SOFTMAX_BACKWARD_OPS = _VECTOR_OPS["_softmax_backward_data.default"]

_BY_KIND: Mapping[Kind, _Rule] = MappingProxyType(
    {
        Kind.INPUT: _nothing,
        Kind.CREATE: _streamed,
        Kind.POINTWISE: _streamed,
        Kind.VIEW: _nothing,
        Kind.MOVE: _streamed,
        Kind.REDUCE: _streamed,
        Kind.NORMALIZE: _streamed,
        Kind.POOL: _streamed,
    }
)
_BY_NAME: Mapping[str, _Rule] = MappingProxyType(
    {
        # A slice is a view: whoever reads it reads its part of the original.
        "slice": _nothing,
        "einsum": _einsum,
        "attention": _attention,
        "attention_backward": _attention_backward,
        "convolution.default": _convolution,
        "convolution_backward.default": _convolution_backward,
        "embedding.default": _looked_up,
        "embedding_dense_backward.default": _embedding_backward,
        "gather.default": _looked_up,
        "index_select.default": _looked_up,
        "scatter_add.default": _scatter_add,
        "topk.default": _streamed,
        "max_pool2d_with_indices_backward.default": _shape_only(1),
        "avg_pool2d_backward.default": _shape_only(1),
    }
)
_RULES: Mapping[str, _Rule] = MappingProxyType(
    {
        name: _BY_NAME[name] if name in _BY_NAME else _BY_KIND[row.kind]
        for name, row in OPERATORS.items()
    }
)
