"""Time of one operator on one device: arithmetic, memory and launch, whichever rules.

    seconds = max(launch + arithmetic, launch + bytes / bandwidth)

A device that carries measured curves replaces the second term by the curve of the operator,
or by its curve "traffic" where the operator was not measured; curves hold the launch. Times
were measured in f32: types of 8 bytes move and compute twice as much, types of fewer than 4 are
moved at their own size where no curve is known and computed as f32 where one is. An operator that
runs in another one's kernel has no launch: of a curve it is charged what exceeds the first point,
which is the curve's fixed cost.

Products of a device that runs one operator after the other take the sum of both terms: their rates
are of operands that lie in its caches, and a library that packs these and stores what it made does
not compute meanwhile. On one core of an AMD EPYC (torch 2.13) those that make or read 64 MiB took
1.3 to 3.8 times the larger of the two. It does not read and write in one stream either: a byte
beyond what lies in caches takes as long as `matmul_traffic` bytes of other operators.

A sum whose last dim stays adds row to row, which takes 2.3 to 2.7 times as long there as one along
the rows, whatever their width: it has a curve of its own.

Small products do not reach the full rate. With h the width and d the depth at which a device
reaches half of it, a product of m x k by k x n runs at

    rate = full rate x m / (m + h) x n / (n + h) x k / (k + d)

which is 1 / (1 + lost / size) for each side: a last tile that is part empty (m, n), a pipeline
that fills and drains (k). Few columns cost more: with c the columns that take twice as long, the
time is 1 + (c / n)^2 times that, since a library packs and computes whole vectors of them.
Attention runs at

    rate = full rate x share x T / (T + h) x S / (S + h) x [D / (D + h)] / [128 / (128 + h)]

for T queries, S keys and heads of D; the share is the one at D = 128. Where a device has costs of
rows and scores, attention takes these instead of the factors of T, S and D:

    seconds = launch + arithmetic / (full rate x share) + rows x row_s + scores x score_s

with a row for each query of each head. Causal attention skips
whole tiles of `attention_block` keys, so it computes (1 + block / S) / 2 of all scores. Where its
rows are cut, the device with the last rows has the most to do, and the others wait for it.

Knows types, work and devices. Does not know what runs beside the operator: that is `simulate`;
nor which neighbours share a kernel with it: `weft.cost.fusion` says so, and is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from math import prod
from types import MappingProxyType
from typing import TypeAlias, cast

from weft.core.errors import InputError
from weft.core.provenance import Quantity
from weft.cost.fusion import Paid
from weft.machine.curve import Curve
from weft.machine.model import Device
from weft.program.graph import Arg
from weft.program.operators import Kind, operator
from weft.program.types import TensorType
from weft.program.work import NO_WORK, Work, causal_share, work

__all__ = [
    "CACHED_BYTES",
    "COLUMN_SUM",
    "REFERENCE_HEAD",
    "TRAFFIC",
    "VIEW",
    "measured_size_bytes",
    "operator_seconds",
]

_Types: TypeAlias = tuple[TensorType, ...]
_Args: TypeAlias = tuple[Arg, ...]

TRAFFIC = "traffic"
"""Name of the curve that stands for operators that were not measured."""

COLUMN_SUM = "sum.columns"
"""Name of the curve of sums whose last dim stays; absent, they take the curve of all sums."""

VIEW = "view"
"""Name among `Device.operator_launch_s` that stands for all views."""

_MEASURED_ITEM_BYTES = 4
CACHED_BYTES = 8.0 * 2**20
"""What a product moves without that weighing more than other traffic. Measured: products of 32
columns that move 4 to 6 MiB took 0.5 to 0.7 of what plain traffic and arithmetic come to, those of
16 MiB and more up to three times their traffic (AMD EPYC, torch 2.13.0, 2026-11-29)."""
REFERENCE_HEAD = 128
"""Width of a head at which `Device.attention_share` holds: the one of Llama 2 and 3 and of GPT-3
(arXiv 2307.09288, 2407.21783, 2005.14165), for which FlashAttention states its rates."""


def operator_seconds(
    op: str,
    args: _Args,
    operands: _Types,
    outputs: _Types,
    device: Device,
    paid: Paid | None = None,
) -> float:
    """Time of an operator on local tensors.

    Args:
        op: operator name.
        args: arguments in schema order.
        operands: type of each value among the arguments, in order, repeats included.
        outputs: type of each output.
        device: where it runs.
        paid: which operands and outputs go through memory, for a device that fuses; all of
            them where absent. A device that does not fuse takes no notice.

    Returns:
        Time from start to end, launch included [s]; 0 for inputs, and for views unless the
        device says what calling one takes.

    Raises:
        InputError: the device has no rate for products of this element type.
        VerifyError: no such operator.

    Source: roofline model (Williams et al., CACM 2009); laws for small products and attention
        derived in the module docstring, checked against measurements by `weft bench predict`.

    Example:
        >>> from weft.machine.presets import preset
        >>> from weft.program.graph import Value
        >>> from weft.program.types import DType
        >>> x = TensorType(DType.BF16, (8192, 8192))
        >>> h100 = preset("dgx-h100x1").groups[0].device
        >>> 1e-3 < operator_seconds("einsum", ("ab,bc->ac", Value(0), Value(1)), (x, x), (x,), h100)
        True
    """
    done = work(op, args, operands, outputs)
    if done == NO_WORK:
        return _view_seconds(op, device)
    launch_s = device.operator_launch_s.get(op, device.launch_s).value
    compute_s = _arithmetic_s(op, args, operands, outputs, done, device)
    moved, joins = _moved(done, operands, outputs, device, paid)
    if joins:
        launch_s = 0.0  # its kernel is another operator's
    curve = _curve_of(op, args, operands, device)
    if curve is not None and not done.flops:
        curve_s = _curve_seconds(curve, _as_measured(moved, operands, outputs), joins)
        return max(compute_s, curve_s) if joins else curve_s
    traffic = device.operator_curves.get(TRAFFIC)
    if traffic is not None:
        weight = _weight_beside_arithmetic(op, device)
        if weight is not None:
            heavy = moved + (weight - 1.0) * max(0.0, moved - CACHED_BYTES)
            return launch_s + compute_s + _curve_seconds(traffic, heavy, joins=True)
        return max(launch_s + compute_s, _curve_seconds(traffic, moved, joins))
    return launch_s + max(compute_s, moved / device.memory_bytes_per_s.value)


def measured_size_bytes(op: str, args: _Args, operands: _Types, outputs: _Types) -> float:
    """Size at which a curve of `Device.operator_curves` is measured and read [bytes].

    Bytes that the operator moves by `weft.program.work`, at 4 bytes an element or more.
    """
    done = work(op, args, operands, outputs)
    return _as_measured(done.read_bytes + done.written_bytes, operands, outputs)


def _arithmetic_s(
    op: str, args: _Args, operands: _Types, outputs: _Types, done: Work, device: Device
) -> float:
    if not done.flops:
        return done.vector_ops / device.vector_flops_per_s.value
    product_s = done.flops / _product_rate(op, args, operands, outputs, done, device)
    return product_s + _softmax_s(op, args, operands, outputs, device)


def _view_seconds(op: str, device: Device) -> float:
    """What calling an operator takes that moves nothing; a compiler leaves no call of it."""
    launch = device.operator_launch_s.get(VIEW)
    calls = operator(op).kind is Kind.VIEW or op == "slice"
    return launch.value if launch is not None and calls and not device.fuses else 0.0


def _weight_beside_arithmetic(op: str, device: Device) -> float | None:
    """What a byte weighs that moves beside arithmetic and not behind it; None if all hides."""
    if device.fuses:
        return None
    if operator(op).kind is Kind.CONTRACT:
        return _value(device.matmul_traffic, 1.0)
    return 1.0 if operator(op).kind is Kind.CONVOLUTION else None


def _curve_of(op: str, args: _Args, operands: _Types, device: Device) -> Curve | None:
    if op == "sum":
        dims, last = cast("tuple[int, ...]", args[1]), len(operands[0].shape) - 1
        own = device.operator_curves.get(COLUMN_SUM)
        if own is not None and last not in dims:
            return own
    return device.operator_curves.get(op)


def _curve_seconds(curve: Curve, num_bytes: float, joins: bool) -> float:
    seconds = curve.seconds_at(num_bytes)
    return seconds - curve.seconds[0] if joins else seconds


def _as_measured(moved_bytes: float, operands: _Types, outputs: _Types) -> float:
    # Narrow types are widened to f32 in registers: as slow as f32 for each element.
    widest = max((t.dtype.num_bytes for t in (*operands, *outputs) if t.dtype.is_float), default=4)
    return moved_bytes * max(1.0, _MEASURED_ITEM_BYTES / widest)


def _moved(
    done: Work, operands: _Types, outputs: _Types, device: Device, paid: Paid | None
) -> tuple[float, bool]:
    """Traffic [bytes], and whether the operator joins another one's kernel."""
    if not device.fuses or paid is None:
        return done.read_bytes + done.written_bytes, False
    return _moved_bytes(done, operands, outputs, paid), not any(paid.writes)


