"""Pipelines of the exact planner over unlike devices: which groups, in which order, on what."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import inf

import pytest

from tests.homed import MIXED, devices, of_two_nodes
from tests.programs import mlp
from weft.core.errors import InfeasibleError
from weft.machine.presets import preset
from weft.parallel.exact.pipelines.unlike import UnlikeSearch
from weft.parallel.pins import Pin
from weft.parallel.pipeline.kept import require_pipeline_kept
from weft.parallel.pipeline.lots import Lot, lots
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.serialize import pipeline_from_json, pipeline_to_json
from weft.parallel.pipeline.standing import ranks_of_groups
from weft.parallel.pipeline.unlike import unlike_pipelines
from weft.parallel.plan import Level
from weft.parallel.planning import plan
from weft.parallel.request import PlanRequest
from weft.program.annotation import Wish

PROGRAM = mlp(num_layers=16, batch=256, width=1024, slots=("m",))


def quiet(_: str) -> None:
    """Tell nobody."""


def search(machine, program=PROGRAM, most_s=inf, **wishes) -> UnlikeSearch:
    request = PlanRequest(program=program, machine=machine, **wishes)
    return UnlikeSearch(request, None, quiet, most_s)


@cache
def of_four() -> list[PipelinePlan]:
    return search(devices(4)).plans()


def with_memory(machine, of_each: list[float]):
    """A machine whose groups of nodes have so much memory on each device [bytes]."""
    groups = tuple(
        replace(
            group,
            device=replace(
                group.device, memory_bytes=replace(group.device.memory_bytes, value=memory)
            ),
        )
        for group, memory in zip(machine.groups, of_each, strict=True)
    )
    return replace(machine, groups=groups)


def test_groups_fill_nodes_or_share_them_and_use_all_devices() -> None:
    found = list(lots(MIXED, 16))
    assert len(found) == len(set(found)) > 30
    for way in found:
        assert sum(lot.size * lot.count for lot in way) == MIXED.num_devices
        assert [lot.first_rank for lot in way] == [
            sum(lot.size * lot.count for lot in way[:at]) for at in range(len(way))
        ]
    assert (Lot(0, 2, 2), Lot(4, 2, 4), Lot(12, 4, 1)) in found
    assert all(lot.size != 3 for way in found for lot in way)


def test_a_machine_of_one_kind_is_no_way_to_cut_unlike_devices() -> None:
    assert list(lots(preset("dgx-h100x1"), 8)) == []


def test_it_is_no_slower_than_a_stage_for_each_kind() -> None:
    over = []
    for machine, plans in ((MIXED, search(MIXED).plans()), (devices(4), of_four())):
        experts = unlike_pipelines(PlanRequest(program=PROGRAM, machine=machine))
        assert plans[0].fits
        over.append(experts[0].prediction.step_s / plans[0].prediction.step_s)
    assert min(over) >= 0.999
    # Each device may be a group of its own, and groups take any turn.
    assert over[-1] > 1.5


def test_plans_are_sorted_and_survive_a_file() -> None:
    steps = [one.prediction.step_s for one in of_four()]
    assert steps == sorted(steps)
    best = of_four()[0]
    assert pipeline_from_json(pipeline_to_json(best)) == best


@pytest.mark.parametrize("share", [0.25, 0.12])
def test_groups_with_little_memory_do_what_fits(share: float) -> None:
    program = mlp(12, batch=64, width=512, hidden=lambda _: 2048, slots=("m",))
    state = 12 * 2 * 512 * 2048 * 4 * 3.0
    limits = [state, share * state]
    best = search(with_memory(devices(4), limits), program).plans()[0]
    assert best.fits
    of_rank = [limits[0]] * 2 + [limits[1]] * 2
    ranks = ranks_of_groups(best.group_devices, best.standing)
    peaks = best.prediction.group_peak_bytes
    for own, peak in zip(ranks, peaks, strict=True):
        assert peak <= min(of_rank[rank] for rank in own)
    # Without the limit the slower devices would hold more than that.
    roomy = search(devices(4), program).plans()[0]
    assert roomy.prediction.step_s <= best.prediction.step_s
    if share < 0.2:
        of_others = zip(
            ranks_of_groups(roomy.group_devices, roomy.standing),
            roomy.prediction.group_peak_bytes,
            strict=True,
        )
        assert max(peak for own, peak in of_others if own.stop > 2) > limits[1]


def test_stages_are_where_pins_want_them() -> None:
    pins = (Pin("layers.5", Wish(stage=1)),)
    best = search(devices(4), pins=pins).plans()[0]
    staged = StagedProgram(PROGRAM, best.micro_batches, best.cut)
    pinned = search(devices(4), pins=pins)
    rows = pinned._sketch.rows(best.micro_batches)
    require_pipeline_kept(best.plans, staged, rows.pinning)


def test_pins_that_no_pipeline_keeps_are_named() -> None:
    pins = (Pin("layers.5", Wish(stage=0)), Pin("layers.4", Wish(stage=1)))
    found = search(devices(4), pins=pins)
    assert found.plans() == []
    assert found.broken is not None
    with pytest.raises(InfeasibleError, match="layers"):
        plan(PROGRAM, devices(4), pins=list(pins))


def test_without_time_it_says_what_was_left_out() -> None:
    found = search(devices(4), time_limit_s=0.0)
    assert found.plans() == []
    assert any("time limit" in note for note in found.notes)
    assert len(set(found.notes)) == len(found.notes)


def test_nothing_is_worked_out_that_cannot_be_faster() -> None:
    found = search(devices(4), most_s=1e-9)
    assert found.plans() == []
    assert not found._found


def test_memory_is_not_taken_for_pins_that_cannot_be_kept() -> None:
    pins = (Pin("layers.5", Wish(stage=2)),)
    found = search(devices(4), pins=pins, memory_limit_bytes=1e5)
    assert not any(one.fits for one in found.plans())
    assert found.broken is None  # four groups could keep them
    kept = search(devices(4), pins=pins).plans()[0]
    assert len(kept.group_devices) >= 3


def test_counts_of_its_own_where_the_usual_ones_do_not_divide() -> None:
    machine = of_two_nodes(3, 3)
    program = mlp(num_layers=8, batch=96, width=1024, slots=("m",))
    sizes = {way.sizes for way, _ in search(machine, program)._ways()}
    assert (3, 3) in sizes


def test_the_planner_returns_the_faster_of_both_searches() -> None:
    program = mlp(num_layers=12, batch=64, width=2048, slots=("m",))
    found = plan(program, devices(4), planner="exact")
    own = search(devices(4), program).plans()
    assert found.prediction.step_s <= own[0].prediction.step_s


def test_looking_harder_is_no_slower() -> None:
    best = search(devices(4), level=Level.BEST).plans()[0]
    assert best.prediction.step_s <= of_four()[0].prediction.step_s * 1.001
