"""Tensors as NumPy arrays: how each element type is held.

NumPy has no bf16, so bf16 tensors are f32 arrays of values that bf16 can hold. Both half types
are computed with in f32 and rounded once, after each operator, as ATen does on CPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from weft.program.types import DType, TensorType

__all__ = ["Array", "compute_form", "held", "round_to_bf16"]

Array: TypeAlias = NDArray[Any]

_HELD_AS: Mapping[DType, type[np.generic]] = MappingProxyType(
    {
        DType.F64: np.float64,
        DType.F32: np.float32,
        DType.BF16: np.float32,
        DType.F16: np.float16,
        DType.I64: np.int64,
        DType.I32: np.int32,
        DType.U8: np.uint8,
        DType.BOOL: np.bool_,
    }
)


def round_to_bf16(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Nearest values that have bf16's 8 significant bits, ties to even; NaN stays NaN.

    Example:
        >>> float(round_to_bf16(np.asarray(1.005, dtype=np.float32)))
        1.0078125
    """
    bits = np.ascontiguousarray(x).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), x, rounded.view(np.float32).reshape(x.shape))


def held(x: Array, of: TensorType) -> Array:
    """The array as tensors of this type are held, rounded where the type is narrower."""
    if of.dtype is DType.BF16:
        return round_to_bf16(np.asarray(x, dtype=np.float32))
    return np.asarray(x, dtype=_HELD_AS[of.dtype])


def compute_form(x: Array) -> Array:
    """The array as operators compute with it: f16 in f32, all else as it is held."""
    return x.astype(np.float32) if x.dtype == np.float16 else x
