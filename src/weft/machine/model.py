"""What a program can run on: devices, links, and how many of each.

A machine is one or more node groups joined by a network. Inside a group all devices and
links are alike. Every figure is a `Quantity` or a measured `Curve`, so it carries where it
came from. Figures for rates are *achievable* ones: what a good kernel or collective reaches,
not the data sheet's peak, unless the source says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from weft.core.digest import digest
from weft.core.errors import InputError
from weft.core.provenance import Quantity
from weft.machine.curve import Curve

__all__ = ["COLLECTIVES", "MAX_NODES", "CollectiveCurve", "Device", "Link", "Machine", "NodeGroup"]

MAX_NODES = 4096
"""Most nodes of a preset or a machine file: the topology lists every one of them."""

MATMUL_TYPES = ("f64", "f32", "bf16", "f16")
"""Element types that a device can have a rate of matrix products for."""

MAX_ATTENTION_SHARE = 8.0
"""Attention outruns products of its type by no more than tensor cores do other ones: 156 over 19.5
TFLOP/s in TF32 and FP32 (NVIDIA A100 data sheet). More is a share given in per cent."""

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
"""Names of the collectives that a link may be measured with."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """One accelerator, or one CPU rank.

    The optional figures refine the time of an operator; `weft.cost.roofline` states the laws
    and what holds where they are absent.

    Attributes:
        name: such as "h100-sxm".
        kind: "cuda" or "cpu".
        matmul_flops_per_s: reachable matrix-product rate by element type ("bf16", "f32", ...).
        vector_flops_per_s: reachable rate of element-wise arithmetic, in simple operations.
        memory_bytes: what a process can allocate.
        memory_bytes_per_s: reachable streaming bandwidth, reads plus writes.
        launch_s: fixed cost of one operator [s].
        operator_launch_s: the same by name of operators for which it is another one, as the
            runtime calls them; "view" stands for all views [s].
        fuses: whether neighbouring element-wise operators run as one kernel.
        matmul_half_width: rows or columns of a product at which it reaches half its rate.
        matmul_half_depth: contracted elements at which it reaches half its rate.
        matmul_few_columns: columns of a product at which it takes twice as long as they are worth.
        matmul_traffic: bytes of plain traffic that take as long as a byte of a product's operands
            and result, of those beyond what lies in caches.
        attention_share: rate of attention as a share of the rate of matrix products.
        attention_block: keys in a tile; causal attention skips whole tiles only.
        attention_row_s: for each query of each head, beside products, by operator name [s].
        attention_score_s: for each of its scores, beside products, by operator name [s].
        operator_curves: measured seconds against bytes moved, by operator name, in f32; the
            name "traffic" stands for operators that were not measured, and "sum.columns" for
            sums whose last dim stays.
    """

    name: str
    kind: str
    matmul_flops_per_s: Mapping[str, Quantity]
    vector_flops_per_s: Quantity
    memory_bytes: Quantity
    memory_bytes_per_s: Quantity
    launch_s: Quantity
    fuses: bool = True
    matmul_half_width: Quantity | None = None
    matmul_half_depth: Quantity | None = None
    matmul_few_columns: Quantity | None = None
    matmul_traffic: Quantity | None = None
    attention_share: Quantity | None = None
    attention_block: Quantity | None = None
    attention_row_s: Mapping[str, Quantity] = field(default_factory=dict[str, Quantity])
    attention_score_s: Mapping[str, Quantity] = field(default_factory=dict[str, Quantity])
    operator_curves: Mapping[str, Curve] = field(default_factory=dict[str, Curve])
    operator_launch_s: Mapping[str, Quantity] = field(default_factory=dict[str, Quantity])

    def __post_init__(self) -> None:
        rates = {f"matmul rate of {name}": rate for name, rate in self.matmul_flops_per_s.items()}
        rates["vector_flops_per_s"] = self.vector_flops_per_s
        rates["memory_bytes_per_s"] = self.memory_bytes_per_s
        if self.attention_share is not None:
            rates["attention_share"] = self.attention_share
        rates["memory_bytes"] = self.memory_bytes
        zero = [name for name, rate in rates.items() if rate.value <= 0]
        if zero or not self.matmul_flops_per_s or self.kind not in ("cuda", "cpu"):
            raise InputError(
                need="a device of kind cuda or cpu with memory and rates above 0 and at least one "
                "matmul rate",
                got=f"{self.name}, kind {self.kind!r}, zero: {', '.join(zero) or 'none'}",
                hint="leave out the element types that the device cannot multiply",
            )
        unknown = sorted(self.matmul_flops_per_s.keys() - set(MATMUL_TYPES))
        if unknown:
            raise InputError(
                need=f"matmul rates for {', '.join(MATMUL_TYPES)}",
                got=f"{self.name}, with rates for {', '.join(unknown)}",
                hint="name the element type in which products are computed",
            )
        if self.attention_share is not None and self.attention_share.value > MAX_ATTENTION_SHARE:
            raise InputError(
                need=f"an attention_share of at most {MAX_ATTENTION_SHARE:g}",
                got=f"{self.name}, attention_share {self.attention_share.value}",
                hint="it is the rate of attention over that of matrix products, not per cent",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveCurve:
    """Measured time of one collective against its payload.

    Attributes:
        collective: one of `COLLECTIVES`.
        num_devices: how many devices took part.
        curve: seconds until the last device held its result, against the bytes of the tensor
            before it is cut.
    """

    collective: str
    num_devices: int
    curve: Curve

    def __post_init__(self) -> None:
        if self.collective not in COLLECTIVES or self.num_devices < 2:
            raise InputError(
                need=f"one of {', '.join(COLLECTIVES)} on at least 2 devices",
                got=f"{self.collective!r} on {self.num_devices}",
                hint="measure again with weft.runtime.probe",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A way between devices, seen from one device: bandwidth out of it and latency of a hop.

    `curves` hold measured times of whole collectives and win over the two figures.
    """

    bytes_per_s: Quantity
    latency_s: Quantity
    curves: tuple[CollectiveCurve, ...] = ()

    def __post_init__(self) -> None:
        if self.bytes_per_s.value <= 0:
            raise InputError(
                need="a link with a bandwidth above 0",
                got=f"{self.bytes_per_s.value} B/s",
                hint="leave out the devices that nothing connects",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGroup:
    """`num_nodes` equal nodes of `devices_per_node` equal devices, joined inside by `link`.

    Attributes:
        network: the way of these nodes to the network, per device, where it is not the machine's.
            Between two groups the slower of their ways counts.
    """

    device: Device
    devices_per_node: int
    num_nodes: int
    link: Link
    network: Link | None = None

    def __post_init__(self) -> None:
        if self.devices_per_node < 1 or self.num_nodes < 1:
            raise InputError(
                need="at least one node with at least one device",
                got=f"{self.num_nodes} nodes of {self.devices_per_node} devices",
                hint="name a machine as PRESETxNODES, for example dgx-h100x8",
            )

    @property
    def num_devices(self) -> int:
        """Devices in the group."""
        return self.devices_per_node * self.num_nodes


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A cluster.

    Attributes:
        name: preset name or file stem.
        groups: node groups; one if all nodes are alike.
        network: link between nodes, per device; a group of nodes may have its own.
        overlap: share of a collective's time that computation can hide, from 0 (the two
            compete for the same cores) to 1 (they run side by side).
    """

    name: str
    groups: tuple[NodeGroup, ...]
    network: Link
    overlap: Quantity
    notes: str = field(default="")

    def __post_init__(self) -> None:
        if not self.groups or self.overlap.value > 1:
            raise InputError(
                need="at least one node group and an overlap from 0 to 1",
                got=f"{len(self.groups)} groups, overlap {self.overlap.value}",
                hint="see `weft machine`",
            )

    @property
    def num_devices(self) -> int:
        """Devices in the machine."""
        return sum(group.num_devices for group in self.groups)

    @property
    def num_nodes(self) -> int:
        """Nodes of all groups."""
        return sum(group.num_nodes for group in self.groups)

    @property
    def is_uniform(self) -> bool:
        """True if all devices are alike."""
        return len(self.groups) == 1

    def network_of(self, group: NodeGroup) -> Link:
        """The way of a group's nodes to the network: their own, or the machine's."""
        return self.network if group.network is None else group.network

    @cached_property
    def digest(self) -> str:
        """Content digest of everything but the name, the notes and the sources."""
        return digest(
            {
                "groups": [
                    [
                        _device_plain(g.device),
                        g.devices_per_node,
                        g.num_nodes,
                        _link_plain(g.link),
                        # As with launches below: files from before have the digests they had.
                        *([] if g.network is None else [_link_plain(g.network)]),
                    ]
                    for g in self.groups
                ],
                "network": _link_plain(self.network),
                "overlap": float(self.overlap.value),
            }
        )


def _device_plain(device: Device) -> list[object]:
    products = {
        "matmul_few_columns": device.matmul_few_columns,
        "matmul_traffic": device.matmul_traffic,
    }
    # Where there are none, the digest is that of files from before there were any.
    added: list[object] = [
        {name: float(figure.value) for name, figure in figures.items()}
        for figures in (
            device.operator_launch_s,
            device.attention_row_s,
            device.attention_score_s,
            {name: figure for name, figure in products.items() if figure is not None},
        )
    ]
    while added and not added[-1]:
        added.pop()
    return [
        device.name,
        device.kind,
        {name: float(rate.value) for name, rate in device.matmul_flops_per_s.items()},
        device.fuses,
        [
            None if quantity is None else float(quantity.value)
            for quantity in (
                device.vector_flops_per_s,
                device.memory_bytes,
                device.memory_bytes_per_s,
                device.launch_s,
                device.matmul_half_width,
                device.matmul_half_depth,
                device.attention_share,
                device.attention_block,
            )
        ],
        {name: _curve_plain(curve) for name, curve in device.operator_curves.items()},
        *added,
    ]


def _link_plain(link: Link) -> list[object]:
    return [
        float(link.bytes_per_s.value),
        float(link.latency_s.value),
        [[c.collective, c.num_devices, _curve_plain(c.curve)] for c in link.curves],
    ]


def _curve_plain(curve: Curve) -> list[list[float]]:
    return [[float(x) for x in curve.sizes_bytes], [float(x) for x in curve.seconds]]
