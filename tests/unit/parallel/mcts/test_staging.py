"""Tree search over pipelines: against trying everything, and against the plans it stands for."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from math import inf

import pytest

from tests.homed import MIXED, devices, of_two_nodes
from tests.programs import mlp, transformer
from weft.core.errors import InfeasibleError, InputError
from weft.machine.presets import preset
from weft.parallel.depth import views_of
from weft.parallel.mcts.pipelines import found_pipelines
from weft.parallel.mcts.planner import MctsPlanner
from weft.parallel.mcts.search import uniform
from weft.parallel.mcts.shapes import Expected, shapes, ways
from weft.parallel.mcts.staging import StageSearch
from weft.parallel.outcome import outcome_of
from weft.parallel.pinning import resolve
from weft.parallel.pins import Pin
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.insides import insides
from weft.parallel.pipeline.kept import require_pipeline_kept
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.serialize import pipeline_from_json, pipeline_to_json
from weft.parallel.pipeline.stage_sketch import KEPT, StageSketch
from weft.parallel.pipeline.staged import Shape, Staged
from weft.parallel.plan import Level
from weft.parallel.planning import plan
from weft.parallel.request import PlanRequest
from weft.parallel.validate import validate
from weft.program.annotation import Wish
from weft.program.builder import Builder
from weft.program.fold import fold
from weft.program.graph import Role
from weft.program.types import DType, TensorType

NODE = preset("dgx-h100x1")
HALF = replace(NODE, name="half", groups=(replace(NODE.groups[0], devices_per_node=4),))


@cache
def deep():
    return mlp(12, batch=64, width=512, hidden=lambda _: 2048, slots=("m",))


@cache
def attentive():
    return transformer(num_layers=4, batch=16, length=64, width=256, slots=("first",))


def sketch_of(program, machine, **wishes):
    request = PlanRequest(program=program, machine=machine, **wishes)
    return StageSketch(request, views_of(program, fold(program)))


def every(sketch, search):
    """All pipelines whose cuts are worth a try."""
    for shape in search.shapes:
        count = len(sketch.rows(shape.micro_batches).pieces.order)
        choices = [insides(sketch, shape, group) for group in range(len(shape.sizes))]
        for inside, (schedule, chunks) in product(product(*choices), ways(shape, count)):
            if len(set(inside)) == 1:
                for cuts in sketch.cuts(shape, inside, chunks):
                    yield Staged(
                        shape=shape, inside=inside, schedule=schedule, chunks=chunks, cuts=cuts
                    )


def test_a_search_that_runs_on_is_as_good_as_trying_everything() -> None:
    sketch = sketch_of(deep(), HALF)
    search = StageSearch(sketch, 2, inf)
    tried = [sketch.staging(staged) for staged in every(sketch, search)]
    assert len(tried) > 50
    search.run(10_000)
    best = search.best(1)[0]
    assert best.rank <= min(own.rank for own in tried)


@pytest.mark.parametrize("simulations", [0, 30])
def test_refining_makes_nothing_worse(simulations) -> None:
    search = StageSearch(sketch_of(deep(), HALF), 2, inf)
    search.run(6 + simulations)
    before = search.best(1)[0].rank
    search.refine(40)
    assert search.best(1)[0].rank <= before


@pytest.mark.parametrize(
    ("program", "machine"),
    [(deep, HALF), (attentive, HALF), (deep, devices(4)), (attentive, devices(4))],
    ids=["mlp", "transformer", "mlp on unlike devices", "transformer on unlike devices"],
)
def test_pieces_tell_what_plans_of_them_take(program, machine) -> None:
    sketch = sketch_of(program(), machine)
    search = StageSearch(sketch, 2, inf)
    search.run(40)
    search.refine(40)
    for staging in search.best(4):
        made = sketch.made(staging)
        assert staging.step_s == pytest.approx(made.prediction.step_s, rel=0.1)
        staged = StagedProgram(program(), made.micro_batches, made.cut)
        for stage, own in zip(staged.stages, made.plans, strict=True):
            validate(own, stage.program)
        assert pipeline_from_json(pipeline_to_json(made)) == made


def test_stages_recompute_as_little_as_fits() -> None:
    program = mlp(12, batch=16_384, width=256, hidden=lambda _: 1024)
    roomy = sketch_of(program, HALF)
    search = StageSearch(roomy, 2, inf)
    search.run(30)
    best = search.best(1)[0]
    assert set(best.again) == {KEPT}
    plan_of_all = roomy.made(best)
    limit = 0.85 * plan_of_all.prediction.peak_bytes
    tight = sketch_of(program, HALF, memory_limit_bytes=limit)
    tighter = tight.staging(best.staged)
    assert set(tighter.again) != {KEPT}
    made = tight.made(tighter)
    assert made.prediction.peak_bytes < plan_of_all.prediction.peak_bytes
    assert made.prediction.step_s > plan_of_all.prediction.step_s
    assert any(own.recompute for own in made.plans)


def test_nothing_is_said_to_fit_that_does_not() -> None:
    request = PlanRequest(program=deep(), machine=HALF, memory_limit_bytes=1e6)
    found, _ = found_pipelines(request, None, 2, inf, lambda: False)
    assert found and not any(own.fits for own in found)
    outcome = outcome_of(found, inf)
    assert outcome.plan is None
    assert outcome.tightest.startswith("pipelines need ")


def test_groups_of_unlike_devices_share_work_by_speed() -> None:
    machine = devices(4)
    request = PlanRequest(program=deep(), machine=machine)
    found, _ = found_pipelines(request, None, 2, inf, lambda: False)
    two = [own for own in found if own.num_groups == 2 and own.schedule != "interleaved"]
    for own in two:
        staged = StagedProgram(deep(), own.micro_batches, own.cut)
        layers = [
            len({n.scope for n in s.program.nodes if "layers" in n.scope}) for s in staged.stages
        ]
        on_block = dict(zip(own.standing, layers, strict=True))
        assert on_block[0] > on_block[1]
    assert found


def test_found_pipelines_are_no_slower_than_those_of_engineers() -> None:
    request = PlanRequest(program=attentive(), machine=HALF)
    best = found_pipelines(request, None, 2, inf, lambda: False)[0][0]
    for pp, count in ((2, 4), (2, 8), (4, 8)):
        own = pipeline_expert(
            attentive(), HALF, pp=pp, micro_batches=count, schedule="zero-bubble", dp=4 // pp
        )
        assert best.prediction.step_s <= own.prediction.step_s * (1 + 1e-9)


def test_shapes_use_all_devices_and_divide_the_batch() -> None:
    for machine in (NODE, MIXED, devices(6)):
        request = PlanRequest(program=deep(), machine=machine)
        found = shapes(request, 1)
        assert found
        for shape in found:
            assert sum(shape.sizes) == machine.num_devices
            assert 64 % shape.micro_batches == 0
            assert sorted(shape.standing) == list(range(len(shape.sizes)))
        assert all(len(shape.sizes) > 1 for shape in shapes(request, 2))


def test_more_micro_batches_are_expected_to_have_less_of_a_bubble() -> None:
    sketch = sketch_of(deep(), HALF)
    expected = Expected(sketch.request, sketch.rows(2), 2)
    seconds = [expected.seconds(Shape((2, 2), (0, 1), count)) for count in (2, 4, 8)]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] > seconds[-1]


def test_a_search_that_is_stopped_finds_nothing() -> None:
    request = PlanRequest(program=deep(), machine=HALF)
    assert found_pipelines(request, None, 2, inf, lambda: True) == ([], None)


@pytest.mark.parametrize("last", [1, 3])
def test_pinned_stages_are_kept_wherever_even_stages_would_be(last: int) -> None:
    pins = (Pin("layers.9", Wish(stage=0)), Pin("layers.11", Wish(stage=last)))
    request = PlanRequest(program=deep(), machine=HALF, pins=pins)
    found, broken = found_pipelines(request, None, 2, inf, lambda: False)
    assert found
    assert (broken is None) == (last == 1)  # two stages are too few for the other
    for own in found:
        staged = StagedProgram(deep(), own.micro_batches, own.cut)
        require_pipeline_kept(own.plans, staged, resolve(staged.part, pins))


def test_pins_that_no_pipeline_keeps_are_what_is_broken() -> None:
    pins = (Pin("layers.9", Wish(stage=1)), Pin("layers.2", Wish(stage=2)))
    request = PlanRequest(program=deep(), machine=HALF, pins=pins)
    found = MctsPlanner(prior=uniform).pipelines(request, None, lambda _: None, 1, inf)
    assert found.plan is None
    assert found.broken is not None
    assert found.broken.constraint == "pins"
    assert "layers.2=stage 2" in str(found.broken)  # the order, not that one stage is too few


def test_the_planner_returns_a_pipeline_where_that_is_fastest() -> None:
    program = mlp(12, batch=8192, width=512, hidden=lambda _: 2048, slots=("m",))
    slow = replace(HALF.network, bytes_per_s=replace(HALF.network.bytes_per_s, value=5e9))
    groups = (replace(HALF.groups[0], devices_per_node=1, num_nodes=4),)
    machine = replace(HALF, name="slow network", network=slow, groups=groups)
    planner = MctsPlanner(prior=uniform, simulations=(20, 20))
    found = plan(program, machine, planner=planner, level=Level.FAST)
    assert isinstance(found, PipelinePlan)
    again = plan(program, machine, planner=planner, level=Level.FAST)
    assert replace(again, search_s=0.0) == replace(found, search_s=0.0)


def test_a_search_cut_short_is_told() -> None:
    planner = MctsPlanner(prior=uniform)
    request = PlanRequest(program=mlp(4, batch=8, width=64), machine=HALF)
    late = planner.pipelines(replace(request, time_limit_s=0.0), None, lambda _: None, 2, inf)
    assert "was stopped" in late.notes[0]
    asked = iter(range(10**6))
    halfway = MctsPlanner(prior=uniform, stop=lambda: next(asked) >= 12)
    found = halfway.pipelines(request, None, lambda _: None, 2, inf)
    assert found.plan is not None
    assert "was stopped" in found.notes[0]
    assert not planner.pipelines(request, None, lambda _: None, 2, inf).notes


def test_fewer_than_no_simulations_are_refused() -> None:
    with pytest.raises(InputError, match="-1 and 5"):
        MctsPlanner(simulations=(-1, 5))


@pytest.mark.parametrize("machine", [HALF, MIXED], ids=["alike", "unlike"])
def test_a_step_without_parameters_is_planned(machine) -> None:
    builder = Builder("no parameters")
    x = builder.input("batch.x", Role.BATCH, TensorType(DType.F32, (8, 2)))
    program = builder.build(builder.add("sum", x, (0, 1)))
    planner = MctsPlanner(prior=uniform, simulations=(5, 5))
    found = plan(program, machine, planner=planner, level=Level.BEST)
    assert not isinstance(found, PipelinePlan)
    validate(found, program)


def test_a_mesh_that_nobody_can_plan_on_is_named() -> None:
    odd = mlp(2, batch=3, width=9, hidden=lambda _: 15)
    with pytest.raises(InfeasibleError, match="a plan on 4 devices") as error:
        plan(odd, HALF, planner=MctsPlanner(prior=uniform), mesh=(4,))
    assert error.value.constraint == "sizes"


def test_a_group_that_is_better_off_elsewhere_in_the_line_is_moved_there() -> None:
    first, second, _ = MIXED.groups
    machine = replace(
        MIXED,
        name="slow first",
        groups=(replace(second, num_nodes=2), replace(first, devices_per_node=2)),
    )
    own = sketch_of(deep(), machine)
    search = StageSearch(own, 3, inf)
    search.run(20)
    in_order = search.best(1)[0]
    search.refine(400)
    best = search.best(1)[0]
    assert best.step_s < in_order.step_s
    shape = best.staged.shape
    assert sorted(shape.standing) == list(range(len(shape.sizes)))
    assert shape.standing != tuple(range(len(shape.sizes)))
    # No group of another kind has a better place than its own.
    for moved in search._moved(best.staged):
        assert sorted(moved.shape.standing) == sorted(shape.standing)
        assert own.staging(moved).rank >= best.rank


def test_kinds_are_cut_into_groups_where_whole_ones_divide_nothing() -> None:
    machine = of_two_nodes(3, 5)
    found, _ = found_pipelines(
        PlanRequest(program=deep(), machine=machine), None, 2, inf, lambda: False
    )
    assert found and found[0].fits
