"""Signatures of softmax and layer norm, forward and backward."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from weft.program.signatures.law import (
    OFF,
    Dims,
    DTypeName,
    Number,
    Outputs,
    Signature,
    require,
    require_dim,
)
from weft.program.types import DType, TensorType

__all__ = ["NORMALIZE"]


def _softmax(x: TensorType, dim: int, half_to_float: bool = False) -> Outputs:
    require_dim(x, dim)
    return (TensorType(DType.F32 if half_to_float else x.dtype, x.shape),)


def _softmax_backward(
    grad: TensorType, output: TensorType, dim: int, input_dtype: DTypeName
) -> Outputs:
    require_dim(output, dim)
    require(grad == output, "a gradient like the output", f"{grad} for {output}")
    return (TensorType(DType(input_dtype), output.shape),)


def _statistics(
    x: TensorType, normalized: Dims, weight: TensorType | None, bias: TensorType | None
) -> TensorType:
    kept = len(x.shape) - len(normalized)
    require(
        0 < len(normalized) <= len(x.shape) and x.shape[kept:] == normalized,
        "normalized sizes that are the last sizes of the input",
        f"{normalized} of {x}",
    )
    affine = [t for t in (weight, bias) if t is not None]
    require(
        all(t.shape == normalized for t in affine),
        f"weight and bias of shape {normalized}",
        ", ".join(map(str, affine)),
    )
    mixed = any(t.dtype is DType.F32 for t in affine)
    dtype = DType.F32 if mixed and x.dtype.num_bytes < 4 else x.dtype
    return TensorType(dtype, x.shape[:kept] + (1,) * len(normalized))


def _layer_norm(
    x: TensorType,
    normalized_shape: Dims,
    weight: TensorType | None,
    bias: TensorType | None,
    eps: Number,
) -> Outputs:
    statistics = _statistics(x, normalized_shape, weight, bias)
    return (x, statistics, statistics)


def _layer_norm_backward(
    grad: TensorType,
    x: TensorType,
    normalized_shape: Dims,
    mean: TensorType,
    rstd: TensorType,
    weight: TensorType | None,
    bias: TensorType | None,
    output_mask: tuple[bool, ...],
) -> Outputs:
    statistics = _statistics(x, normalized_shape, weight, bias)
    require(
        grad == x and mean == rstd == statistics,
        f"a gradient like the input and statistics {statistics}",
        f"gradient {grad}, mean {mean}, rstd {rstd} for {x}",
    )
    require(len(output_mask) == 3, "three switches", output_mask)
    full = (x, weight or TensorType(x.dtype, normalized_shape))
    made = (full[0], full[1], bias or full[1])
    return tuple(
        t if on else TensorType(t.dtype, OFF) for t, on in zip(made, output_mask, strict=True)
    )


NORMALIZE: Mapping[str, Signature] = MappingProxyType(
    {
        "_softmax.default": _softmax,
        "_softmax_backward_data.default": _softmax_backward,
        "native_layer_norm.default": _layer_norm,
        "native_layer_norm_backward.default": _layer_norm_backward,
    }
)
