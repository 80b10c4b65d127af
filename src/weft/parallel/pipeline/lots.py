"""Ways to cut unlike devices into groups: each kind into equal ones, or several kinds into one.

A lot is a run of ranks that is cut into equal groups. A machine falls apart into lots where the
kind of its nodes changes; some that follow each other may be one, which then is one group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from weft.core.divisors import divisors
from weft.machine.model import Machine, NodeGroup
from weft.parallel.pipeline.unlike import kinds_apart

__all__ = ["Lot", "lots"]


@dataclass(frozen=True, slots=True)
class Lot:
    """Ranks that are cut into equal groups.

    Attributes:
        first_rank: of the first group.
        size: devices of a group.
        count: groups.
    """

    first_rank: int
    size: int
    count: int

    def start(self, number: int) -> int:
        """First rank of a group."""
        return self.first_rank + number * self.size


def lots(machine: Machine, most_groups: int) -> Iterator[tuple[Lot, ...]]:
    """Ways to cut a machine into groups, at least two.

    Groups of devices that are alike fill nodes, or share them evenly.

    Args:
        machine: whose devices they are.
        most_groups: of all lots together.

    Example:
        >>> from weft.machine.presets import preset
        >>> found = list(lots(preset("mixed-v100-p100-1080ti"), 3))
        >>> [[lot.size for lot in way for _ in range(lot.count)] for way in found]
        [[4, 12], [12, 4], [2, 2, 12], [12, 2, 2], [4, 8, 4]]
    """
    found: dict[tuple[Lot, ...], None] = {}
    for blocks in _blocks(machine):
        firsts = accumulate(map(_num_devices, blocks), initial=0)
        ways = [
            [Lot(first, size, _num_devices(block) // size) for size in _sizes(block)]
            for first, block in zip(firsts, blocks, strict=False)
        ]
        for way in _within(ways, most_groups):
            if sum(lot.count for lot in way) > 1:
                found.setdefault(way)
    yield from sorted(found, key=lambda way: sum(lot.count for lot in way))


def _within(ways: Sequence[Sequence[Lot]], most: int) -> Iterator[tuple[Lot, ...]]:
    """One of each, of so many groups at most."""
    if not ways:
        yield ()
        return
    for lot in ways[0]:
        left = most - lot.count
        if left >= len(ways) - 1:
            for others in _within(ways[1:], left):
                yield (lot, *others)


def _blocks(machine: Machine) -> Iterator[list[tuple[NodeGroup, ...]]]:
    """Nodes that are cut apart together; those of one kind that follow each other always are."""
    for sizes in kinds_apart(machine):
        ends = list(accumulate(sizes))
        blocks: list[tuple[NodeGroup, ...]] = [()]
        held = 0
        for group in machine.groups:
            if held in ends:
                blocks.append(())
            blocks[-1] += (group,)
            held += group.num_devices
        yield blocks


def _sizes(block: Sequence[NodeGroup]) -> list[int]:
    """Devices that groups of a block may have, most first."""
    total, node = _num_devices(block), block[0].devices_per_node
    alike = replace(block[0], num_nodes=1)
    if any(replace(group, num_nodes=1) != alike for group in block):
        return [total]
    sizes = (size for size in divisors(total) if size % node == 0 or node % size == 0)
    return sorted(sizes, reverse=True)


def _num_devices(block: Sequence[NodeGroup]) -> int:
    return sum(group.num_devices for group in block)
