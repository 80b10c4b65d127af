"""How long messages between single devices take that are sent at once.

A device sends its messages one after the other over each of its links, and takes them up so; over
the link of its node and over the network at once. All are through when the device is that has
most to send or to take up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TypeAlias

from weft.machine.model import Machine
from weft.machine.topology import link_between

__all__ = ["Message", "messages_s"]

Message: TypeAlias = tuple[int, int, float]
"""Ranks of the sender and of the receiver, and what is sent [bytes]."""


def messages_s(messages: Iterable[Message], machine: Machine) -> float:
    """How long messages that are sent at once take [s].

    Args:
        messages: what is sent; what a device has itself takes no time.
        machine: where the devices are.
    """
    busy: dict[tuple[str, int, int], float] = defaultdict(float)
    for source, target, num_bytes in messages:
        if source == target:
            continue
        link = link_between(machine, source, target)
        seconds = link.latency_s.value + num_bytes / link.bytes_per_s.value
        busy["out", source, id(link)] += seconds
        busy["in", target, id(link)] += seconds
    return max(busy.values(), default=0.0)
