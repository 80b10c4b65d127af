"""The search on one mesh: what it makes fit, and where it does not try."""

from __future__ import annotations

from contextlib import closing
from math import inf

import pytest

from tests.programs import transformer
from weft.machine.presets import preset
from weft.parallel.exact.search import Limits, MeshSearch
from weft.parallel.exact.stage import Stage
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level
from weft.parallel.planning import plan
from weft.parallel.skeleton import build_skeleton
from weft.program.fold import fold

MACHINE, MESH = preset("dgx-h100x1"), Mesh((8,))
PROGRAM = transformer(
    num_layers=3, batch=8, length=256, width=256, num_heads=4, vocabulary=256, slots=("m",)
)
SHARE = 0.9
"""Of the memory of the plan that is best without regard to it."""


def mesh_search() -> MeshSearch:
    peak = plan(PROGRAM, MACHINE, mesh=MESH.shape).prediction.peak_bytes
    limits = Limits(memory_limit_bytes=SHARE * peak, level=Level.FAST)
    skeleton = build_skeleton(PROGRAM, fold(PROGRAM))
    return MeshSearch(skeleton, MACHINE, MESH, limits, Stage(PROGRAM))


def test_room_is_made_where_that_may_be_of_interest() -> None:
    with closing(mesh_search()) as search:
        assert search.search().fits


@pytest.mark.parametrize("share", [0.0, 0.99])
def test_no_room_is_made_where_something_else_is_faster(share: float) -> None:
    with closing(mesh_search()) as search:
        ((free, _),) = search.free().values()
        assert not free.fits
        assert search.search(share * free.prediction.step_s) is free
        assert search.proposals == [free]


def test_recomputation_is_looked_at_only_where_the_step_is_of_interest() -> None:
    with closing(mesh_search()) as search:
        ((free, _),) = search.free().values()
        search.recomputed(free.prediction.step_s)
        assert search.proposals == [free]
        search.recomputed(inf)
        assert [proposal.recomputes for proposal in search.proposals][:2] == [False, True]
