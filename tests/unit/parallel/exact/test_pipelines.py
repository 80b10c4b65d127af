"""The search over pipelines: what it tries, what its pieces tell, what it builds."""

from __future__ import annotations

from functools import cache

import pytest

from benchmarks.job import program_of
from tests.programs import mlp, transformer
from tests.searched import MACHINE, searched
from weft.core.errors import InfeasibleError
from weft.machine.presets import preset
from weft.parallel.depth import undivided, views_of
from weft.parallel.exact.pipelines.configs import Config, configs
from weft.parallel.exact.pipelines.decide import Desk, degrees_of
from weft.parallel.exact.pipelines.evaluate import predicted, schedules, stagings
from weft.parallel.exact.pipelines.found import Placing
from weft.parallel.exact.pipelines.measure import batch_rules
from weft.parallel.exact.pipelines.search import PipelineSearch
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.pipeline.piece_costs import piece_costs
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.serialize import pipeline_from_json, pipeline_to_json
from weft.parallel.placement import is_partial
from weft.parallel.plan import Level
from weft.parallel.planning import plan
from weft.parallel.recompute import RECOMPUTATIONS
from weft.parallel.request import PlanRequest
from weft.parallel.rows import batch_rows
from weft.program.builder import Builder
from weft.program.fold import fold
from weft.program.graph import Role
from weft.program.types import DType, TensorType


@cache
def deep():
    return mlp(16, batch=65_536, width=1024, hidden=lambda _: 4096, slots=("m",))


def test_configurations_use_all_devices_and_divide_the_batch() -> None:
    for config in configs(MACHINE, rows=48, most_groups=6, most_rows=4):
        assert config.groups * config.data * config.inner == MACHINE.num_devices
        assert config.micro_batches * config.data * config.rows == 48
        assert config.mesh.num_devices * config.groups == MACHINE.num_devices


def test_rows_of_a_batch_are_what_all_its_entries_divide_into() -> None:
    assert batch_rows(deep()) == 65_536


def test_a_short_program_has_the_pieces_of_the_whole_one() -> None:
    views = views_of(deep(), fold(deep()))
    assert views is not None
    short = Rows(views.short, 8, MACHINE)
    whole = short.whole.program
    assert whole == in_micro_batches(deep(), 8)
    assert len(short.pieces.order) == short.whole_cut.num_stages > 16
    scopes = {whole.nodes[start].scope for start, _ in short.whole_cut.runs}
    assert {f"layers.{number}" for number in range(1, 16)} <= scopes


def test_what_pieces_tell_of_a_step_is_what_the_whole_pipeline_takes() -> None:
    config = Config(4, 1, 2, 8, 8192)
    for schedule in ("1f1b", "zero-bubble"):
        found = searched(deep(), config, schedule)
        search = PipelineSearch(
            PlanRequest(program=deep(), machine=MACHINE, level=Level.BEST), None
        )
        from_pieces = search.worked_out(config, schedule)
        best = min(f.prediction.step_s for f in from_pieces)
        assert found.prediction.step_s == pytest.approx(best, rel=0.05)
        assert found.schedule == schedule


def test_many_micro_batches_follow_from_few() -> None:
    config = Config(2, 1, 4, 64, 1024)
    rows = Rows(undivided(deep()), 64, MACHINE)
    slicer = Desk(rows, config, 8e10, Level.FAST).slicer(Placing())
    costs = [piece_costs(rows, slicer.plan, again, rows.machine) for again in RECOMPUTATIONS]
    ways = schedules(config, len(costs[0]), Level.BEST)
    for staging in stagings(costs, config, 8e10, ways, MACHINE):
        whole = predicted(costs, config, staging, MACHINE)
        less = Config(2, 1, 4, 16, 1024)
        assert predicted(costs, less, staging, MACHINE).step_s < whole.step_s / 3
        assert 0 <= whole.bubble < 0.2


def test_the_classical_schemes_are_among_what_is_tried() -> None:
    rows = Rows(undivided(transformer()), 2, MACHINE)
    names = {degrees.name for degrees in degrees_of(Config(2, 2, 2, 2, 1), rows.schemes)}
    assert {"ZeRO-1 2 x TP 2", "FSDP 2 x TP 2 + SP"} <= names