def _moved_bytes(done: Work, operands: _Types, outputs: _Types, paid: Paid) -> float:
    """Traffic without the operands and outputs that stay in registers."""
    kept_read = sum(t.num_bytes for t, pays in zip(operands, paid.reads, strict=True) if not pays)
    kept_write = sum(t.num_bytes for t, pays in zip(outputs, paid.writes, strict=True) if not pays)
    # An operator may touch less than its whole operand: a gather, a slice.
    return max(0.0, done.read_bytes - kept_read) + max(0.0, done.written_bytes - kept_write)


def _product_rate(
    op: str, args: _Args, operands: _Types, outputs: _Types, done: Work, device: Device
) -> float:
    """Reachable rate of a matrix product, convolution or attention of this size [FLOP/s]."""
    rate = device.matmul_flops_per_s.get(done.flops_dtype)
    if rate is None:
        raise InputError(
            need=f"a rate of {device.name} for matrix products in {done.flops_dtype}",
            got=f"rates for {', '.join(device.matmul_flops_per_s)}",
            hint="compute in one of these types, or add the rate to the machine file",
        )
    return rate.value * _SATURATION[operator(op).kind](args, operands, outputs, device)


def _einsum_saturation(args: _Args, operands: _Types, outputs: _Types, device: Device) -> float:
    a, b = operands
    rows, columns, depth = _einsum_dims(str(args[0]))
    width = prod(b.shape[d] for d in columns)
    few = _value(device.matmul_few_columns, 0.0)
    reached = 1.0 / (1.0 + (few / max(1, width)) ** 2)
    return reached * _saturation(
        prod(a.shape[d] for d in rows), width, prod(a.shape[d] for d in depth), device
    )


