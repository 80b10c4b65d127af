"""Cuts of the forward pass on its graph: what is one, and that stages of any compute the same."""

from __future__ import annotations

import random

import pytest

from tests.pipelines import run_pipeline
from tests.programs import mixture, random_inputs, towers
from tests.stages import run_stages
from weft.core.errors import InputError, VerifyError
from weft.machine.presets import preset
from weft.parallel.experts import expert_plan
from weft.parallel.explaining import explain
from weft.parallel.pipeline.cut import Cut
from weft.parallel.pipeline.expert import pipeline_of_stages
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.stages import forward_nodes
from weft.program.evaluate import evaluate
from weft.program.graph import Program
from weft.program.types import DType

TOWERS = towers(num_layers=3, batch=8, dtype=DType.F64, slots=("m",))
SHARED = towers(num_layers=4, batch=8, dtype=DType.F64, shared=True)
MIXTURE = mixture(batch=8, dtype=DType.F64)
MACHINE = preset("dgx-h100x1")


def by_scope(program: Program, count: int, **stages: int) -> Cut:
    """The cut that gives modules these stages."""
    part = in_micro_batches(program, count)
    return Cut.of(
        {n: stages.get(part.nodes[n].scope.split(".")[0], 1) for n in forward_nodes(part)}
    )


def any_cut(program: Program, count: int, num_stages: int, seed: int) -> Cut:
    """A cut along no order: each node in a stage that may be far from its neighbours'."""
    part, generator = in_micro_batches(program, count), random.Random(seed)
    nodes = forward_nodes(part)
    stages: dict[int, int] = {}
    for number in nodes:
        before = [stages[v.node] for v in part.operands(number) if v.node in stages]
        step = generator.random() < 2.0 * num_stages / len(nodes)
        stages[number] = min(max(before, default=0) + step, num_stages - 1)
    used = sorted(set(stages.values()))
    return Cut.of({number: used.index(stage) for number, stage in stages.items()})


def require_same(program: Program, cut: Cut, count: int) -> None:
    inputs = random_inputs(program)
    loss, updates = evaluate(program, inputs)
    staged = StagedProgram(program, count, cut)
    piped, piped_updates = run_stages(staged.stages, count, inputs)
    assert piped == pytest.approx(loss, rel=1e-12)
    assert piped_updates.keys() == updates.keys()
    for name, array in updates.items():
        assert piped_updates[name] == pytest.approx(array, rel=1e-9, abs=1e-11)


@pytest.mark.parametrize(("left", "right"), [(0, 1), (1, 0)])
@pytest.mark.parametrize("program", [TOWERS, SHARED])
def test_a_tower_in_each_stage_computes_the_same(program: Program, left: int, right: int) -> None:
    cut = by_scope(program, 4, left=left, right=right)
    assert len(cut.runs) > 4
    require_same(program, cut, 4)


@pytest.mark.parametrize("program", [TOWERS, MIXTURE])
@pytest.mark.parametrize("seed", range(12))
def test_any_cut_that_never_flows_back_computes_the_same(program: Program, seed: int) -> None:
    require_same(program, any_cut(program, 2, 2 + seed % 3, seed), 2)


def test_a_tower_hands_over_its_result_alone() -> None:
    staged = StagedProgram(TOWERS, 4, by_scope(TOWERS, 4, left=0, right=1))
    assert [len(stage.sends) for stage in staged.stages] == [1, 1]


def test_a_shared_weight_lives_in_the_first_stage_that_reads_it() -> None:
    staged = StagedProgram(SHARED, 4, by_scope(SHARED, 4, left=0, right=1))
    homes = [{source.name for source in stage.program.inputs} for stage in staged.stages]
    assert {"left.1.up", "left.3.down"} <= homes[0]
    assert not {"left.1.up", "left.3.down"} & homes[1]
    assert all(parcel.source == 0 for parcel in staged.stages[0].sends if parcel.once)


def test_a_value_that_flows_back_is_named() -> None:
    part = in_micro_batches(TOWERS, 4)
    backwards = {n: int(part.nodes[n].scope.startswith("left")) for n in forward_nodes(part)}
    with pytest.raises(VerifyError, match="flow forward only") as caught:
        _ = StagedProgram(TOWERS, 4, Cut.of(backwards)).stages
    assert "in head" in caught.value.got
    assert "what stage 1 makes" in caught.value.got


def test_a_stage_without_operators_of_its_own_is_refused() -> None:
    first = forward_nodes(in_micro_batches(TOWERS, 4))[0]
    assert first > 2
    with pytest.raises(VerifyError, match="3 stages that all compute something"):
        _ = StagedProgram(TOWERS, 4, Cut.at((1, first + 3))).stages


@pytest.mark.parametrize(
    "runs",
    [
        (),
        ((1, 0),),
        ((0, 0), (4, 0)),
        ((0, 0), (4, 2)),
        ((0, 0), (4, 1), (4, 0)),
        ((0, 1),),
        ((0, -1), (4, 0)),
    ],
)
def test_runs_have_to_rise_and_to_name_every_stage(runs: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(InputError, match="a run for each stage"):
        Cut(runs)


def test_a_cut_says_where_each_node_is() -> None:
    cut = Cut(((0, 0), (3, 1), (5, 0), (8, 2)))
    assert [cut.stage_at(number) for number in range(10)] == [0, 0, 0, 1, 1, 0, 0, 0, 2, 2]
    assert [cut.num_runs(stage) for stage in range(3)] == [2, 1, 1]
    assert cut.joined((2,)) == Cut.at((8,))
    assert cut.joined((1, 2)) == cut


def written(cut: Cut) -> PipelinePlan:
    return pipeline_of_stages(
        TOWERS,
        MACHINE,
        cut=cut,
        num_groups=2,
        micro_batches=4,
        schedule="1f1b",
        written=lambda stage: expert_plan(stage.program, MACHINE, dp=2),
    )


def test_ranks_of_stages_cut_by_branches_compute_the_same_and_say_so() -> None:
    found = written(by_scope(TOWERS, 4, left=0, right=1))
    inputs = random_inputs(TOWERS)
    loss, updates = evaluate(TOWERS, inputs)
    piped, piped_updates = run_pipeline(TOWERS, found, inputs)
    assert piped == pytest.approx(loss, rel=1e-12)
    for name, array in updates.items():
        assert piped_updates[name] == pytest.approx(array, rel=1e-9, abs=1e-11)
    text = explain(found, TOWERS, MACHINE)
    assert "0: left.0 to left.2 in 3 runs beside other stages" in text
    assert "1: right.0 to loss in 3 runs beside other stages" in text


def test_stages_by_branches_send_less_than_stages_in_the_order_of_execution() -> None:
    part = in_micro_batches(TOWERS, 4)
    middle = next(n for n in forward_nodes(part) if part.nodes[n].scope == "right.1")
    in_order = written(Cut.at((middle,))).prediction.stages[0].send_forward_s
    by_branch = written(by_scope(TOWERS, 4, left=0, right=1)).prediction.stages[0].send_forward_s
    assert 0 < by_branch < in_order