def test_a_search_is_no_slower_than_the_same_pipeline_by_hand() -> None:
    hand = pipeline_expert(deep(), MACHINE, pp=4, micro_batches=8, dp=2, zero=1)
    search = PipelineSearch(
        PlanRequest(program=deep(), machine=MACHINE, level=Level.BEST),
        views_of(deep(), fold(deep())),
    )
    found = search.worked_out(Config(4, 2, 1, 8, 4096))
    best = search.built(min(found, key=lambda f: f.rank))
    assert best is not None
    assert best.prediction.step_s <= hand.prediction.step_s * 1.001


def test_pipelines_are_found_where_nothing_else_fits_and_survive_their_file() -> None:
    found = plan(deep(), MACHINE, level="best", memory_limit_bytes=0.55e9)
    assert isinstance(found, PipelinePlan)
    assert found.prediction.peak_bytes <= 0.55e9
    assert found.prediction.bound_s <= found.prediction.step_s
    assert found.alternatives
    assert found.level is Level.BEST
    assert pipeline_from_json(pipeline_to_json(found)) == found
    staged = StagedProgram(deep(), found.micro_batches, found.cut)
    for number, stage in enumerate(found.plans):
        assert staged.segments(number, stage).parts


def test_what_fits_nowhere_names_the_tightest_stage() -> None:
    with pytest.raises(InfeasibleError, match="tightest stage is number"):
        plan(deep(), MACHINE, memory_limit_bytes=5e6)


def test_a_batch_that_mixes_samples_has_no_pipelines() -> None:
    b = Builder("row by row")
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (8, 3)))
    rows = b.input("rows", Role.PARAMETER, TensorType(DType.F32, (8, 3)))
    program = b.build(b.add("sum", b.add("mul.Tensor", x, rows), (0, 1)))
    search = PipelineSearch(PlanRequest(program=program, machine=MACHINE), None)
    assert search.ranked() == []
    assert "no pipelines" in search.notes[0]


def test_operators_of_other_stages_are_not_run_again() -> None:
    found = searched(deep(), Config(4, 1, 2, 8, 8192), "1f1b")
    assert all(not stage.recompute for stage in found.plans)  # there is room for all


@pytest.mark.parametrize("schedule", ["1f1b", "zero-bubble", "interleaved"])
def test_no_step_is_shorter_than_its_bound(schedule: str) -> None:
    for groups, data, inner in ((2, 1, 4), (4, 2, 1), (2, 2, 2)):
        rows = 65_536 // (8 * data)
        found = searched(deep(), Config(groups, data, inner, 8, rows), schedule)
        assert 0 < found.prediction.bound_s < found.prediction.step_s


def test_pieces_are_joined_where_the_backward_pass_cannot_be_cut() -> None:
    rows = Rows(undivided(transformer(num_layers=3)), 2, MACHINE)
    assert max(rows.piece_of_nodes) == rows.pieces.cut.num_stages - 1
    assert len(rows.stages) == len(rows.pieces.order)


def test_groups_fill_nodes_or_share_them_evenly() -> None:
    for config in configs(preset("dgx-h100x3"), rows=96, most_groups=24, most_rows=4):
        size = config.mesh.num_devices
        assert size % 8 == 0 or 8 % size == 0


def test_a_time_limit_of_nothing_looks_at_no_pipeline() -> None:
    request = PlanRequest(program=deep(), machine=MACHINE, time_limit_s=0.0)
    search = PipelineSearch(request, None)
    assert search.best_after_all() is None
    assert "time limit" in search.notes[0]


def test_a_search_that_is_out_of_time_ends_with_configurations_left() -> None:
    search = PipelineSearch(PlanRequest(program=deep(), machine=MACHINE), None)
    search.run()  # works out what it takes and leaves the rest
    search.found.clear()
    search._deadline_s = 0.0
    assert search.best_after_all() is None
    assert search._left


def test_what_layers_hand_on_beside_their_output_has_a_placement_on_two_axes() -> None:
    # Each layer's load is a sum over the batch; the sum of all of them runs through all pieces.
    rows = Rows(undivided(program_of("mixtral.py:mixtral_tiny")), 2, MACHINE)
    rules = batch_rules(rows.part, 2, rows.crossing)
    for number, rule in rules.items():
        reads = zip(rows.part.operands(number), rule.operands, strict=True)
        for value in (value for value, place in reads if is_partial(place)):
            assert value.node in rules
            assert value not in rows.crossing
    desk = Desk(rows, Config(2, 2, 2, 2, 2), 8e10, Level.FAST)
    assert desk.solution(Placing()).objective_s > 0
