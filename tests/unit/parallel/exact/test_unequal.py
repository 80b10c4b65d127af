"""Pipelines whose groups differ: when they are looked for, what they take, what they compute."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tests.pipelines import run_pipeline
from tests.programs import mlp, random_inputs, transformer
from tests.searched import MACHINE, searched_unequal
from weft.machine.presets import preset
from weft.parallel.exact.pipelines.configs import Config
from weft.parallel.exact.pipelines.found import Found
from weft.parallel.exact.pipelines.search import PipelineSearch
from weft.parallel.exact.pipelines.unequal import first_ranks, grids, imbalance
from weft.parallel.pipeline.estimate import Load, transfer_s
from weft.parallel.pipeline.plan import PipelinePlan, PipelinePrediction, StagedProgram
from weft.parallel.pipeline.serialize import pipeline_from_json, pipeline_to_json
from weft.parallel.plan import Level
from weft.parallel.request import PlanRequest
from weft.program.evaluate.run import evaluate
from weft.program.types import DType

THREE = replace(MACHINE, groups=(replace(MACHINE.groups[0], devices_per_node=3),))


@cache
def uneven():
    """Two layers, the first with three times the work."""
    hidden = (12_288, 4096)
    return mlp(2, batch=65_536, width=2048, hidden=hidden.__getitem__, slots=("m",))


@cache
def search_of(level: Level = Level.BEST) -> PipelineSearch:
    search = PipelineSearch(PlanRequest(program=uneven(), machine=THREE, level=level), None)
    search.run()
    return search


def best_of(found: list[Found]) -> Found:
    return min(found, key=lambda one: one.rank)


def test_unequal_groups_are_found_where_work_does_not_divide() -> None:
    search = search_of()
    found = best_of(search.unequal())
    assert sum(config.mesh.num_devices for config, _ in found.own) == 3
    assert len({config.mesh for config, _ in found.own}) == 2
    equal = best_of(search.found)
    assert found.prediction.step_s < equal.prediction.step_s
    plan, other = search.built(found), search.built(equal)
    assert plan is not None
    assert other is not None
    assert plan.prediction.bound_s < plan.prediction.step_s < other.prediction.step_s
    assert plan.prediction.step_s == pytest.approx(found.prediction.step_s, rel=0.05)
    assert sorted(plan.group_devices) == [1, 2]
    assert pipeline_from_json(pipeline_to_json(plan)) == plan


def test_the_best_of_all_is_what_the_search_builds_and_names() -> None:
    search = PipelineSearch(PlanRequest(program=uneven(), machine=THREE, level=Level.BEST), None)
    plan = search.best_after_all()
    assert plan is not None
    assert sorted(plan.group_devices) == [1, 2]
    names = [other.name for other in search.alternatives()]
    assert any(name.startswith("1 group of 3") for name in names)
    assert len(set(names)) == len(names)


def test_groups_that_have_the_same_to_do_are_left_as_they_are() -> None:
    program = mlp(8, batch=65_536, width=1024, hidden=lambda _: 4096, slots=("m",))
    search = PipelineSearch(PlanRequest(program=program, machine=MACHINE, level=Level.BEST), None)
    even = best_of(search.worked_out(Config(4, 2, 1, 8, 4096)))
    assert imbalance(even) < imbalance(replace(even, prediction=skewed(even))) < 1.0
    assert imbalance(replace(even, config=replace(even.config, groups=1))) == 1.0


def skewed(found: Found) -> PipelinePrediction:
    """Stages of which the first does what the last does as well."""
    first, *middle, last = found.prediction.stages
    longer = replace(first, forward_s=first.forward_s + last.busy_s)
    none = replace(last, forward_s=0.0, inputs_s=0.0, weights_s=0.0)
    return replace(found.prediction, stages=(longer, *middle, none))


def test_level_fast_does_not_look_for_them() -> None:
    assert search_of(Level.FAST).unequal() == []


@pytest.mark.parametrize("shapes", [[(1, 2), (1, 1)], [(1, 1), (2, 1)], [(2, 1), (1, 4), (1, 1)]])
def test_unequal_groups_compute_what_one_device_does(shapes: list[tuple[int, int]]) -> None:
    program = transformer(
        3, batch=8, width=16, num_heads=4, vocabulary=16, dtype=DType.F64, slots=("m",)
    )
    plan = searched_unequal(program, shapes, 2)
    assert plan.group_devices == tuple(data * inner for data, inner in shapes)
    inputs = random_inputs(program)
    loss, updates = evaluate(program, inputs)
    piped, piped_updates = run_pipeline(program, plan, inputs)
    assert piped == pytest.approx(loss, rel=1e-12)
    for name, array in updates.items():
        np.testing.assert_allclose(piped_updates[name], array, rtol=1e-9, atol=1e-11)


def test_grids_divide_the_batch_and_lie_within_nodes_or_fill_them() -> None:
    machine = preset("dgx-h100x3")
    found = grids(machine, 48, 4)
    assert {config.mesh.num_devices % 2 for config in found} == {0}
    for config in found:
        size = config.mesh.num_devices
        assert config.rows * config.data * config.micro_batches == 48
        assert size <= 8 or size % 8 == 0
        assert 8 % config.inner == 0 or size <= 8


def test_groups_begin_where_they_cross_no_node_that_they_do_not_fill() -> None:
    machine = preset("dgx-h100x3")
    assert first_ranks(machine, 16) == {0, 8}
    assert first_ranks(machine, 8) == {0, 8, 16}
    assert first_ranks(machine, 6) == {0, 1, 2, 8, 9, 10, 16, 17, 18}


def test_transfers_take_what_the_busiest_device_sends_or_takes_up() -> None:
    link = MACHINE.network
    load = Load(2, 1e6)

    def expected(messages: int, num_bytes: float) -> float:
        return messages * link.latency_s.value + num_bytes / link.bytes_per_s.value

    assert transfer_s(load, 2, 2, link) == pytest.approx(expected(2, 1e6))
    assert transfer_s(load, 1, 3, link) == pytest.approx(expected(6, 3e6))
    assert transfer_s(load, 3, 1, link) == pytest.approx(expected(6, 1e6))
    assert transfer_s(load, 2, 3, link) == pytest.approx(expected(4, 1.5e6))


def test_parts_of_what_was_built_are_checked_against_the_rules() -> None:
    plan = searched_unequal(uneven(), [(1, 2), (1, 1)], 8)
    assert isinstance(plan, PipelinePlan)
    staged = StagedProgram(uneven(), plan.micro_batches, plan.cut)
    for number, own in enumerate(plan.plans):
        assert staged.segments(number, own).local.mesh == own.mesh
