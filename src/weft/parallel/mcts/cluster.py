"""A machine as the simulator sees it: every device by its rank, with its kind, node and links."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from weft.core.errors import InputError
from weft.machine.meeting import meeting
from weft.machine.model import Device, Link, Machine
from weft.machine.topology import Group, link_between
from weft.parallel.mcts.sketch import Floats, Integers

__all__ = ["Cluster", "cluster_of", "kinds_of"]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Devices in rank order.

    Attributes:
        machine: where they are.
        kind: of each device, as numbered by the sketch.
        device_group: which group of nodes it is in.
        node: which node it is in.
        memory_bytes: of each device [bytes].
        s_per_byte, latency_s: from device to device; 0 to itself [s].
        overlap: share of a transfer that computation can hide.
    """

    machine: Machine
    kind: Integers
    device_group: Integers
    node: Integers
    memory_bytes: Floats
    s_per_byte: Floats
    latency_s: Floats
    overlap: float
    _groups: dict[tuple[int, ...], Group] = field(default_factory=dict[tuple[int, ...], Group])

    @property
    def num_devices(self) -> int:
        """How many devices there are."""
        return len(self.kind)

    @property
    def num_groups(self) -> int:
        """How many groups of nodes there are."""
        return len(self.machine.groups)

    def members_of(self, groups: Collection[int]) -> tuple[int, ...]:
        """Devices of some groups of nodes, in rank order."""
        return tuple(d for d, group in enumerate(self.device_group.tolist()) if group in groups)

    def meeting(self, members: tuple[int, ...]) -> Group:
        """How some devices meet in a collective.

        As for a mesh axis, the node that holds fewest of them counts, and the slowest link.
        """
        found = self._groups.get(members)
        if found is None:
            found = self._groups[members] = meeting(self.machine, members)
        return found


def cluster_of(machine: Machine, devices: Sequence[Device]) -> Cluster:
    """A machine with its devices numbered by kind.

    Args:
        machine: where they are.
        devices: kinds; devices that differ in their memory only are of one kind.

    Raises:
        InputError: the machine has a device of none of these kinds.
    """
    kinds = [_but_memory(device) for device in devices]
    kind: list[int] = []
    group_of: list[int] = []
    node: list[int] = []
    memory: list[float] = []
    nodes = 0
    for number, group in enumerate(machine.groups):
        device = _but_memory(group.device)
        if device not in kinds:
            raise InputError(
                need=f"devices among {', '.join(d.name for d in devices)}",
                got=f"{group.device.name} in {machine.name}",
                hint="sketch the program for the devices of this machine",
            )
        count = group.num_devices
        kind += [kinds.index(device)] * count
        group_of += [number] * count
        node += [nodes + at // group.devices_per_node for at in range(count)]
        memory += [group.device.memory_bytes.value] * count
        nodes += group.num_nodes
    s_per_byte, latency = _links(machine, node)
    return Cluster(
        machine=machine,
        kind=np.asarray(kind),
        device_group=np.asarray(group_of),
        node=np.asarray(node),
        memory_bytes=np.asarray(memory),
        s_per_byte=s_per_byte,
        latency_s=latency,
        overlap=machine.overlap.value,
    )


def kinds_of(machine: Machine) -> tuple[Device, ...]:
    """Kinds of devices of a machine; those that differ in their memory only are one.

    Example:
        >>> from weft.machine.presets import preset
        >>> [device.name for device in kinds_of(preset("mixed-v100-p100-1080ti"))]
        ['v100-sxm2-32gb', 'gtx-1080ti', 'p100-pcie-12gb']
    """
    found: list[Device] = []
    for group in machine.groups:
        if all(_but_memory(known) != _but_memory(group.device) for known in found):
            found.append(group.device)
    return tuple(found)


def _but_memory(device: Device) -> Device:
    return replace(device, memory_bytes=replace(device.memory_bytes, value=1.0, source="any"))


def _links(machine: Machine, node: Sequence[int]) -> tuple[Floats, Floats]:
    count = len(node)
    s_per_byte, latency = np.zeros((count, count)), np.zeros((count, count))
    known: dict[tuple[int, int], Link] = {}
    for a in range(count):
        for b in range(count):
            if a != b:
                # All pairs of two nodes are joined alike.
                key = (node[a], node[b])
                link = known.get(key)
                if link is None:
                    link = known[key] = link_between(machine, a, b)
                s_per_byte[a, b] = 1.0 / link.bytes_per_s.value
                latency[a, b] = link.latency_s.value
    return s_per_byte, latency
