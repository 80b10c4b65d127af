"""Which links a mesh axis crosses.

Ranks lie on the mesh in row-major order, the last axis innermost, and fill the machine node
by node. The devices of one axis therefore meet partly inside nodes and partly across them.
Knows ranks, nodes and links. Does not know what is sent over them: that is `weft.cost`.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from weft.core.errors import InputError
from weft.core.units import format_bytes
from weft.machine.model import Link, Machine, NodeGroup

__all__ = [
    "Group",
    "axis_group",
    "link_between",
    "nodes_of",
    "reference_s",
    "smallest_machine",
    "with_nodes",
    "with_nodes_of",
]

_REFERENCE_BYTES = 2**20
"""Links are compared by the time in which they move this much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Devices that communicate: `sizes[i]` of them meet over `links[i]`, innermost first.

    Raises:
        InputError: sizes and links do not match, or a size is below 1.
    """

    sizes: tuple[int, ...]
    links: tuple[Link, ...]

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.links) or min(self.sizes, default=0) < 1:
            raise InputError(
                need="one size of at least 1 for each link",
                got=f"sizes {self.sizes} for {len(self.links)} links",
                hint="give a level that the group does not cross the size 1",
            )

    @property
    def num_devices(self) -> int:
        """Devices that take part."""
        return math.prod(self.sizes)


def axis_group(machine: Machine, mesh_shape: tuple[int, ...], axis: int) -> Group:
    """How many devices along one mesh axis meet inside a node, and how many nodes they cross.

    An axis of size n and stride s joins the ranks b, b + s, ..., b + (n - 1) s. All such groups
    work at once, so the one that shares its nodes least is the one that counts: `inside` is the
    smallest number of members that any node holds of any group it holds members of, and
    `across` = ceil(n / inside).

    Args:
        machine: where the mesh lies; it may have more devices than the mesh.
        mesh_shape: devices along each mesh axis, outermost first.
        axis: index into `mesh_shape`.

    Returns:
        A group of sizes (inside, across) with the link inside nodes and the network. Where
        groups of nodes differ, the slowest link and the slowest way to the network that the mesh
        touches.

    Raises:
        InputError: the mesh has more devices than the machine, or no such axis.

    Example:
        >>> from weft.machine.presets import preset
        >>> axis_group(preset("dgx-h100x2"), (4, 4), 0).sizes
        (2, 2)
    """
    num_ranks = math.prod(mesh_shape)
    _check_mesh(machine, mesh_shape, axis, num_ranks)
    size, stride = mesh_shape[axis], math.prod(mesh_shape[axis + 1 :])
    touched = _touched(machine, num_ranks)
    inside = _members_per_node(touched, num_ranks, size, stride)
    link = max((group.link for group in touched), key=reference_s)
    network = max((machine.network_of(group) for group in touched), key=reference_s)
    return Group(sizes=(inside, -(-size // inside)), links=(link, network))


def nodes_of(machine: Machine, ranks: range) -> tuple[tuple[int, int, int], ...]:
    """On which nodes neighbouring ranks lie.

    Args:
        machine: where they lie.
        ranks: some of its devices.

    Returns:
        Runs of nodes that hold equally many of them: (group of nodes, ranks on each, nodes).

    Raises:
        InputError: the machine has fewer devices.

    Example:
        >>> from weft.machine.presets import preset
        >>> nodes_of(preset("dgx-h100x3"), range(6, 22))
        ((0, 2, 1), (0, 8, 1), (0, 6, 1))
    """
    if ranks.stop > machine.num_devices:
        raise InputError(
            need=f"at most {machine.num_devices} devices, as {machine.name} has",
            got=f"ranks {ranks.start} to {ranks.stop - 1}",
            hint="choose smaller groups or a machine with more nodes",
        )
    found: list[tuple[int, int, int]] = []
    start = 0
    for number, group in enumerate(machine.groups):
        for _ in range(group.num_nodes):
            end = start + group.devices_per_node
            held = min(end, ranks.stop) - max(start, ranks.start)
            if held > 0:
                last = found[-1] if found else (-1, 0, 0)
                if last[:2] == (number, held):
                    found[-1] = (number, held, last[2] + 1)
                else:
                    found.append((number, held, 1))
            start = end
    return tuple(found)


def with_nodes_of(machine: Machine, nodes: Sequence[tuple[int, int, int]]) -> Machine:
    """The part of a machine that some ranks lie on, as `nodes_of` finds it.

    Example:
        >>> from weft.machine.presets import preset
        >>> with_nodes_of(preset("dgx-h100x3"), ((0, 2, 1), (0, 6, 1))).num_devices
        8
    """
    groups = tuple(
        replace(machine.groups[number], devices_per_node=held, num_nodes=count)
        for number, held, count in nodes
    )
    return replace(machine, groups=groups)


def link_between(machine: Machine, first: int, second: int) -> Link:
    """What joins two devices: the link of their node, or the slower of their ways to the network.

    Args:
        machine: where they are.
        first, second: ranks; those beyond the last device count as on the machine's network.

    Example:
        >>> from weft.machine.presets import preset
        >>> pair = preset("dgx-h100x2")
        >>> link_between(pair, 7, 8) is pair.network, link_between(pair, 0, 7) is pair.network
        (True, False)
    """
    one, other = _node_of(machine, first), _node_of(machine, second)
    if one is not None and one == other:
        return machine.groups[one[0]].link
    ways = (
        machine.network if node is None else machine.network_of(machine.groups[node[0]])
        for node in (one, other)
    )
    return max(ways, key=reference_s)


def _node_of(machine: Machine, rank: int) -> tuple[int, int] | None:
    """Group of nodes and node in it that hold a rank; None beyond the last one."""
    start = 0
    for number, group in enumerate(machine.groups):
        if start <= rank < start + group.num_devices:
            return number, (rank - start) // group.devices_per_node
        start += group.num_devices
    return None


def smallest_machine(machine: Machine, wanted_bytes: float) -> Machine:
    """The machine with as many nodes of the same kind as hold `wanted_bytes` in all.

    An uneven machine grows by nodes of the kind that holds most. The machine itself is
    returned if it holds enough.

    Args:
        machine: the machine that is too small.
        wanted_bytes: memory wanted over all devices [bytes].

    Example:
        >>> from weft.machine.presets import preset
        >>> smallest_machine(preset("dgx-h100x1"), 2e12).name
        'dgx-h100x4'
    """
    missing = wanted_bytes - sum(g.num_nodes * _node_bytes(g) for g in machine.groups)
    if missing <= 0:
        return machine
    largest = max(range(len(machine.groups)), key=lambda i: _node_bytes(machine.groups[i]))
    group = machine.groups[largest]
    if _node_bytes(group) <= 0:
        raise InputError(
            need=f"{format_bytes(wanted_bytes)} over the devices of {machine.name}",
            got="devices without memory",
            hint="check memory_bytes in the machine file",
        )
    more = math.ceil(missing / _node_bytes(group))
    return with_nodes(machine, machine.num_nodes + more)


def with_nodes(machine: Machine, wanted: int) -> Machine:
    """The machine with so many nodes in all; an uneven one grows by nodes of the largest kind.

    Raises:
        InputError: fewer nodes than it has.

    Example:
        >>> from weft.machine.presets import preset
        >>> with_nodes(preset("dgx-h100x1"), 8).num_devices
        64
    """
    more = wanted - machine.num_nodes
    if more < 0:
        raise InputError(
            need=f"at least the {machine.num_nodes} nodes of {machine.name}",
            got=f"{wanted}",
            hint="machines only grow here; load a smaller preset instead",
        )
    largest = max(range(len(machine.groups)), key=lambda i: _node_bytes(machine.groups[i]))
    groups = tuple(
        replace(g, num_nodes=g.num_nodes + more) if i == largest else g
        for i, g in enumerate(machine.groups)
    )
    return replace(machine, name=_renamed(machine, wanted), groups=groups)


def _renamed(machine: Machine, num_nodes: int) -> str:
    stem, count = re.subn(r"x\d+$", f"x{num_nodes}", machine.name)
    return stem if count and machine.is_uniform else f"{machine.name} with {num_nodes} nodes"


def _node_bytes(group: NodeGroup) -> float:
    return group.devices_per_node * group.device.memory_bytes.value


def _check_mesh(machine: Machine, mesh_shape: tuple[int, ...], axis: int, num_ranks: int) -> None:
    if not 0 <= axis < len(mesh_shape) or min(mesh_shape) < 1:
        raise InputError(
            need="an axis of a mesh whose axes have at least one device each",
            got=f"axis {axis} of mesh {mesh_shape}",
            hint="axes count from 0, outermost first",
        )
    if num_ranks > machine.num_devices:
        raise InputError(
            need=f"a mesh of at most {machine.num_devices} devices, as {machine.name} has",
            got=f"mesh {'x'.join(map(str, mesh_shape))} of {num_ranks}",
            hint="choose a smaller mesh or a machine with more nodes",
        )


def _touched(machine: Machine, num_ranks: int) -> tuple[NodeGroup, ...]:
    """Node groups that hold at least one of the first `num_ranks` ranks."""
    ends = list(accumulate(group.num_devices for group in machine.groups))
    return machine.groups[: bisect_right(ends, num_ranks - 1) + 1]


def _members_per_node(groups: tuple[NodeGroup, ...], num_ranks: int, size: int, stride: int) -> int:
    """Smallest number of members of one axis group on a node that holds any."""
    if len(groups) == 1:
        node, block = groups[0].devices_per_node, size * stride
        if node % block == 0:
            return size
        if stride >= node:
            return 1
        if node % stride == 0 and block % node == 0:
            return node // stride
    node_of = [
        (g, n)
        for g, group in enumerate(groups)
        for n in range(group.num_nodes)
        for _ in range(group.devices_per_node)
    ]
    members = Counter(
        # Ranks of one group agree in what is left when the axis' own digit is taken out.
        (rank // (size * stride), rank % stride, node_of[rank])
        for rank in range(num_ranks)
    )
    return min(members.values())


def reference_s(link: Link) -> float:
    """What links are compared by: how long one takes to move some bytes [s]."""
    return link.latency_s.value + _REFERENCE_BYTES / link.bytes_per_s.value
