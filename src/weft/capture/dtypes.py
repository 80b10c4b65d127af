"""Element types on both sides of the door: torch's and the program's."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from weft.core.errors import CaptureError
from weft.program.types import DType, TensorType

__all__ = ["from_torch_dtype", "to_torch_dtype", "type_of"]

_TO_TORCH: Mapping[DType, torch.dtype] = MappingProxyType(
    {
        DType.F64: torch.float64,
        DType.F32: torch.float32,
        DType.BF16: torch.bfloat16,
        DType.F16: torch.float16,
        DType.I64: torch.int64,
        DType.I32: torch.int32,
        DType.U8: torch.uint8,
        DType.BOOL: torch.bool,
    }
)
_FROM_TORCH = {theirs: ours for ours, theirs in _TO_TORCH.items()}


def to_torch_dtype(dtype: DType) -> torch.dtype:
    """Torch's name of an element type."""
    return _TO_TORCH[dtype]


def from_torch_dtype(dtype: torch.dtype) -> DType:
    """The program's name of an element type.

    Raises:
        CaptureError: programs have no such type.

    Example:
        >>> from_torch_dtype(torch.bfloat16)
        <DType.BF16: 'bf16'>
    """
    try:
        return _FROM_TORCH[dtype]
    except KeyError:
        raise CaptureError(
            need=f"one of {', '.join(str(known) for known in _FROM_TORCH)}",
            got=str(dtype),
            hint="cast the tensor before the step",
        ) from None


def type_of(tensor: Tensor) -> TensorType:
    """Element type and shape of a tensor."""
    return TensorType(from_torch_dtype(tensor.dtype), tuple(tensor.shape))
