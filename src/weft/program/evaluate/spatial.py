"""Convolution and pooling on NumPy arrays, by a loop over the places of the kernel.

For each place of the kernel the elements of the padded input that it meets are one strided
view, so that a convolution is a sum of matrix products and a pool a maximum or a sum of views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from types import EllipsisType, MappingProxyType

import numpy as np

from weft.program.evaluate.arrays import Array
from weft.program.signatures import convolved_shape, per_dim, pooled_length

__all__ = ["SPATIAL"]

_Dims = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Window:
    """A kernel that moves over the last dims of an input of `lengths` to `stops` places."""

    lengths: _Dims
    kernel: _Dims
    stride: _Dims
    padding: _Dims
    dilation: _Dims
    stops: _Dims

    def padded(self, x: Array, fill: float) -> Array:
        """The input with its padding, and more at the end where windows overhang."""
        widths = [(0, 0)] * (x.ndim - len(self.lengths))
        for d, length in enumerate(self.lengths):
            last = (self.stops[d] - 1) * self.stride[d] + self.dilation[d] * (self.kernel[d] - 1)
            widths.append((self.padding[d], max(self.padding[d], last + 1 - length)))
        return np.pad(x, widths, constant_values=fill)

    def views(self) -> Iterator[tuple[_Dims, tuple[slice | EllipsisType, ...]]]:
        """Each place of the kernel and the elements of the padded input that it meets."""
        for place in product(*map(range, self.kernel)):
            starts = [p * step for p, step in zip(place, self.dilation, strict=True)]
            spans = zip(starts, self.stops, self.stride, strict=True)
            yield place, (..., *(slice(s, s + n * step, step) for s, n, step in spans))

    def cropped(self, padded: Array) -> Array:
        """The input's part of a padded array."""
        spans = zip(self.padding, self.lengths, strict=True)
        return padded[(..., *(slice(p, p + n) for p, n in spans))]


