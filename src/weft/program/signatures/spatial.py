"""Signatures of convolution and pooling, forward and backward."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from weft.program.signatures.law import OFF, Dims, Outputs, Signature, require
from weft.program.types import DType, TensorType

__all__ = ["SPATIAL", "convolved_shape", "per_dim", "pooled_length"]


def per_dim(values: Dims, rank: int, default: int) -> Dims:
    """One value for each spatial dim; a lone value counts for all, none for the default.

    Raises:
        VerifyError: there are neither one nor `rank` values.

    Example:
        >>> per_dim((3,), 2, 1), per_dim((), 2, 1), per_dim((2, 4), 2, 1)
        ((3, 3), (1, 1), (2, 4))
    """
    require(len(values) in (0, 1, rank), f"1 or {rank} values", values)
    return values if len(values) == rank else (values or (default,)) * rank


def convolved_shape(
    x: Dims,
    weight: Dims,
    steps: tuple[Dims, Dims, Dims],
    transposed: bool,
    output_padding: Dims,
    groups: int,
) -> Dims:
    """Shape of a convolution's output.

    Args:
        x: shape of the input [N,C,...].
        weight: shape of the weight, [O,C/groups,...], or [C,O/groups,...] if transposed.
        steps: stride, padding and dilation.
        transposed: whether it is the gradient of a convolution by its input.
        output_padding: what a transposed convolution adds to the end of each length.
        groups: blocks of channels that do not mix.

    Raises:
        VerifyError: the shapes do not fit each other, or the kernel not into the input.

    Example:
        >>> convolved_shape((1, 3, 8, 8), (5, 3, 3, 3), ((2,), (1,), (1,)), False, (0,), 1)
        (1, 5, 4, 4)
    """
    rank = len(x) - 2
    require(
        rank in (1, 2, 3) and len(weight) == rank + 2,
        "input [N,C,...] and weight with 1, 2 or 3 spatial dims",
        f"{x} and {weight}",
    )
    channels = weight[0] if transposed else weight[1] * groups
    require(
        groups >= 1 and x[1] == channels and weight[0] % groups == 0,
        f"{channels} input channels in {groups} groups",
        f"{x} and weight {weight}",
    )
    stride, padding, dilation = (
        per_dim(values, rank, default) for values, default in zip(steps, (1, 0, 1), strict=True)
    )
    extra = per_dim(output_padding, rank, 0)
    lengths: list[int] = []
    for d in range(rank):
        length, kernel = x[d + 2], dilation[d] * (weight[d + 2] - 1) + 1
        if transposed:
            lengths.append((length - 1) * stride[d] - 2 * padding[d] + kernel + extra[d])
        else:
            lengths.append((length + 2 * padding[d] - kernel) // stride[d] + 1)
    require(min(lengths) >= 1, "a kernel that fits in the padded input", f"{x} and {weight}")
    return (x[0], weight[1] * groups if transposed else weight[0], *lengths)


def _convolution(
    x: TensorType,
    weight: TensorType,
    bias: TensorType | None,
    stride: Dims,
    padding: Dims,
    dilation: Dims,
    transposed: bool,
    output_padding: Dims,
    groups: int,
) -> Outputs:
    steps = (stride, padding, dilation)
    shape = convolved_shape(x.shape, weight.shape, steps, transposed, output_padding, groups)
    require(x.dtype is weight.dtype, "input and weight of one type", f"{x} and {weight}")
    require(
        bias is None or bias == TensorType(x.dtype, (shape[1],)),
        f"a bias of {shape[1]} elements of the input's type",
        bias,
    )
    return (TensorType(x.dtype, shape),)


def _convolution_backward(
    grad: TensorType,
    x: TensorType,
    weight: TensorType,
    bias_sizes: Dims | None,
    stride: Dims,
    padding: Dims,
    dilation: Dims,
    transposed: bool,
    output_padding: Dims,
    groups: int,
    output_mask: tuple[bool, ...],
) -> Outputs:
    (out,) = _convolution(
        x, weight, None, stride, padding, dilation, transposed, output_padding, groups
    )
    require(grad == out, f"a gradient {out}", grad)
    require(len(output_mask) == 3, "three switches", output_mask)
    made = (x, weight, TensorType(x.dtype, (out.shape[1],)))
    return tuple(
        t if on else TensorType(t.dtype, OFF) for t, on in zip(made, output_mask, strict=True)
    )


def pooled_length(
    length: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> int:
    """Number of windows along one dim; a window may not start in the right padding.

    Example:
        >>> pooled_length(5, 2, 2, 0, 1, False), pooled_length(5, 2, 2, 0, 1, True)
        (2, 3)
    """
    span = length + 2 * padding - dilation * (kernel - 1) - 1
    windows = (-(-span // stride) if ceil_mode else span // stride) + 1
    if ceil_mode and (windows - 1) * stride >= length + padding:
        windows -= 1
    return windows


def _pooled(
    x: TensorType, kernel: Dims, stride: Dims, padding: Dims, dilation: Dims, ceil_mode: bool
) -> Dims:
    require(len(x.shape) in (3, 4), "[N,C,H,W] or [C,H,W]", x)
    kernels = per_dim(kernel, 2, 1)
    strides = per_dim(stride, 2, 1) if stride else kernels
    paddings, dilations = per_dim(padding, 2, 0), per_dim(dilation, 2, 1)
    lengths = tuple(
        pooled_length(x.shape[-2:][d], kernels[d], strides[d], paddings[d], dilations[d], ceil_mode)
        for d in range(2)
    )
    require(min(lengths) >= 1, "a window that fits in the padded input", f"{x}, kernel {kernel}")
    return (*x.shape[:-2], *lengths)


def _max_pool(
    x: TensorType,
    kernel: Dims,
    stride: Dims = (),
    padding: Dims = (0,),
    dilation: Dims = (1,),
    ceil_mode: bool = False,
) -> Outputs:
    shape = _pooled(x, kernel, stride, padding, dilation, ceil_mode)
    return (TensorType(x.dtype, shape), TensorType(DType.I64, shape))


def _max_pool_backward(
    grad: TensorType,
    x: TensorType,
    kernel: Dims,
    stride: Dims,
    padding: Dims,
    dilation: Dims,
    ceil_mode: bool,
    indices: TensorType,
) -> Outputs:
    forward = _max_pool(x, kernel, stride, padding, dilation, ceil_mode)
    require((grad, indices) == forward, f"gradient and indices {forward}", f"{grad} and {indices}")
    return (x,)


def _avg_pool(
    x: TensorType,
    kernel: Dims,
    stride: Dims = (),
    padding: Dims = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Outputs:
    return (TensorType(x.dtype, _pooled(x, kernel, stride, padding, (1,), ceil_mode)),)


def _avg_pool_backward(
    grad: TensorType,
    x: TensorType,
    kernel: Dims,
    stride: Dims,
    padding: Dims,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Outputs:
    (out,) = _avg_pool(x, kernel, stride, padding, ceil_mode)
    require(grad == out, f"a gradient {out}", grad)
    return (x,)


SPATIAL: Mapping[str, Signature] = MappingProxyType(
    {
        "convolution.default": _convolution,
        "convolution_backward.default": _convolution_backward,
        "max_pool2d_with_indices.default": _max_pool,
        "max_pool2d_with_indices_backward.default": _max_pool_backward,
        "avg_pool2d.default": _avg_pool,
        "avg_pool2d_backward.default": _avg_pool_backward,
    }
)
