"""Shape and element type of element-wise operators, by ATen's rules.

Shapes broadcast from the right. Element types are promoted within their category (bool, then
integer, then float); a tensor without dims, or a plain number, only counts if its category is
higher than that of the tensors with dims.

Source: https://docs.pytorch.org/docs/stable/tensor_attributes.html#type-promotion-doc; held to
ATen by tests/property/test_program_aten.py.
"""

from __future__ import annotations

from typing import TypeAlias

from weft.core.errors import VerifyError
from weft.program.types import DType, TensorType

__all__ = ["Operand", "Shape", "broadcast", "promote", "promote_to_float"]

Shape: TypeAlias = tuple[int, ...]
Operand: TypeAlias = "TensorType | int | float"

_CATEGORY = {dtype: 2 if dtype.is_float else 1 for dtype in DType} | {DType.BOOL: 0}


def broadcast(*shapes: Shape) -> Shape:
    """The common shape of operands that are repeated along dims of size 1 and missing dims.

    Raises:
        VerifyError: two sizes of a dim differ and neither is 1.

    Example:
        >>> broadcast((8, 1, 4), (3, 1))
        (8, 3, 4)
    """
    result = shapes[0]
    for shape in shapes[1:]:
        if shape != result:
            result = _broadcast_pair(result, shape)
    return result


def _broadcast_pair(left: Shape, right: Shape) -> Shape:
    rank = max(len(left), len(right))
    padded = zip((1,) * (rank - len(left)) + left, (1,) * (rank - len(right)) + right, strict=True)
    sizes: list[int] = []
    for a, b in padded:
        if a != b and a != 1 and b != 1:
            raise VerifyError(
                need="operands whose sizes agree, from the right, wherever neither is 1",
                got=f"shapes {left} and {right}",
                hint="expand or view one of them first",
            )
        sizes.append(b if a == 1 else a)
    return tuple(sizes)


def promote(*operands: Operand) -> DType:
    """Element type that a combination of tensors and plain numbers has.

    Example:
        >>> promote(TensorType(DType.BF16, (4,)), TensorType(DType.F32, ()), 0.5)
        <DType.BF16: 'bf16'>
    """
    ranked: list[DType | None] = [None, None, None]
    for operand in operands:
        if isinstance(operand, TensorType):
            rank, dtype = (0 if operand.shape else 1), operand.dtype
        else:
            rank, dtype = 2, _number_type(operand)
        known = ranked[rank]
        ranked[rank] = dtype if known is None else _promote_pair(known, dtype)
    result = ranked[0]
    for dtype in ranked[1:]:
        if result is None:
            result = dtype
        elif dtype is not None and _CATEGORY[dtype] > _CATEGORY[result]:
            result = _promote_pair(result, dtype)
    assert result is not None, "promotion of no operands"
    return result


def promote_to_float(*operands: Operand) -> DType:
    """As `promote`, with integers and bool becoming f32: division and transcendentals."""
    dtype = promote(*operands)
    return dtype if dtype.is_float else DType.F32


def _number_type(number: float) -> DType:
    if isinstance(number, bool):
        return DType.BOOL
    return DType.I64 if isinstance(number, int) else DType.F32


def _promote_pair(left: DType, right: DType) -> DType:
    if left is right:
        return left
    if _CATEGORY[left] != _CATEGORY[right]:
        return left if _CATEGORY[left] > _CATEGORY[right] else right
    if left.num_bytes == right.num_bytes:
        return DType.F32  # the only two types of one category and size: bf16 and f16
    return left if left.num_bytes > right.num_bytes else right
