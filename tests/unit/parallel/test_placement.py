"""Laws of meshes and placements."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.parallel.placement import (
    PARTIAL,
    PARTIAL_MAX,
    REPLICATED,
    Mesh,
    divides,
    format_sharding,
    local_type,
    parse_sharding,
    part_box,
)
from weft.program.types import DType, TensorType

shardings = st.lists(
    st.one_of(st.sampled_from([REPLICATED, PARTIAL, PARTIAL_MAX]), st.integers(0, 12)),
    min_size=1,
    max_size=4,
).map(tuple)


@given(shardings)
def test_text_of_a_sharding_reads_back(sharding: tuple[int, ...]) -> None:
    assert parse_sharding(format_sharding(sharding)) == sharding


@pytest.mark.parametrize("text", ["", "X", "S", "S-1x", "R;R", "s0"])
def test_other_text_is_refused_and_named(text: str) -> None:
    with pytest.raises(InputError, match="S0,R") as caught:
        parse_sharding(text)
    assert repr(text) in str(caught.value)


def test_ranks_are_laid_out_row_major() -> None:
    mesh = Mesh((2, 3, 4))
    coordinates = [mesh.coordinate(rank) for rank in range(mesh.num_devices)]
    assert coordinates == sorted(set(coordinates))
    assert coordinates[-1] == (1, 2, 3)


def test_two_axes_that_cut_one_dim_multiply() -> None:
    mesh = Mesh((2, 3))
    assert divides(mesh, (0, 0), (6,))
    assert not divides(mesh, (0, 0), (4,))
    assert local_type(mesh, (0, 0), TensorType(DType.F32, (12, 5))).shape == (2, 5)


def test_a_dim_that_does_not_exist_does_not_divide() -> None:
    assert not divides(Mesh((2,)), (1,), (4,))


def test_uneven_cuts_are_refused_with_type_and_mesh() -> None:
    with pytest.raises(InputError) as caught:
        local_type(Mesh((4,)), (0,), TensorType(DType.F32, (6, 8)))
    assert "f32[6,8]" in caught.value.got
    assert "mesh 4" in caught.value.got


@pytest.mark.parametrize("shape", [(), (0,), (2, -1)])
def test_meshes_without_devices_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="at least one device"):
        Mesh(shape)


SHARES = st.lists(st.integers(0, 6), min_size=2, max_size=5).filter(lambda s: len(set(s)) > 1)


@given(SHARES, st.integers(1, 4), st.integers(1, 3))
def test_unlike_parts_are_the_whole_once(shares: list[int], factor: int, inner: int) -> None:
    mesh = Mesh.uneven((len(shares), inner), tuple(shares))
    rows = mesh.units(0) * inner * factor
    boxes = [
        part_box(mesh, (0, 0), mesh.coordinate(rank), (rows, 3))[0]
        for rank in range(mesh.num_devices)
    ]
    assert [row for start, end in boxes for row in range(start, end)] == list(range(rows))
    assert divides(mesh, (0, 0), (rows, 3))
    if mesh.units(0) * inner > 1:
        assert not divides(mesh, (0, 0), (rows + 1, 3))


@given(SHARES)
def test_who_has_a_part_is_a_member(shares: list[int]) -> None:
    mesh = Mesh.uneven((len(shares), 2), tuple(shares))
    assert mesh.members(0) == tuple(n for n, share in enumerate(shares) if share)
    assert {rank // 2 for rank in range(mesh.num_devices) if mesh.has(mesh.coordinate(rank))} == {
        *mesh.members(0)
    }
    whole = TensorType(DType.F32, (mesh.units(0),))
    largest = max(shares) // math.gcd(*shares)
    assert local_type(mesh, (0, REPLICATED), whole).shape == (largest,)


@pytest.mark.parametrize(
    "shares", [((1, 1),), ((2, 4),), ((1, 2, 3),), ((-1, 2),), ((),), ((1, 2), (1, 2))]
)
def test_shares_that_are_none_are_refused(shares: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(InputError, match=r"Mesh\.uneven") as caught:
        Mesh((2,), shares)
    assert str(shares) in str(caught.value)
