"""Where a rank stands in the mesh: what operators and collectives have to know of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from weft.parallel.placement import Mesh

__all__ = ["Place"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The grid, a rank's coordinate in it, its device, and the names of its groups.

    `groups[axis]` names the process group of the ranks along an axis; empty if that is the
    rank alone.

    Example:
        >>> Place(mesh=Mesh((1,)), coordinate=(0,), device=torch.device("cpu"), groups=("",)).groups
        ('',)
    """

    mesh: Mesh
    coordinate: tuple[int, ...]
    device: torch.device
    groups: tuple[str, ...]
