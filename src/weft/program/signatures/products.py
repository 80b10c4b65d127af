"""Signatures of matrix products and attention."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from weft.program.signatures.law import Dims, Number, Outputs, Signature, require
from weft.program.types import DType, TensorType

__all__ = ["PRODUCTS", "contraction_sizes"]


def contraction_sizes(equation: str, a: Dims, b: Dims) -> dict[str, int]:
    """Size of each letter of a two-operand einsum.

    Raises:
        VerifyError: the equation is not of the form "ab,bc->ac", a letter stands twice in one
            term, a result letter stands in no operand, or the sizes of a letter differ.

    Example:
        >>> contraction_sizes("btd,ed->bte", (2, 3, 4), (5, 4))
        {'b': 2, 't': 3, 'd': 4, 'e': 5}
    """
    left, arrow, result = equation.partition("->")
    first, comma, second = left.partition(",")
    terms = (first, second, result)
    well_formed = arrow and comma and all(t.isalpha() or not t for t in terms)
    require(bool(well_formed), 'an equation of two operands such as "ab,bc->ac"', repr(equation))
    require(
        all(len(set(t)) == len(t) for t in terms) and set(result) <= set(first) | set(second),
        "each letter once in a term, and result letters that an operand has",
        repr(equation),
    )
    sizes: dict[str, int] = {}
    for term, shape in ((first, a), (second, b)):
        require(len(term) == len(shape), "one letter for each dim", f"{term!r} for shape {shape}")
        for letter, size in zip(term, shape, strict=True):
            known = sizes.setdefault(letter, size)
            require(known == size, f"one size for letter {letter!r}", f"{known} and {size}")
    return sizes


def _einsum(equation: str, a: TensorType, b: TensorType) -> Outputs:
    sizes = contraction_sizes(equation, a.shape, b.shape)
    require(a.dtype is b.dtype, "operands of one element type", f"{a} and {b}", "cast one first")
    return (TensorType(a.dtype, tuple(sizes[c] for c in equation.partition("->")[2])),)


def _attention(q: TensorType, k: TensorType, v: TensorType, causal: bool, scale: Number) -> Outputs:
    fits = (
        len(q.shape) == 4
        and len(k.shape) == 4
        and k.shape == v.shape
        and q.shape[:2] == k.shape[:2]
        and q.shape[3] == k.shape[3]
        and q.dtype is k.dtype is v.dtype
        and q.dtype.is_float
    )
    require(fits, "q [B,H,T,D] and k, v [B,H,S,D] of one float type", f"{q}, {k}, {v}")
    statistics = DType.F64 if q.dtype is DType.F64 else DType.F32
    return (q, TensorType(statistics, q.shape[:3]))


def _attention_backward(
    grad: TensorType,
    q: TensorType,
    k: TensorType,
    v: TensorType,
    out: TensorType,
    logsumexp: TensorType,
    causal: bool,
    scale: Number,
) -> Outputs:
    forward = _attention(q, k, v, causal, scale)
    require(
        forward == (out, logsumexp) and grad == out,
        "the forward's own results and a gradient like them",
        f"gradient {grad}, out {out}, logsumexp {logsumexp} for q {q}",
    )
    return (q, k, v)


PRODUCTS: Mapping[str, Signature] = MappingProxyType(
    {
        "einsum": _einsum,
        "attention": _attention,
        "attention_backward": _attention_backward,
    }
)