@lru_cache(maxsize=4096)
def _einsum_dims(equation: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Dims of a that are rows, of b that are columns, of a that are contracted."""
    sides, _, out = equation.partition("->")
    a, _, b = sides.partition(",")
    return (
        tuple(d for d, x in enumerate(a) if x in out and x not in b),
        tuple(d for d, x in enumerate(b) if x in out and x not in a),
        tuple(d for d, x in enumerate(a) if x not in out),
    )


def _convolution_saturation(
    args: _Args, operands: _Types, outputs: _Types, device: Device
) -> float:
    """As the product that a convolution amounts to: places x (weights of a channel) x channels."""
    backward = len(outputs) == 3
    driven, weight = (operands[0], operands[2]) if backward else (outputs[0], operands[1])
    places = driven.num_elements // max(1, driven.shape[1])
    return _saturation(places, weight.shape[0], prod(weight.shape[1:]), device)


def _attention_saturation(args: _Args, operands: _Types, outputs: _Types, device: Device) -> float:
    q, k, _ = _attended(args, operands, outputs)
    head = q.shape[3]
    rate = _value(device.attention_share, 1.0)
    if not device.attention_row_s:
        width = _value(device.matmul_half_width, 0.0)
        full = _part(head, width) / _part(REFERENCE_HEAD, width)
        rate *= full * _part(q.shape[2], width) * _part(k.shape[2], width)
    seen, computed = _scores(args, operands, outputs, device)
    return rate * seen / computed


def _attended(
    args: _Args, operands: _Types, outputs: _Types
) -> tuple[TensorType, TensorType, bool]:
    """Queries, keys, and whether it is causal."""
    backward = len(outputs) == 3
    q, k = (operands[1], operands[2]) if backward else (operands[0], operands[1])
    return q, k, args[6 if backward else 3] is True


def _scores(args: _Args, operands: _Types, outputs: _Types, device: Device) -> tuple[float, float]:
    """Shares of all scores: those that are seen, which work counts, and those computed."""
    q, k, causal = _attended(args, operands, outputs)
    if not causal:
        return 1.0, 1.0
    # A device computes the tiles that touch the diagonal.
    block = _value(device.attention_block, 0.0)
    num_keys = k.shape[2]
    seen = causal_share(q.shape[2], num_keys)
    return seen, min(1.0, seen + block / (2.0 * max(1, num_keys)))


def _softmax_s(op: str, args: _Args, operands: _Types, outputs: _Types, device: Device) -> float:
    """What rows and scores of attention take beside its products [s]."""
    if op not in device.attention_row_s:
        return 0.0
    q, k, _ = _attended(args, operands, outputs)
    rows = prod(q.shape[:3])
    scores = rows * k.shape[2] * _scores(args, operands, outputs, device)[1]
    score_s = device.attention_score_s.get(op)
    return rows * device.attention_row_s[op].value + scores * _value(score_s, 0.0)


_SATURATION: Mapping[Kind, Callable[[_Args, _Types, _Types, Device], float]] = MappingProxyType(
    {
        Kind.CONTRACT: _einsum_saturation,
        Kind.CONVOLUTION: _convolution_saturation,
        Kind.ATTENTION: _attention_saturation,
    }
)


def _saturation(rows: int, columns: int, depth: int, device: Device) -> float:
    width = _value(device.matmul_half_width, 0.0)
    fill = _value(device.matmul_half_depth, 0.0)
    return _part(rows, width) * _part(columns, width) * _part(depth, fill)


def _part(size: int, half: float) -> float:
    return size / (size + half) if size else 1.0


def _value(quantity: Quantity | None, default: float) -> float:
    return default if quantity is None else quantity.value
