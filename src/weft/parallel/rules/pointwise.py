"""Rules of element-wise operators: every broadcast dim, and summands through what is linear."""

from __future__ import annotations

from collections.abc import Iterator

from weft.parallel.placement import PARTIAL, PARTIAL_MAX, REPLICATED, Placement
from weft.parallel.rules.rule import Call, Rule
from weft.program.operators import OPERATORS
from weft.program.types import DType, TensorType

__all__ = ["pointwise_rules"]


def pointwise_rules(call: Call) -> Iterator[Rule]:
    """Rules of an element-wise operator.

    A cut of an output dim cuts the operands that have that dim in full; operands that are
    repeated along it (dim missing or of size 1) stay whole.
    """
    (out,) = call.outputs
    for dim in range(len(out.shape)):
        yield Rule((dim,), tuple(_aligned(dim, out, operand) for operand in call.operands))
    for operands in _linear(call):
        yield Rule((PARTIAL,), operands)
    for operands in _monotone(call):
        yield Rule((PARTIAL_MAX,), operands)


def _aligned(dim: int, out: TensorType, operand: TensorType) -> Placement:
    """The operand's dim under dim `dim` of the output, shapes aligned at the right."""
    own = dim - len(out.shape) + len(operand.shape)
    return own if own >= 0 and operand.shape[own] == out.shape[dim] else REPLICATED


def _linear(call: Call) -> Iterator[tuple[Placement, ...]]:
    """Placements of the operands under which the output is a sum of the devices' outputs."""
    places = len(call.operands)
    match OPERATORS[call.op].linear:
        case "one" if call.op != "cast" or _cast_is_linear(call):
            yield (PARTIAL,)
        case "all" if places == 2:  # with a constant, every device would add it
            yield (PARTIAL, PARTIAL)
        case "each":
            for k in range(places):
                yield tuple(PARTIAL if j == k else REPLICATED for j in range(places))
        case "first" if call.operand(0) == 0:
            yield (PARTIAL,) + (REPLICATED,) * (places - 1)
        case _:
            yield from _linear_by_argument(call)


def _linear_by_argument(call: Call) -> Iterator[tuple[Placement, ...]]:
    """Operators that are linear in some operands for some constants only."""
    if call.op == "where.self" and len(call.operands) == 3:
        yield (REPLICATED, PARTIAL, PARTIAL)
    if call.op == "masked_fill.Scalar" and call.number(2, 1) == 0:
        yield (PARTIAL, REPLICATED)


def _cast_is_linear(call: Call) -> bool:
    """Rounding to another float type is as linear as float addition; truncation is not."""
    (source,), (target,) = call.operands, call.outputs
    return source.dtype == target.dtype or (
        target.dtype.is_float and source.dtype not in (DType.BOOL, DType.U8)
    )


def _monotone(call: Call) -> Iterator[tuple[Placement, ...]]:
    """Placements under which the output is the maximum of the devices' outputs, exactly."""
    if call.op == "cast" and call.operands[0].dtype.is_float and call.outputs[0].dtype.is_float:
        yield (PARTIAL_MAX,)
    if call.op == "maximum.default":
        yield (PARTIAL_MAX, PARTIAL_MAX)
        yield (PARTIAL_MAX, REPLICATED)
        yield (REPLICATED, PARTIAL_MAX)
