"""Random uneven machines, on which a prior is trained and tried.

Up to four machines, each of equal cards with their own way to the network, until there are 16 cards
or, with two machines, room for twice the step and a coin that says so.

Source: the generator of TAG's experiments (arXiv 2302.06126): kinds of cards with their usable
memory, numbers of cards, bandwidths; rates of the cards are those of the preset. A machine's cards
share its way to the network.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from weft.core.provenance import ported
from weft.machine.model import Device, Link, Machine, NodeGroup
from weft.machine.presets import preset

__all__ = ["KINDS", "PRESET", "random_machine"]

PRESET = "mixed-v100-p100-1080ti"
"""Where the figures of the cards are from."""
KINDS: tuple[Device, ...] = tuple(group.device for group in preset(PRESET).groups)
"""Kinds of cards."""

_SOURCE = "TAG (arXiv 2302.06126), random topologies"
_MEMORY_GIB = {"v100-sxm2-32gb": 14, "gtx-1080ti": 9, "p100-pcie-12gb": 10}
_CARDS = (2, 3, 4, 6, 8)
_INSIDE_BYTES_PER_S = (8e9, 20e9)
_NETWORK_BYTES_PER_S = (2.81e9, 5e9)
"""To another rack, and within one."""
_MOST_GROUPS, _MANY_CARDS, _ROOM = 4, 16, 2.0


def random_machine(generator: np.random.Generator, needs_bytes: float) -> Machine:
    """A machine of two to four groups of devices.

    Args:
        generator: of chance.
        needs_bytes: parameters, optimizer state and gradients of the step [bytes].
    """
    groups: list[NodeGroup] = []
    while len(groups) < _MOST_GROUPS:
        groups.append(_random_group(generator))
        room = sum(group.num_devices * group.device.memory_bytes.value for group in groups)
        enough = len(groups) >= 2 and room > _ROOM * needs_bytes
        if sum(group.num_devices for group in groups) >= _MANY_CARDS:
            break
        if enough and generator.random() < 0.5:
            break
    base = preset(PRESET)
    names = "+".join(f"{group.num_devices}{group.device.name.split('-')[0]}" for group in groups)
    network = groups[0].network or base.network
    return Machine(name=names, groups=tuple(groups), network=network, overlap=base.overlap)


def _random_group(generator: np.random.Generator) -> NodeGroup:
    device = KINDS[int(generator.integers(len(KINDS)))]
    cards = int(generator.choice(_CARDS))
    base = preset(PRESET)
    latency = base.network.latency_s
    memory = ported(_MEMORY_GIB[device.name] * 2.0**30, "B", _SOURCE)
    inside = float(generator.choice(_INSIDE_BYTES_PER_S))
    outside = float(generator.choice(_NETWORK_BYTES_PER_S)) / cards
    return NodeGroup(
        device=replace(device, memory_bytes=memory),
        devices_per_node=cards,
        num_nodes=1,
        link=Link(
            bytes_per_s=ported(inside, "B/s", _SOURCE), latency_s=base.groups[0].link.latency_s
        ),
        network=Link(bytes_per_s=ported(outside, "B/s", _SOURCE), latency_s=latency),
    )
