"""Tensor types: a shape and an element type, nothing about where the tensor lives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from weft.core.errors import InputError

__all__ = ["DType", "TensorType"]


class DType(Enum):
    """Element types; the value is the name used in text and in plans."""

    F64 = "f64"
    F32 = "f32"
    BF16 = "bf16"
    F16 = "f16"
    I64 = "i64"
    I32 = "i32"
    U8 = "u8"
    BOOL = "bool"

    # Members are singletons; Enum hashes by name, in Python, and types are keys everywhere.
    __hash__ = object.__hash__

    @property
    def num_bytes(self) -> int:
        """Size of one element [bytes]."""
        return _BYTES[self]

    @property
    def is_float(self) -> bool:
        """True for the floating-point types."""
        return self in _FLOATS


_BYTES = {
    DType.F64: 8,
    DType.F32: 4,
    DType.BF16: 2,
    DType.F16: 2,
    DType.I64: 8,
    DType.I32: 4,
    DType.U8: 1,
    DType.BOOL: 1,
}
_FLOATS = frozenset({DType.F64, DType.F32, DType.BF16, DType.F16})


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type and shape of one tensor.

    Example:
        >>> t = TensorType(DType.F32, (4, 8))
        >>> str(t), t.num_elements, t.num_bytes
        ('f32[4,8]', 32, 128)
    """

    dtype: DType
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if any(size < 0 for size in self.shape):
            raise InputError(
                need="sizes of at least 0",
                got=f"shape {self.shape}",
                hint="symbolic sizes have to be fixed before capture",
            )

    @property
    def num_elements(self) -> int:
        """Product of the sizes."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.num_elements * self.dtype.num_bytes

    def __str__(self) -> str:
        return f"{self.dtype.value}[{','.join(map(str, self.shape))}]"

    @staticmethod
    def parse(text: str) -> TensorType:
        """Inverse of `str`.

        Raises:
            InputError: the text is not an element type followed by sizes in brackets.
        """
        name, bracket, rest = text.partition("[")
        try:
            if not bracket or not rest.endswith("]"):
                raise ValueError
            return TensorType(DType(name), tuple(int(s) for s in rest[:-1].split(",") if s))
        except ValueError:
            raise InputError(
                need="a tensor type such as f32[4,8]",
                got=repr(text),
                hint=f"element types: {', '.join(d.value for d in DType)}",
            ) from None
