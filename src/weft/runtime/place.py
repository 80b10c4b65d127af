"""Where a rank stands in the mesh: what operators and collectives have to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from weft.parallel.placement import Mesh, Sharding

__all__ = ["Layout", "Place"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The grid, a rank's coordinate in it, its device, and the names of its groups.

    `groups[axis]` names the process group of the ranks along an axis; empty if that is the
    rank alone. A plan with further homes has groups of some of the ranks along the first axis:
    `meetings` names them by positions on it.

    Example:
        >>> Place(mesh=Mesh((1,)), coordinate=(0,), device=torch.device("cpu"), groups=("",)).groups
        ('',)
    """

    mesh: Mesh
    coordinate: tuple[int, ...]
    device: torch.device
    groups: tuple[str, ...]
    homes: tuple[Mesh, ...] = ()
    meetings: Mapping[tuple[int, ...], str] = field(default_factory=dict[tuple[int, ...], str])

    def at(self, home: int) -> Place:
        """The rank's place at a home."""
        return replace(self, mesh=self.homes[home]) if self.homes else self

    def group(self, axis: int, members: tuple[int, ...]) -> str:
        """Name of the group of ranks at some positions along an axis."""
        if len(members) == self.mesh.shape[axis]:
            return self.groups[axis]
        return self.meetings[members]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor lies on a grid, and where in it a rank stands.

    Attributes:
        sharding: how it is cut.
        place: the grid and the rank's place in it.
    """

    sharding: Sharding
    place: Place
