"""Degrees of the classical schemes."""

from __future__ import annotations

import pytest

from weft.core.errors import InputError
from weft.parallel.degrees import RECOMPUTED, Degrees
from weft.parallel.recompute import RECOMPUTATIONS


@pytest.mark.parametrize(
    ("degrees", "name", "mesh"),
    [
        (Degrees(), "one device", (1,)),
        (Degrees(dp=8), "DDP 8", (8,)),
        (Degrees(dp=8, zero=1), "ZeRO-1 8", (8,)),
        (Degrees(dp=8, zero=2, ep=8), "ZeRO-2 8 x EP 8", (8,)),
        (Degrees(dp=8, zero=3, ep=4, tp=2), "FSDP 8 x EP 4 x TP 2", (2, 4, 2)),
        (Degrees(cp=4, zero=1), "ZeRO-1 1 x CP 4", (4,)),
        (Degrees(dp=2, cp=4, tp=8, sp=True), "DDP 2 x CP 4 x TP 8 + SP", (2, 4, 8)),
        (Degrees(dp=2, tp=4, zero=1, wide=True), "ZeRO-1 2 x TP 4 of wide layers", (2, 4)),
        (Degrees(tp=4, zero=1, wide=True), "ZeRO-1 1 x TP 4 of wide layers", (4,)),
    ],
)
def test_degrees_have_the_names_and_grids_of_engineers(
    degrees: Degrees, name: str, mesh: tuple[int, ...]
) -> None:
    assert degrees.name == name
    assert degrees.mesh.shape == mesh
    assert degrees.mesh.num_devices == degrees.num_devices


@pytest.mark.parametrize(
    "named",
    [
        {"dp": 0},
        {"cp": 0},
        {"sp": True},
        {"dp": 4, "ep": 3},
        {"zero": 4},
        {"recompute": "some"},
        {"dp": 2, "zero": 1, "fsdp": True},
        {"dp": 2, "wide": True},
        {"tp": 2, "sp": True, "wide": True},
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(named: dict[str, int]) -> None:
    with pytest.raises(InputError):
        Degrees.named(**named)


def test_fully_sharded_is_the_third_stage() -> None:
    assert Degrees.named(dp=4, fsdp=True) == Degrees.named(dp=4, zero=3, fsdp=True)


def test_all_that_may_be_recomputed_can_be() -> None:
    assert set(RECOMPUTED) == set(RECOMPUTATIONS)
