"""Where a rank stands in the mesh: what operators and collectives have to know of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from weft.parallel.placement import Mesh, Sharding

__all__ = ["Layout", "Place"]


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


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor lies on a grid, and where in it a rank stands.

    Attributes:
        sharding: how it is cut.
        place: the grid and the rank's place in it.
    """

    sharding: Sharding
    place: Place
