"""Placements: how one tensor lies on a mesh of devices.

A mesh is a grid of devices; the last axis is innermost, so its neighbours share a node
where that fits. A *placement* says what one mesh axis does to a tensor:

    R       every device along the axis holds the same values
    S<d>    tensor dim d is cut evenly along the axis
    P       each device holds a summand; the value is their sum
    Pmax    each device holds a candidate; the value is their maximum

A *sharding* is one placement for each mesh axis. Where several axes cut the same dim, the
outer axis cuts first. Placements are plain integers because planners make millions of them:
d >= 0 is S<d>, and the others are the constants below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from weft.core.errors import InputError
from weft.program.types import TensorType

__all__ = [
    "PARTIAL",
    "PARTIAL_MAX",
    "REPLICATED",
    "Mesh",
    "Placement",
    "Sharding",
    "divides",
    "format_sharding",
    "is_partial",
    "local_type",
    "parse_sharding",
    "part_box",
]

Placement: TypeAlias = int
Sharding: TypeAlias = tuple[Placement, ...]

REPLICATED: Placement = -1
PARTIAL: Placement = -2
PARTIAL_MAX: Placement = -3

_NAMES = {REPLICATED: "R", PARTIAL: "P", PARTIAL_MAX: "Pmax"}
_CODES = {name: code for code, name in _NAMES.items()}


@dataclass(frozen=True, slots=True)
class Mesh:
    """Shape of the device grid, outermost axis first.

    Example:
        >>> mesh = Mesh((4, 2))
        >>> mesh.num_devices, mesh.coordinate(5), mesh.stride(0)
        (8, (2, 1), 2)
    """

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1:
            raise InputError(
                need="a mesh of at least one axis, each of at least one device",
                got=f"mesh {self.shape}",
                hint="one device is the mesh (1,)",
            )

    @property
    def num_axes(self) -> int:
        """Number of mesh axes."""
        return len(self.shape)

    @property
    def num_devices(self) -> int:
        """Devices in the mesh."""
        return math.prod(self.shape)

    def stride(self, axis: int) -> int:
        """Distance in rank between neighbours along an axis."""
        return math.prod(self.shape[axis + 1 :])

    def coordinate(self, rank: int) -> tuple[int, ...]:
        """Position of a rank on each axis."""
        return tuple(rank // self.stride(a) % size for a, size in enumerate(self.shape))

    def __str__(self) -> str:
        return "x".join(map(str, self.shape))


def is_partial(placement: Placement) -> bool:
    """True if the value still has to be reduced along the axis."""
    return placement <= PARTIAL


def divides(mesh: Mesh, sharding: Sharding, shape: tuple[int, ...]) -> bool:
    """True if every cut dim exists and is a multiple of the product of the axes that cut it."""
    parts = dict.fromkeys((p for p in sharding if p >= 0), 1)
    for axis, placement in enumerate(sharding):
        if placement >= 0:
            parts[placement] *= mesh.shape[axis]
    return all(dim < len(shape) and shape[dim] % n == 0 for dim, n in parts.items())


def local_type(mesh: Mesh, sharding: Sharding, full: TensorType) -> TensorType:
    """Type of one device's part of a tensor.

    Raises:
        InputError: a cut dim is not a multiple of the number of its parts.

    Example:
        >>> from weft.program.types import DType
        >>> str(local_type(Mesh((2, 4)), (0, REPLICATED), TensorType(DType.F32, (6, 8))))
        'f32[3,8]'
    """
    if not divides(mesh, sharding, full.shape):
        raise InputError(
            need="cut dims that are multiples of the devices along their axes",
            got=f"{full} as {format_sharding(sharding)} on mesh {mesh}",
            hint="choose a size that divides, or another mesh",
        )
    shape = list(full.shape)
    for axis, placement in enumerate(sharding):
        if placement >= 0:
            shape[placement] //= mesh.shape[axis]
    return TensorType(full.dtype, tuple(shape))


def part_box(
    mesh: Mesh, sharding: Sharding, coordinate: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Start and end, along each dim of the whole tensor, of the part at a place in the mesh.

    Example:
        >>> part_box(Mesh((2, 2)), (0, 0), (1, 0), (8, 3))
        ((4, 6), (0, 3))
    """
    starts, sizes = [0] * len(shape), list(shape)
    for axis, placement in enumerate(sharding):
        if placement >= 0:
            sizes[placement] //= mesh.shape[axis]
            starts[placement] += coordinate[axis] * sizes[placement]
    return tuple((start, start + size) for start, size in zip(starts, sizes, strict=True))


def format_sharding(sharding: Sharding) -> str:
    """Text form, one word an axis.

    Example:
        >>> format_sharding((0, REPLICATED, PARTIAL))
        'S0,R,P'
    """
    return ",".join(_NAMES.get(p, f"S{p}") for p in sharding)


def parse_sharding(text: str) -> Sharding:
    """Inverse of `format_sharding`.

    Raises:
        InputError: a word is none of R, P, Pmax and S<d>.
    """
    try:
        return tuple(_CODES[w] if w in _CODES else _parse_shard(w) for w in text.split(","))
    except ValueError:
        raise InputError(
            need="placements R, P, Pmax or S<dim>, one for each mesh axis",
            got=repr(text),
            hint="for example S0,R",
        ) from None


def _parse_shard(word: str) -> Placement:
    if not word.startswith("S"):
        raise ValueError(word)
    return int(word[1:])
