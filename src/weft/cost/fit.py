"""From measured times to a machine: the figures with which `weft.cost` gives those times back.

The laws of `weft.cost.roofline` and `weft.cost.collective` are fitted by relative error, since a
plan is as wrong as its operators are, however short they are. Knows numbers only; what measures
them is `weft.runtime.probe`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product
from statistics import fmean, median
from typing import TypeAlias

from weft.core.errors import InputError
from weft.core.provenance import Quantity, derived, measured
from weft.cost.fit_attention import AttentionTime, fit_attention
from weft.cost.roofline import TRAFFIC, VIEW, operator_seconds
from weft.machine.curve import Curve
from weft.machine.model import CollectiveCurve, Device, Link, Machine, NodeGroup
from weft.program.graph import Arg, Value
from weft.program.operators import operator
from weft.program.types import DType, TensorType

__all__ = [
    "Call",
    "Measurements",
    "NodeTimes",
    "Points",
    "ProductTime",
    "fit_cluster",
    "fit_machine",
]

Points: TypeAlias = tuple[tuple[float, float], ...]
"""Measured (bytes, seconds)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductTime:
    """Measured time of one product of [rows, depth] by [depth, columns]."""

    dtype: str
    rows: int
    depth: int
    columns: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An operator on small tensors, all in one element type.

    Attributes:
        op, args: operator name and arguments in schema order.
        operands, outputs: types of values among the arguments and of the results.
    """

    op: str
    args: tuple[Arg, ...]
    operands: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """What a probe found, as each of `num_ranks` ranks saw it while all were at work.

    Attributes:
        name: of the machine.
        device_name: of the processor.
        kind: "cpu" or "cuda".
        fuses: see `Device`.
        num_ranks: ranks on this host.
        source: machine, date and versions, for the provenance of every figure.
        products: of at least one element type, small enough for caches.
        large_products: too large for caches, in f32; may be empty.
        attention: causal and full, of the same sizes; may be empty.
        operators: by operator name, at the sizes of `roofline.measured_size_bytes`; "traffic"
            for a plain element-wise operator.
        launch_s: an operator on next to nothing [s].
        calls: calls as the runtime makes them, and how long each takes [s]; may be empty.
        stream_bytes_per_s: reads and writes of tensors too large for caches.
        memory_bytes: what one rank can allocate.
        collectives: by collective name, against the bytes of the whole tensor.
        overlap: share of a collective that a matrix product hides.
    """

    name: str
    device_name: str
    kind: str
    fuses: bool
    num_ranks: int
    source: str
    products: tuple[ProductTime, ...]
    large_products: tuple[ProductTime, ...]
    attention: tuple[AttentionTime, ...]
    operators: Mapping[str, Points]
    launch_s: float
    calls: tuple[tuple[Call, float], ...]
    stream_bytes_per_s: float
    memory_bytes: float
    collectives: Mapping[str, Points]
    overlap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTimes:
    """What a probe found of neighbouring nodes of one rank that are alike.

    Attributes:
        device: what each rank saw of itself, with one rank and without collectives.
        num_nodes: how many.
        messages: sent between one of them and the rank that it reaches fastest: (bytes, seconds)
            of one that is all latency and of one that is all bandwidth; none if it is alone.
        circle: how many ranks have a way that is no slower, these included; 1 for a rank alone.
        collectives: of those ranks, by name, against the bytes of the whole tensor.
    """

    device: Measurements
    num_nodes: int
    messages: Points
    circle: int
    collectives: Mapping[str, Points]


def fit_cluster(name: str, nodes: Sequence[NodeTimes], overlap: float, source: str) -> Machine:
    """The machine of nodes with one device each whose predicted times come nearest to these.

    Each group of nodes gets its own way to the network; the machine's is that which rules the
    largest circle, the slowest. A rank that no other can keep up with shows no more than the way
    of its fastest peer, and gets that.

    Args:
        name: of the machine.
        nodes: in order of rank.
        overlap: share of a collective that computation hides.
        source: machine, date and versions.
    """
    ruling = [group for group in nodes if group.circle > 1] or list(nodes)
    nearest = min(ruling, key=lambda group: group.circle)
    ways = [_way(group if group.circle > 1 else nearest) for group in nodes]
    slowest = _way(max(ruling, key=lambda group: group.circle))
    groups = tuple(
        NodeGroup(
            device=_device(group.device),
            devices_per_node=1,
            num_nodes=group.num_nodes,
            link=_link(group.device),
            network=None if way == slowest else way,
        )
        for group, way in zip(nodes, ways, strict=True)
    )
    return Machine(
        name=name,
        groups=groups,
        network=slowest,
        overlap=measured(min(1.0, max(0.0, overlap)), "share", source),
        notes="measured with all ranks at work at once; each is a node of one device",
    )


def _way(found: NodeTimes) -> Link:
    if not found.messages:
        return _link(found.device)
    source = found.device.source
    (_, latency_s), (num_bytes, seconds) = sorted(found.messages)
    return Link(
        bytes_per_s=measured(
            num_bytes / seconds, "B/s", f"{num_bytes / 2**20:g} MiB to the fastest peer: {source}"
        ),
        latency_s=measured(latency_s, "s", f"a message of next to nothing: {source}"),
        curves=_collective_curves(found.collectives, found.circle, source),
    )


def fit_machine(found: Measurements) -> Machine:
    """The machine whose predicted times come nearest to the measured ones.

    Raises:
        InputError: there are no products, or no operator tells the rate of arithmetic.
    """
    link = _link(found)
    group = NodeGroup(
        device=_device(found), devices_per_node=found.num_ranks, num_nodes=1, link=link
    )
    return Machine(
        name=found.name,
        groups=(group,),
        network=replace(link, curves=()),
        overlap=measured(min(1.0, max(0.0, found.overlap)), "share", found.source),
        notes="measured with all ranks at work at once; one node, so the network is the link",
    )


def _device(found: Measurements) -> Device:
    halves = _half_sizes(found)
    rates = _rates(found, halves)

    def figure(value: float, unit: str) -> Quantity:
        return measured(value, unit, found.source)

    attention = fit_attention(
        found.attention, rates.get("f32", max(rates.values())), found.launch_s
    )
    device = Device(
        name=found.device_name,
        kind=found.kind,
        matmul_flops_per_s={dtype: figure(rate, "FLOP/s") for dtype, rate in rates.items()},
        vector_flops_per_s=figure(_vector_rate(found), "op/s"),
        memory_bytes=figure(found.memory_bytes, "B"),
        memory_bytes_per_s=figure(found.stream_bytes_per_s, "B/s"),
        launch_s=figure(found.launch_s, "s"),
        fuses=found.fuses,
        matmul_half_width=figure(halves.width, "elements"),
        matmul_half_depth=figure(halves.depth, "elements"),
        matmul_few_columns=figure(halves.columns, "elements"),
        operator_curves={
            name: _curve(points, found.source) for name, points in found.operators.items()
        },
    )
    if attention is not None:
        device = replace(
            device,
            attention_share=figure(attention.share, "share"),
            attention_block=(
                None if attention.block is None else figure(attention.block, "elements")
            ),
            attention_row_s={op: figure(s, "s") for op, s in attention.row_s.items()},
            attention_score_s={op: figure(s, "s") for op, s in attention.score_s.items()},
        )
    device = _with_product_traffic(found, device)
    launches = _launches(found, device)
    return replace(device, operator_launch_s={name: figure(s, "s") for name, s in launches.items()})


_TRAFFIC_OF_PRODUCTS = tuple(1.0 + 0.25 * n for n in range(21))
"""Weights that are tried: from a product that streams to one six times slower."""


def _with_product_traffic(found: Measurements, device: Device) -> Device:
    """With the weight of bytes at which large products are priced nearest to what they took.

    Where what moves hides behind arithmetic, or was not measured, the weight would tell nothing.
    """
    if not found.large_products or device.fuses or TRAFFIC not in device.operator_curves:
        return device

    def weighing(weight: float) -> Device:
        return replace(device, matmul_traffic=measured(weight, "B/B", found.source))

    def off(weight: float) -> float:
        own = weighing(weight)
        return sum(math.log(_product_s(p, own) / p.seconds) ** 2 for p in found.large_products)

    return weighing(min(_TRAFFIC_OF_PRODUCTS, key=off))


def _product_s(p: ProductTime, device: Device) -> float:
    a, b, made = (
        TensorType(DType(p.dtype), size)
        for size in ((p.rows, p.depth), (p.depth, p.columns), (p.rows, p.columns))
    )
    args = ("mk,kn->mn", Value(0), Value(1))
    return operator_seconds("einsum", args, (a, b), (made,), device)


def _launches(found: Measurements, device: Device) -> dict[str, float]:
    """Fixed cost of operators by name: what calls take beyond their work by the other laws [s]."""
    costs: dict[str, list[float]] = {}
    for call, seconds in found.calls:
        priced_s = operator_seconds(call.op, call.args, call.operands, call.outputs, device)
        work_s = max(0.0, priced_s - device.launch_s.value)
        name = VIEW if priced_s == 0.0 else call.op
        costs.setdefault(name, []).append(max(0.0, seconds - work_s))
    return {name: fmean(values) for name, values in costs.items()}


_HALVES = (0.0, *(2.0**power for power in range(9)))
"""Half sizes that are tried: none, and every doubling up to 256, the widest tile of cuBLAS and
CUTLASS kernels (a tile of 256 x 128, CUTLASS profiler documentation); a fit within a factor of two
is as close as products of a few sizes can tell."""


_FEW = (0.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0)
"""Columns at which a product takes twice as long that are tried: up to two vectors of 16 elements
of 4 bytes, the widest there are (AVX-512)."""


@dataclass(frozen=True, slots=True)
class _Halves:
    """Sizes at which products reach half of their rate; see `Device`."""

    width: float
    depth: float
    columns: float


def _half_sizes(found: Measurements) -> _Halves:
    """Those that leave the least spread of full rates."""
    if not found.products:
        raise InputError(
            need="at least one measured matrix product", got="none", hint="probe again"
        )
    return min(
        (_Halves(*sizes) for sizes in product(_HALVES, _HALVES, _FEW)),
        key=lambda halves: sum(
            _spread(_full_rates(found, dtype, halves)) for dtype in _dtypes(found)
        ),
    )


def _rates(found: Measurements, halves: _Halves) -> dict[str, float]:
    return {
        dtype: math.exp(fmean(map(math.log, _full_rates(found, dtype, halves))))
        for dtype in _dtypes(found)
    }


def _dtypes(found: Measurements) -> tuple[str, ...]:
    return tuple(dict.fromkeys(p.dtype for p in found.products))


def _full_rates(found: Measurements, dtype: str, halves: _Halves) -> list[float]:
    """Rate that a device of these half sizes would need to match each measured product."""
    width, depth, few = halves.width, halves.depth, halves.columns
    rates: list[float] = []
    for p in found.products:
        if p.dtype == dtype:
            lost = (1 + width / p.rows) * (1 + width / p.columns) * (1 + depth / p.depth)
            lost *= 1 + (few / p.columns) ** 2
            net_s = max(p.seconds - found.launch_s, p.seconds / 10)
            rates.append(2.0 * p.rows * p.columns * p.depth * lost / net_s)
    return rates


def _spread(rates: Sequence[float]) -> float:
    logs = [math.log(rate) for rate in rates]
    middle = fmean(logs)
    return sum((x - middle) ** 2 for x in logs)


def _vector_rate(found: Measurements) -> float:
    """Simple operations a second, from the transcendental functions that were measured.

    Taken at the middle of the measured sizes, where neither the launch nor memory rules.
    """
    rates: list[float] = []
    for name in _TRANSCENDENTAL:
        points = sorted(found.operators.get(name, ()))
        if points:
            num_bytes, seconds = points[len(points) // 2]
            elements = num_bytes / 8.0  # one f32 read and one written for each
            rates.append(operator(name).vector_ops * elements / seconds)
    # A device that fuses is not measured operator by operator, and seldom bound by arithmetic.
    return median(rates) if rates else found.stream_bytes_per_s * _OPS_A_BYTE


_TRANSCENDENTAL = tuple(
    f"{name}.default" for name in ("exp", "log", "cos", "tanh", "erf", "sigmoid", "gelu", "silu")
)
_OPS_A_BYTE = 10.0
"""Of a GPU: 33.5 T operations/s over 3.35 TB/s (NVIDIA H100 data sheet)."""


def _curve(points: Points, source: str) -> Curve:
    ordered = sorted(points)
    # More bytes never take less time. Disturbances only lengthen, so the shorter time is right.
    falling = accumulate((seconds for _, seconds in reversed(ordered)), min)
    return Curve(
        sizes_bytes=tuple(num_bytes for num_bytes, _ in ordered),
        seconds=tuple(reversed(tuple(falling))),
        source=source,
    )


def _link(found: Measurements) -> Link:
    if found.num_ranks == 1 or not found.collectives:
        return Link(
            bytes_per_s=derived(
                found.stream_bytes_per_s, "B/s", "one rank sends nothing: its memory's bandwidth"
            ),
            latency_s=derived(found.launch_s, "s", "one rank sends nothing: a launch"),
        )
    curves = _collective_curves(found.collectives, found.num_ranks, found.source)
    gather = next((c for c in curves if c.collective == "all-gather"), curves[0]).curve
    n, largest = found.num_ranks, gather.sizes_bytes[-1]
    rounds = "fitted to all-gather in rounds: "  # the law of weft.cost.collective
    return Link(
        bytes_per_s=measured(
            largest * (n - 1) / n / gather.seconds[-1], "B/s", f"{rounds}{found.source}"
        ),
        latency_s=measured(
            gather.seconds[0] / (n - 1).bit_length(), "s", f"{rounds}{found.source}"
        ),
        curves=curves,
    )


def _collective_curves(
    collectives: Mapping[str, Points], num_ranks: int, source: str
) -> tuple[CollectiveCurve, ...]:
    return tuple(
        CollectiveCurve(collective=kind, num_devices=num_ranks, curve=_curve(points, source))
        for kind, points in collectives.items()
    )
