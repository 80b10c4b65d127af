"""Pipelines on unlike devices: every kind has a stage, and the faster one more layers."""

from __future__ import annotations

from functools import cache

import pytest

from tests.homed import MIXED, devices
from tests.programs import mlp
from weft.machine.presets import preset
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.unlike import unlike_pipelines
from weft.parallel.request import PlanRequest


def program():
    return mlp(num_layers=16, batch=512, width=1024, slots=("m",))


@cache
def of_mixed() -> list[PipelinePlan]:
    return unlike_pipelines(PlanRequest(program=program(), machine=MIXED))


def layers(plan) -> list[int]:
    staged = StagedProgram(program(), plan.micro_batches, plan.cut)
    scopes = [
        {n.scope for n in stage.program.nodes if "layers" in n.scope} for stage in staged.stages
    ]
    return [len(found) for found in scopes]


def test_the_faster_kind_has_more_layers() -> None:
    found = unlike_pipelines(PlanRequest(program=program(), machine=devices(4)))
    assert [p.prediction.step_s for p in found] == sorted(p.prediction.step_s for p in found)
    for plan in found:
        assert plan.group_devices == (2, 2)
        on_block = dict(zip(plan.standing, layers(plan), strict=True))
        assert on_block[0] > on_block[1] > 0


def test_kinds_are_cut_apart_in_all_ways() -> None:
    found = of_mixed()
    in_order = [plan for plan in found if plan.is_in_rank_order]
    assert {plan.group_devices for plan in in_order} == {(4, 8, 4), (4, 12), (12, 4)} - {
        sizes for sizes in ((4, 12), (12, 4)) if all(512 // count % 12 for count in (2, 4, 8, 16))
    }


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: PlanRequest(program=program(), machine=preset("dgx-h100x1")),
        lambda: PlanRequest(program=program(), machine=devices(4), max_stages=1),
    ],
)
def test_there_are_none_where_none_is_asked_for(request_of) -> None:
    assert unlike_pipelines(request_of()) == []


def test_each_kind_is_on_its_own_devices_in_every_order() -> None:
    found = of_mixed()
    assert len({plan.standing for plan in found}) == 6
    for plan in found:
        sizes = [MIXED.groups[block].num_devices for block in plan.standing]
        assert list(plan.group_devices) == sizes
