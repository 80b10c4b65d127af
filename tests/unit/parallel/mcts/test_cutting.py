"""Tree search over layers to cut: what it looks at, and what it makes of it."""

from __future__ import annotations

from math import inf

import pytest

from tests.homed import devices
from tests.programs import mlp
from weft.parallel.degrees import Degrees
from weft.parallel.experts import Desk
from weft.parallel.mcts.cutting import CutSearch
from weft.parallel.pinning import resolve
from weft.parallel.validate import validate

PROGRAM = mlp(num_layers=2, batch=8, width=64, hidden=lambda _: 256)
MESHES = (Degrees(dp=2, tp=2, zero=1, wide=True), Degrees(tp=4, wide=True))


def searched(baseline_s, limit_bytes=1e12, simulations=24, stop=lambda: False):
    search = CutSearch(
        Desk(PROGRAM, resolve(PROGRAM)),
        devices(4),
        MESHES,
        memory_limit_bytes=limit_bytes,
        baseline_s=baseline_s,
    )
    return search.run(simulations, stop)


@pytest.mark.parametrize("baseline_s", [1e-4, inf])
def test_all_meshes_are_looked_at_whether_there_is_a_plan_already_or_not(baseline_s):
    found = searched(baseline_s)
    assert {own.plan.mesh.shape for own in found} == {own.mesh.shape for own in MESHES}
    validate(found[0].plan, PROGRAM)
    assert [own.step_s for own in found] == sorted(own.step_s for own in found)
    assert [own.step_s for own in searched(baseline_s)] == [own.step_s for own in found]


def test_where_nothing_fits_what_is_found_is_said_not_to():
    assert not [own for own in searched(inf, limit_bytes=1.0, simulations=6) if own.fits]


def test_a_search_that_is_stopped_at_once_finds_nothing():
    assert not searched(inf, stop=lambda: True)
