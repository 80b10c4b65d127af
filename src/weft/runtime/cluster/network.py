"""The network of a cluster as commands of iproute2.

    namespace of rank r             namespace of the switch
    eth0 (10.77.0.r+1) ------------ rank r ---- bridge

Both ends of a rank's link let pass what the rank may send and receive, by a token bucket that
keeps next to nothing in store, so that small messages are slowed as large ones are. Latency is
added by netem where it is asked for. Nothing of it is in the host's own namespace: a cluster is
gone when its namespaces are deleted. Knows names and commands; runs none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from weft.runtime.cluster.description import Cluster, ClusterRank

__all__ = ["INTERFACE", "Names", "address", "owner_of", "setup_commands", "shape_commands"]

INTERFACE = "eth0"
"""Interface of a rank in its namespace."""

BRIDGE = "bridge0"

MTU_BYTES = 9000
"""Jumbo frames, as data centres use: few packets, so that shaping takes little processor time."""

SEGMENT_BYTES = 16384
"""Most that the kernel hands on as one packet. Without a limit it is 64 KiB, in which a slow link
would let small messages pass at once."""

BURST_BYTES = 20480
"""Bytes that pass unslowed after a pause: one segment with its headers, the least that works."""

QUEUE_BYTES = 2**25
"""No packet is dropped: all ranks' windows of TCP together are shorter than this."""


@dataclass(frozen=True, slots=True)
class Names:
    """Names of what a process builds, by which a later one knows what it left."""

    pid: int

    @property
    def group(self) -> str:
        """Control group; those of ranks lie in it."""
        return f"weft-{self.pid}"

    @property
    def switch(self) -> str:
        """Namespace of the switch."""
        return f"weft-{self.pid}-switch"

    def rank(self, rank: int) -> str:
        """Namespace of a rank."""
        return f"weft-{self.pid}-{rank}"


def owner_of(name: str) -> int | None:
    """Process that built what has this name; None for what no cluster has built.

    Example:
        >>> owner_of("weft-4711-switch"), owner_of("weft-4711-0"), owner_of("docker0")
        (4711, 4711, None)
    """
    found = re.fullmatch(r"weft-(\d+)(-switch|-\d+)?", name)
    return int(found[1]) if found else None


def address(rank: int) -> str:
    """Address of a rank. The namespaces see no other network, so that none can clash."""
    return f"10.77.0.{rank + 1}"


def setup_commands(cluster: Cluster, names: Names) -> list[list[str]]:
    """What builds the network of a cluster, in order."""
    switch = ["ip", "-n", names.switch]
    commands = [
        ["ip", "netns", "add", names.switch],
        [*switch, *_words(f"link add name {BRIDGE} type bridge")],
        [*switch, *_words(f"link set dev {BRIDGE} mtu {MTU_BYTES} up")],
    ]
    for rank, given in enumerate(cluster.ranks):
        own, port = names.rank(rank), f"rank{rank}"
        size = f"mtu {MTU_BYTES} gso_max_size {SEGMENT_BYTES} up"
        commands += [
            ["ip", "netns", "add", own],
            [*switch, *_words(f"link add name {port} type veth peer name {INTERFACE} netns {own}")],
            [*switch, *_words(f"link set dev {port} master {BRIDGE} {size}")],
            ["ip", "-n", own, *_words(f"link set dev {INTERFACE} {size}")],
            ["ip", "-n", own, *_words("link set dev lo up")],
            ["ip", "-n", own, *_words(f"addr add {address(rank)}/24 dev {INTERFACE}")],
            *shape_commands(own, INTERFACE, given, given.latency_s),
            *shape_commands(names.switch, port, given, 0.0),
        ]
    return commands


def shape_commands(
    namespace: str, device: str, given: ClusterRank, latency_s: float
) -> Iterable[list[str]]:
    """What slows one end of a link: the latency first, then the rate."""
    add = ["tc", "-n", namespace, "qdisc", "add", "dev", device]
    parent = "root"
    if latency_s:
        yield [*add, *_words(f"root handle 1: netem delay {latency_s * 1e6:.0f}us limit 100000")]
        parent = "parent 1:1"
    rate = f"rate {given.bytes_per_s * 8:.0f}bit"
    yield [*add, *_words(f"{parent} tbf {rate} burst {BURST_BYTES} limit {QUEUE_BYTES}")]


def _words(text: str) -> list[str]:
    return text.split()
