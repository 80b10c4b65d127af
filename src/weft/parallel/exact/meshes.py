"""Which mesh shapes are worth planning on.

One axis, or two whose inner one stays inside a node or fills it: devices of a node are then
consecutive on the inner axis, where links are fast. At the best level three axes as well,
for machines small enough for the larger programme.
"""

from __future__ import annotations

from weft.core.divisors import divisors
from weft.machine.model import Machine
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level

__all__ = ["candidate_meshes"]


def candidate_meshes(machine: Machine, level: Level, rows: int) -> tuple[Mesh, ...]:
    """Mesh shapes over all devices of a machine, most promising first.

    Args:
        machine: where it runs.
        level: how many to look at. At the fast level, if there are others, none whose first axis
            has more devices than the batch has rows.
        rows: of the batch.

    Example:
        >>> from weft.machine.presets import preset
        >>> [str(m) for m in candidate_meshes(preset("dgx-h100x1"), Level.FAST, rows=64)]
        ['8', '4x2', '2x4']
        >>> [str(m) for m in candidate_meshes(preset("dgx-h100x1"), Level.FAST, rows=4)]
        ['4x2', '2x4']
    """
    total = machine.num_devices
    node = min(group.devices_per_node for group in machine.groups)
    inner = [n for n in divisors(total) if 1 < n < total and (node % n == 0 or n % node == 0)]
    if level is Level.FAST:
        inner = [n for n in inner if n <= node or n == 2 * node]
    shapes = [(total,), *((total // n, n) for n in inner)]
    if level is Level.FAST:
        shapes = [shape for shape in shapes if shape[0] <= rows] or shapes
    return tuple(Mesh(shape) for shape in shapes)
