"""Placements: how one tensor lies on a mesh of devices.

A mesh is a grid of devices; the last axis is innermost, so its neighbours share a node
where that fits. A *placement* says what one mesh axis does to a tensor:

    R       every device along the axis holds the same values
    S<d>    tensor dim d is cut along the axis, evenly or by the axis' shares
    P       each device holds a summand; the value is their sum
    Pmax    each device holds a candidate; the value is their maximum

A *sharding* is one placement for each mesh axis. Where several axes cut the same dim, the
outer axis cuts first. An axis with shares gives unlike devices unlike parts: of a dim of 16 and
shares 2, 1, 1 the first device has 8 and the others 4. Placements are plain integers because
planners make millions of them: d >= 0 is S<d>, and the others are the constants below.
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

    Attributes:
        shape: devices along each axis.
        shares: for each axis what its devices have of a dim that it cuts, in whole numbers of
            least size; () for an axis that cuts evenly. Left out if all do. A device with a share
            of 0 holds nothing and has nothing to do.

    Example:
        >>> mesh = Mesh((4, 2))
        >>> mesh.num_devices, mesh.coordinate(5), mesh.stride(0)
        (8, (2, 1), 2)
        >>> uneven = Mesh((3, 2), ((2, 1, 1), ()))
        >>> str(uneven), uneven.units(0), uneven.span(0, 2)
        ('3(2:1:1)x2', 4, (3, 4))
    """

    shape: tuple[int, ...]
    shares: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1:
            raise InputError(
                need="a mesh of at least one axis, each of at least one device",
                got=f"mesh {self.shape}",
                hint="one device is the mesh (1,)",
            )
        if self.shares and (
            len(self.shares) != len(self.shape)
            or not any(self.shares)
            or not all(map(_are_shares, self.shares, self.shape))
        ):
            raise InputError(
                need="whole numbers of at least 0 without a common divisor, not all equal, one for "
                "each device of an axis that is cut unevenly, and () for one that is not",
                got=f"shares {self.shares} of mesh {self.shape}",
                hint="Mesh.uneven makes them of any proportions",
            )

    @classmethod
    def uneven(cls, shape: tuple[int, ...], shares: tuple[int, ...]) -> Mesh:
        """A mesh whose outermost axis cuts in these proportions; even ones are left out.

        Example:
            >>> Mesh.uneven((2, 2), (6, 2)), Mesh.uneven((2, 2), (3, 3)).is_even
            (Mesh(shape=(2, 2), shares=((3, 1), ())), True)
        """
        if len(set(shares)) <= 1:
            return cls(shape)
        common = math.gcd(*shares)
        return cls(shape, (tuple(s // common for s in shares), *((),) * (len(shape) - 1)))

    @property
    def is_even(self) -> bool:
        """True if every axis cuts in equal parts."""
        return not self.shares

    def cuts_evenly(self, axis: int) -> bool:
        """True if an axis cuts in equal parts."""
        return not self.shares or not self.shares[axis]

    def units(self, axis: int) -> int:
        """What a dim has to be a multiple of for the axis to cut it."""
        return self.shape[axis] if self.cuts_evenly(axis) else sum(self.shares[axis])

    def span(self, axis: int, position: int) -> tuple[int, int]:
        """Start and end, in units, of what the device at a position along an axis has."""
        if self.cuts_evenly(axis):
            return position, position + 1
        start = sum(self.shares[axis][:position])
        return start, start + self.shares[axis][position]

    def along(self, axis: int) -> Mesh:
        """One axis of the mesh alone.

        Example:
            >>> Mesh((2, 3), ((2, 1), ())).along(0), Mesh((2, 3)).along(1)
            (Mesh(shape=(2,), shares=((2, 1),)), Mesh(shape=(3,), shares=()))
        """
        shares = () if self.cuts_evenly(axis) else (self.shares[axis],)
        return Mesh((self.shape[axis],), shares)

    def members(self, axis: int) -> tuple[int, ...]:
        """Positions along an axis of the devices that have something."""
        if self.cuts_evenly(axis):
            return tuple(range(self.shape[axis]))
        return tuple(position for position, share in enumerate(self.shares[axis]) if share)

    def has(self, coordinate: tuple[int, ...]) -> bool:
        """True if the device at a place has something."""
        return not self.shares or all(
            not of_axis or of_axis[position] > 0
            for of_axis, position in zip(self.shares, coordinate, strict=True)
        )

    @property
    def largest(self) -> tuple[int, ...]:
        """Place of the first device that has most."""
        if not self.shares:
            return (0,) * self.num_axes
        return tuple(of_axis.index(max(of_axis)) if of_axis else 0 for of_axis in self.shares)

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
        shares = self.shares or ((),) * self.num_axes
        return "x".join(
            f"{size}({':'.join(map(str, of_axis))})" if of_axis else str(size)
            for size, of_axis in zip(self.shape, shares, strict=True)
        )


def _are_shares(shares: tuple[int, ...], size: int) -> bool:
    if not shares:
        return True
    sound = len(shares) == size and min(shares) >= 0 and len(set(shares)) > 1
    return sound and math.gcd(*shares) == 1


def is_partial(placement: Placement) -> bool:
    """True if the value still has to be reduced along the axis."""
    return placement <= PARTIAL


def divides(mesh: Mesh, sharding: Sharding, shape: tuple[int, ...]) -> bool:
    """True if every cut dim exists and is a multiple of the units of the axes that cut it."""
    parts = dict.fromkeys((p for p in sharding if p >= 0), 1)
    for axis, placement in enumerate(sharding):
        if placement >= 0:
            parts[placement] *= mesh.units(axis)
    return all(dim < len(shape) and shape[dim] % n == 0 for dim, n in parts.items())


def local_type(
    mesh: Mesh,
    sharding: Sharding,
    full: TensorType,
    coordinate: tuple[int, ...] | None = None,
) -> TensorType:
    """Type of one device's part of a tensor.

    Args:
        mesh: the device grid.
        sharding: how the tensor lies on it.
        full: the whole tensor.
        coordinate: where the device stands; on an even mesh that does not matter. One that has
            most if left out.

    Raises:
        InputError: a cut dim is not a multiple of the number of its parts.

    Example:
        >>> from weft.program.types import DType
        >>> str(local_type(Mesh((2, 4)), (0, REPLICATED), TensorType(DType.F32, (6, 8))))
        'f32[3,8]'
    """
    if not divides(mesh, sharding, full.shape):
        raise InputError(
            need="cut dims that are multiples of the devices, or of the shares, along their axes",
            got=f"{full} as {format_sharding(sharding)} on mesh {mesh}",
            hint="choose a size that divides, or another mesh",
        )
    if mesh.is_even:  # in planners' inner loops
        shape = list(full.shape)
        for axis, placement in enumerate(sharding):
            if placement >= 0:
                shape[placement] //= mesh.shape[axis]
        return TensorType(full.dtype, tuple(shape))
    box = part_box(mesh, sharding, mesh.largest if coordinate is None else coordinate, full.shape)
    return TensorType(full.dtype, tuple(end - start for start, end in box))


def part_box(
    mesh: Mesh, sharding: Sharding, coordinate: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Start and end, along each dim of the whole tensor, of the part at a place in the mesh.

    Example:
        >>> part_box(Mesh((2, 2)), (0, 0), (1, 0), (8, 3))
        ((4, 6), (0, 3))
        >>> part_box(Mesh((2,), ((3, 1),)), (0,), (1,), (8,))
        ((6, 8),)
    """
    starts, sizes = [0] * len(shape), list(shape)
    for axis, placement in enumerate(sharding):
        if placement >= 0:
            unit = sizes[placement] // mesh.units(axis)
            start, end = mesh.span(axis, coordinate[axis])
            starts[placement] += start * unit
            sizes[placement] = (end - start) * unit
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
