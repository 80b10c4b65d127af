"""Which links some ranks meet over, wherever they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from weft.machine.model import Device, Machine
from weft.machine.topology import Group, reference_s

__all__ = ["device_of", "meeting", "node_of"]


def node_of(machine: Machine, rank: int) -> tuple[int, int]:
    """Group and node that a rank is on.

    Example:
        >>> from weft.machine.presets import preset
        >>> node_of(preset("mixed-v100-p100-1080ti"), 7)
        (1, 1)
    """
    start = 0
    for number, group in enumerate(machine.groups):
        if rank < start + group.num_devices:
            return number, (rank - start) // group.devices_per_node
        start += group.num_devices
    raise IndexError(rank)


def device_of(machine: Machine, rank: int) -> Device:
    """The device of a rank."""
    return machine.groups[node_of(machine, rank)[0]].device


def meeting(machine: Machine, ranks: Sequence[int]) -> Group:
    """The group that some ranks make, as `axis_group` makes one of a mesh axis.

    The nodes may hold unlike numbers of them; the one with fewest counts. Of unlike links the
    slowest counts, and of unlike ways to the network the slowest.

    Args:
        machine: where they are.
        ranks: at least one.

    Returns:
        A group of one level where they share a node, else of two: inside nodes and across them.

    Example:
        >>> from weft.machine.presets import preset
        >>> meeting(preset("dgx-h100x2"), [0, 1, 8, 9]).sizes
        (2, 2)
        >>> meeting(preset("dgx-h100x2"), [0, 1, 2]).sizes
        (3,)
    """
    nodes = Counter(node_of(machine, rank) for rank in ranks)
    groups = [machine.groups[number] for number in dict.fromkeys(number for number, _ in nodes)]
    inside = min(nodes.values())
    link = max((group.link for group in groups), key=reference_s)
    if len(nodes) == 1:
        return Group(sizes=(inside,), links=(link,))
    network = max((machine.network_of(group) for group in groups), key=reference_s)
    return Group(sizes=(inside, -(-len(ranks) // inside)), links=(link, network))
