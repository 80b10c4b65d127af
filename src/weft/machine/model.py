"""What a program can run on: devices, links, and how many of each.

A machine is one or more node groups joined by a network. Inside a group all devices and
links are alike. Every figure is a `Quantity`, so it carries where it came from. Figures for
rates are *achievable* ones: what a good kernel or collective reaches, not the data sheet's
peak, unless the source says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from weft.core.digest import digest
from weft.core.errors import InputError
from weft.core.provenance import Quantity

__all__ = ["Device", "Link", "Machine", "NodeGroup"]


@dataclass(frozen=True, kw_only=True)
class Device:
    """One accelerator, or one CPU rank.

    Attributes:
        name: such as "h100-sxm".
        kind: "cuda" or "cpu".
        matmul_flops_per_s: reachable matrix-product rate by element type ("bf16", "f32", ...).
        vector_flops_per_s: reachable rate of element-wise arithmetic, in simple operations.
        memory_bytes: what a process can allocate.
        memory_bytes_per_s: reachable streaming bandwidth, reads plus writes.
        launch_s: fixed cost of one operator [s].
        fuses: whether neighbouring element-wise operators run as one kernel.
    """

    name: str
    kind: str
    matmul_flops_per_s: Mapping[str, Quantity]
    vector_flops_per_s: Quantity
    memory_bytes: Quantity
    memory_bytes_per_s: Quantity
    launch_s: Quantity
    fuses: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A way between devices, seen from one device: bandwidth out of it and latency of a hop."""

    bytes_per_s: Quantity
    latency_s: Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGroup:
    """`num_nodes` equal nodes of `devices_per_node` equal devices, joined inside by `link`."""

    device: Device
    devices_per_node: int
    num_nodes: int
    link: Link

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
        network: link between nodes, per device.
        overlap: share of a collective's time that computation can hide, from 0 (the two
            compete for the same cores) to 1 (they run side by side).
    """

    name: str
    groups: tuple[NodeGroup, ...]
    network: Link
    overlap: Quantity
    notes: str = field(default="")

    def __post_init__(self) -> None:
        if not self.groups:
            raise InputError(
                need="at least one node group", got="none", hint="see `weft machine`"
            )

    @property
    def num_devices(self) -> int:
        """Devices in the machine."""
        return sum(group.num_devices for group in self.groups)

    @property
    def is_uniform(self) -> bool:
        """True if all devices are alike."""
        return len(self.groups) == 1

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
                    ]
                    for g in self.groups
                ],
                "network": _link_plain(self.network),
                "overlap": self.overlap.value,
            }
        )


def _device_plain(device: Device) -> list[object]:
    return [
        device.name,
        device.kind,
        {name: rate.value for name, rate in device.matmul_flops_per_s.items()},
        device.vector_flops_per_s.value,
        device.memory_bytes.value,
        device.memory_bytes_per_s.value,
        device.launch_s.value,
        device.fuses,
    ]


def _link_plain(link: Link) -> list[float]:
    return [link.bytes_per_s.value, link.latency_s.value]
