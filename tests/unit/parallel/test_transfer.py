"""What moves between grids is every element that is wanted, once."""

from __future__ import annotations

import numpy as np
import pytest

from weft.core.errors import VerifyError
from weft.parallel.placement import Mesh
from weft.parallel.transfer import pieces

LAYOUTS = [
    (Mesh((1,)), (-1,)),
    (Mesh((2,)), (0,)),
    (Mesh((4,)), (1,)),
    (Mesh((2, 2)), (0, 1)),
    (Mesh((2, 2)), (0, 0)),
    (Mesh((2, 2)), (1, -1)),
    (Mesh((2, 4)), (-1, 0)),
]


def part(whole: np.ndarray, mesh: Mesh, sharding: tuple[int, ...], rank: int) -> np.ndarray:
    starts, sizes = [0] * whole.ndim, list(whole.shape)
    for axis, place in enumerate(sharding):
        if place >= 0:
            sizes[place] //= mesh.shape[axis]
            starts[place] += mesh.coordinate(rank)[axis] * sizes[place]
    return whole[tuple(slice(a, a + n) for a, n in zip(starts, sizes, strict=True))]


@pytest.mark.parametrize("held", LAYOUTS)
@pytest.mark.parametrize("wanted", LAYOUTS)
def test_every_device_gets_its_part(held, wanted) -> None:
    whole = np.arange(64.0).reshape(8, 8)
    moved = pieces(whole.shape, held, wanted)
    for target in range(wanted[0].num_devices):
        expected = part(whole, *wanted, target)
        found = np.full(expected.shape, np.nan)
        for piece in moved:
            if piece.target != target:
                continue
            put = tuple(slice(a, b) for a, b in piece.put)
            taken = tuple(slice(a, b) for a, b in piece.taken)
            assert np.isnan(found[put]).all()
            found[put] = part(whole, *held, piece.source)[taken]
        np.testing.assert_array_equal(found, expected)


def test_equal_grids_move_every_part_to_the_device_at_the_same_place() -> None:
    for mesh, sharding in LAYOUTS:
        moved = pieces((8, 8), (mesh, sharding), (mesh, sharding))
        assert [(p.source, p.target) for p in moved] == [(n, n) for n in range(mesh.num_devices)]


def test_a_pending_reduction_is_refused() -> None:
    with pytest.raises(VerifyError, match="pending"):
        pieces((4,), (Mesh((2,)), (-2,)), (Mesh((2,)), (0,)))