def _grouped(x: Array, groups: int, dim: int) -> Array:
    return x.reshape(*x.shape[:dim], groups, x.shape[dim] // groups, *x.shape[dim + 1 :])


def _conv(x: Array, weight: Array, window: _Window, groups: int) -> Array:
    """[N,I,...] and [O,I/groups,...] -> [N,O,...]."""
    padded = _grouped(window.padded(x, 0), groups, 1)
    split = _grouped(weight, groups, 0)
    out = 0
    for place, view in window.views():
        out = out + np.einsum(
            "ngi...,goi->ngo...", padded[view], split[(..., *place)], optimize=True
        )
    made = np.asarray(out)
    return made.reshape(x.shape[0], weight.shape[0], *window.stops)


def _conv_input(grad: Array, weight: Array, window: _Window, groups: int) -> Array:
    """Gradient of `_conv` by its input."""
    channels = weight.shape[1] * groups
    empty = np.zeros((grad.shape[0], channels, *window.lengths), dtype=grad.dtype)
    padded = _grouped(window.padded(empty, 0), groups, 1)
    split_grad, split = _grouped(grad, groups, 1), _grouped(weight, groups, 0)
    for place, view in window.views():
        padded[view] += np.einsum(
            "ngo...,goi->ngi...", split_grad, split[(..., *place)], optimize=True
        )
    whole = padded.reshape(grad.shape[0], channels, *padded.shape[3:])
    return window.cropped(whole)


def _conv_weight(grad: Array, x: Array, window: _Window, groups: int) -> Array:
    """Gradient of `_conv` by its weight."""
    padded = _grouped(window.padded(x, 0), groups, 1)
    split_grad = _grouped(grad, groups, 1)
    shape = (grad.shape[1], x.shape[1] // groups, *window.kernel)
    made = np.zeros(shape, dtype=grad.dtype)
    split = _grouped(made, groups, 0)
    for place, view in window.views():
        g = split_grad.reshape(*split_grad.shape[:3], -1)
        met = padded[view].reshape(*padded.shape[:3], -1)
        split[(..., *place)] = np.einsum("ngop,ngip->goi", g, met, optimize=True)
    return made


def _conv_window(
    wide: _Dims, narrow: _Dims, weight: Array, steps: tuple[_Dims, _Dims, _Dims]
) -> _Window:
    """The window of a convolution from lengths `wide` to lengths `narrow`."""
    stride, padding, dilation = (
        per_dim(values, len(wide), default)
        for values, default in zip(steps, (1, 0, 1), strict=True)
    )
    return _Window(wide, weight.shape[2:], stride, padding, dilation, narrow)


def _convolution(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: _Dims,
    padding: _Dims,
    dilation: _Dims,
    transposed: bool,
    output_padding: _Dims,
    groups: int,
) -> Array:
    steps = (stride, padding, dilation)
    shape = convolved_shape(x.shape, weight.shape, steps, transposed, output_padding, groups)
    before, after = x.shape[2:], shape[2:]
    if transposed:
        out = _conv_input(x, weight, _conv_window(after, before, weight, steps), groups)
    else:
        out = _conv(x, weight, _conv_window(before, after, weight, steps), groups)
    return out if bias is None else out + bias.reshape(-1, *(1,) * (x.ndim - 2))


def _convolution_backward(
    grad: Array,
    x: Array,
    weight: Array,
    bias_sizes: _Dims | None,
    stride: _Dims,
    padding: _Dims,
    dilation: _Dims,
    transposed: bool,
    output_padding: _Dims,
    groups: int,
    output_mask: tuple[bool, ...],
) -> tuple[Array, ...]:
    steps = (stride, padding, dilation)
    if transposed:
        window = _conv_window(grad.shape[2:], x.shape[2:], weight, steps)
        dx = _conv(grad, weight, window, groups)
        dw = _conv_weight(x, grad, window, groups)
    else:
        window = _conv_window(x.shape[2:], grad.shape[2:], weight, steps)
        dx = _conv_input(grad, weight, window, groups)
        dw = _conv_weight(grad, x, window, groups)
    made = (dx, dw, np.sum(grad, axis=(0, *range(2, grad.ndim))))
    return tuple(g if on else np.zeros(0) for g, on in zip(made, output_mask, strict=True))


def _pool_window(
    x: Array, kernel: _Dims, stride: _Dims, padding: _Dims, dilation: _Dims, ceil_mode: bool
) -> _Window:
    kernels = per_dim(kernel, 2, 1)
    strides = per_dim(stride, 2, 1) if stride else kernels
    paddings, dilations = per_dim(padding, 2, 0), per_dim(dilation, 2, 1)
    lengths = x.shape[-2:]
    stops = tuple(
        pooled_length(lengths[d], kernels[d], strides[d], paddings[d], dilations[d], ceil_mode)
        for d in range(2)
    )
    return _Window(lengths, kernels, strides, paddings, dilations, stops)


def _max_pool(
    x: Array,
    kernel: _Dims,
    stride: _Dims = (),
    padding: _Dims = (0,),
    dilation: _Dims = (1,),
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    window = _pool_window(x, kernel, stride, padding, dilation, ceil_mode)
    height, width = window.lengths
    padded = window.padded(x, -np.inf)
    place = np.arange(height * width).reshape(height, width)
    places = window.padded(place, -1)
    values = np.stack([padded[view] for _, view in window.views()])
    numbers = np.stack([places[view] for _, view in window.views()])
    best = np.argmax(values, axis=0)
    numbers = np.broadcast_to(
        numbers.reshape(len(numbers), *(1,) * (x.ndim - 2), *window.stops), values.shape
    )
    indices = np.take_along_axis(numbers, best[None], axis=0)[0]
    return np.take_along_axis(values, best[None], axis=0)[0], indices


def _max_pool_backward(
    grad: Array,
    x: Array,
    kernel: _Dims,
    stride: _Dims,
    padding: _Dims,
    dilation: _Dims,
    ceil_mode: bool,
    indices: Array,
) -> Array:
    planes = np.zeros((int(np.prod(x.shape[:-2])), x.shape[-2] * x.shape[-1]), dtype=grad.dtype)
    flat = indices.reshape(len(planes), -1)
    np.add.at(planes, (np.arange(len(planes))[:, None], flat), grad.reshape(flat.shape))
    return planes.reshape(x.shape)


def _divisors(window: _Window, count_include_pad: bool, override: int | None) -> Array:
    """Number of elements that each window averages over."""
    if override is not None:
        return np.full(window.stops, override)
    ones = np.ones(window.lengths)
    if count_include_pad:
        # Padding counts, but not what lies beyond it: the overhang of the last window.
        ones = np.pad(ones, [(p, p) for p in window.padding], constant_values=1.0)
        overhang = window.padded(np.ones(window.lengths), 0).shape
        ones = np.pad(ones, [(0, n - m) for n, m in zip(overhang, ones.shape, strict=True)])
    else:
        ones = window.padded(ones, 0)
    return np.sum([ones[view] for _, view in window.views()], axis=0)


def _avg_pool(
    x: Array,
    kernel: _Dims,
    stride: _Dims = (),
    padding: _Dims = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    window = _pool_window(x, kernel, stride, padding, (1,), ceil_mode)
    padded = window.padded(x, 0)
    total = np.sum([padded[view] for _, view in window.views()], axis=0)
    return total / _divisors(window, count_include_pad, divisor_override)


def _avg_pool_backward(
    grad: Array,
    x: Array,
    kernel: _Dims,
    stride: _Dims,
    padding: _Dims,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Array:
    window = _pool_window(x, kernel, stride, padding, (1,), ceil_mode)
    padded = window.padded(np.zeros(x.shape, dtype=grad.dtype), 0)
    share = grad / _divisors(window, count_include_pad, divisor_override)
    for _, view in window.views():
        padded[view] += share
    return window.cropped(padded)


SPATIAL: Mapping[str, Callable[..., Array | tuple[Array, ...]]] = MappingProxyType(
    {
        "convolution.default": _convolution,
        "convolution_backward.default": _convolution_backward,
        "max_pool2d_with_indices.default": _max_pool,
        "max_pool2d_with_indices_backward.default": _max_pool_backward,
        "avg_pool2d.default": _avg_pool,
        "avg_pool2d_backward.default": _avg_pool_backward,
    }
)
