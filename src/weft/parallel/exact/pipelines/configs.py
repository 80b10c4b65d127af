"""Which grids of groups, and how many micro-batches, are worth looking at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from weft.core.divisors import divisors
from weft.machine.model import Machine
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level

__all__ = ["MOST_ROWS", "Config", "configs"]

MOST_ROWS = {Level.FAST: 4, Level.BEST: 16}
"""Rows of a micro-batch on one part of a group beyond which more are tried only as `ROUNDS` says.
Derived: where sequences are long, products are as fast with few, and the bubble only grows."""
LEAST_ROUNDS = 0.5
"""Micro-batches for each group below which nothing is tried. Derived: at half of one the bubble is
twice as long as the work."""


@dataclass(frozen=True, slots=True)
class Config:
    """How many groups, how each is arranged, and how many micro-batches there are.

    Attributes:
        groups: groups of devices, one after the other in the pipeline.
        data: parts of a group that share out the rows of a micro-batch.
        inner: devices of each such part.
        micro_batches: parts of the batch.
        rows: rows of one micro-batch on one part of a group.
    """

    groups: int
    data: int
    inner: int
    micro_batches: int
    rows: int

    @property
    def mesh(self) -> Mesh:
        """The grid of a group; axes of one device are left out."""
        return Mesh(tuple(n for n in (self.data, self.inner) if n > 1) or (1,))

    def first_rank(self, stage: int) -> int:
        """First rank of the group of a stage."""
        return stage % self.groups * self.mesh.num_devices

    def __str__(self) -> str:
        groups = f"{self.groups} group{'s' if self.groups > 1 else ''}"
        return f"{groups} of {self.mesh}, {self.micro_batches} micro-batches"


def configs(machine: Machine, rows: int, most_groups: int, most_rows: int) -> Iterator[Config]:
    """Ways to use all devices that divide the batch.

    Groups fill nodes or share them evenly. A micro-batch has few rows on each part of a group, or
    there are a few of them for each group.

    Args:
        machine: where it runs.
        rows: of the batch.
        most_groups: groups that the program has pieces for.
        most_rows: rows of a micro-batch on one part of a group.

    Example:
        >>> from weft.machine.presets import preset
        >>> found = list(configs(preset("dgx-h100x1"), rows=8, most_groups=8, most_rows=4))
        >>> str(found[0]), len(found)
        ('1 group of 4x2, 2 micro-batches', 19)
    """
    total = machine.num_devices
    node = min(group.devices_per_node for group in machine.groups)
    for groups in divisors(total):
        if groups > most_groups:
            break
        each = total // groups
        if each % node and node % each:
            continue  # some groups would lie across two nodes
        for inner in divisors(math.gcd(each, node) if each >= node else each):
            data = each // inner
            for count in _counts_of_rows(rows, data, groups, most_rows):
                parts = rows // (data * count)
                if parts >= max(2, groups * LEAST_ROUNDS):
                    yield Config(groups, data, inner, parts, count)


ROUNDS = (2, 4, 8)
"""Micro-batches for each group that are tried even if a micro-batch then has many rows. Derived:
with two a third of the time is bubble, with eight a tenth."""


def _counts_of_rows(rows: int, data: int, groups: int, most_rows: int) -> list[int]:
    """Rows of a micro-batch on one of `data` parts that divide the batch, rising."""
    if rows % data:
        return []
    each = rows // data
    few = {count for count in range(1, most_rows + 1) if each % count == 0}
    by_rounds = {each // (n * groups) for n in ROUNDS if each % (n * groups) == 0}
    return sorted(few | by_rounds)
