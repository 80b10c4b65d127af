"""The search over pipelines keeps pins, or says which it cannot keep."""

from __future__ import annotations

import pytest

from tests.programs import random_inputs, transformer
from tests.stages import run_stages
from weft.core.errors import InfeasibleError
from weft.machine.presets import preset
from weft.parallel.depth import undivided
from weft.parallel.exact.pipelines.configs import Config
from weft.parallel.exact.pipelines.search import PipelineSearch
from weft.parallel.kept import kept_shardings
from weft.parallel.pinning import resolve
from weft.parallel.pins import parse_pin
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.kept import require_pipeline_kept
from weft.parallel.pipeline.pinned import own_pins
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.planning import plan
from weft.parallel.request import PlanRequest
from weft.program.annotation import Wish
from weft.program.evaluate import evaluate
from weft.program.types import DType

MACHINE = preset("dgx-h100x1")
PROGRAM = transformer(
    num_layers=4, batch=16, length=8, width=32, num_heads=4, vocabulary=32, dtype=DType.F64,
    slots=("m",),
)  # fmt: skip
GRID = Config(groups=2, data=2, inner=2, micro_batches=4, rows=2)


def searched(*texts: str, config: Config = GRID) -> tuple[PipelinePlan, StagedProgram]:
    """The fastest pinned pipeline of one configuration, checked against its pins."""
    pins = tuple(map(parse_pin, texts))
    search = PipelineSearch(PlanRequest(program=PROGRAM, machine=MACHINE, pins=pins), None)
    found = search.built(min(search.worked_out(config), key=lambda f: f.rank))
    assert found is not None
    staged = StagedProgram(PROGRAM, found.micro_batches, found.cut)
    require_pipeline_kept(found.plans, staged, resolve(staged.part, pins))
    for number, own in enumerate(found.plans):
        assert staged.segments(number, own).local.mesh == own.mesh
    return found, staged


def stages_of(staged: StagedProgram, scope: str) -> set[int]:
    """Stages in which a module computes."""
    return {
        stage.number
        for stage in staged.stages
        for node in stage.program.nodes
        if node.scope.startswith(scope) and node.op not in ("input", "send")
    }


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_pinned_layer_is_the_first_of_its_stage(layer: int) -> None:
    _, staged = searched(f"layers.{layer - 1}=stage 0", f"layers.{layer}=stage 1")
    assert stages_of(staged, f"layers.{layer - 1}.mlp") == {0}
    assert stages_of(staged, f"layers.{layer}.attention") == {1}


def test_a_layer_falls_apart_where_pins_ask_for_it() -> None:
    _, staged = searched("layers.2.norm1=stage 0", "layers.2.attention=stage 1")
    assert stages_of(staged, "layers.2.norm1") == {0}
    assert stages_of(staged, "layers.2.attention") == {1}


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("layers.3.mlp output=S(0)x2", Wish(split=0, ways=2)),
        ("layers.3.mlp output=S(1)x4", Wish(split=1, ways=4)),
        ("layers.3.mlp output=R", Wish(replicated=True)),
    ],
)
def test_outputs_lie_as_pinned_though_the_batch_is_cut_otherwise(text: str, wish: Wish) -> None:
    found, staged = searched(text, "layers.3=stage 1")
    own = own_pins(staged.stages[1], resolve(staged.part, [parse_pin(text)]))
    (value,) = own.values
    shape = staged.stages[1].program.type_of(value).shape
    kept = kept_shardings((wish,), found.plans[0].mesh, shape)
    made = found.plans[1].strategies[value.node].outputs[0]
    brought = {copy.target for copy in found.plans[1].copies if copy.value == value}
    assert made in kept or brought & set(kept)


def test_a_pinned_pipeline_computes_the_same() -> None:
    found, staged = searched("layers.1=stage 1", "layers.*.mlp output=R", "head.weight=S(0)x2")
    inputs = random_inputs(PROGRAM)
    loss, updates = evaluate(PROGRAM, inputs)
    piped, piped_updates = run_stages(staged.stages, found.micro_batches, inputs)
    assert piped == pytest.approx(loss, rel=1e-12)
    for name, array in updates.items():
        assert piped_updates[name] == pytest.approx(array, rel=1e-9, abs=1e-11)


def test_bounds_of_pieces_rise_and_hold_the_pinned_layers() -> None:
    pins = [parse_pin("layers.1=stage 1"), parse_pin("layers.3=stage 2")]
    rows = Rows(undivided(PROGRAM), 4, MACHINE, pins)
    lows, highs = zip(*rows.stage_bounds(4), strict=True)
    assert list(lows) == sorted(lows)
    assert list(highs) == sorted(highs)
    assert lows[0] == 0
    assert highs[-1] == 3
    assert {(1, 1), (2, 2)} <= set(rows.stage_bounds(4))


def test_a_pin_of_a_later_stage_makes_weft_plan_look_at_pipelines() -> None:
    pins = [parse_pin("layers.0=stage 0"), parse_pin("layers.1=stage 1")]
    found = plan(PROGRAM, MACHINE, pins=pins)
    assert isinstance(found, PipelinePlan)
    assert found.num_stages > 1
    assert "kept layers.1=stage 1" in " ".join(found.notes)
    staged = StagedProgram(PROGRAM, found.micro_batches, found.cut)
    assert stages_of(staged, "layers.1") == {1}


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("layers.1=stage 0", "layers.0=stage 1"), "from which a value would have to flow back"),
        (("layers.1=stage 99",), "an operator for each of 100 stages|100 stages, for"),
        (("layers.1=stage 1", "head.weight=S(0)x3"), r"head.weight=S\(0\)x3"),
    ],
)
def test_where_no_configuration_keeps_the_pins_they_are_named(
    texts: tuple[str, ...], words: str
) -> None:
    with pytest.raises(InfeasibleError, match=words):
        plan(PROGRAM, MACHINE, pins=[parse_pin(text) for text in texts])


def test_stages_are_refused_where_one_is_asked_for() -> None:
    with pytest.raises(InfeasibleError, match=r"a pipeline, for layers\.1=stage 1"):
        plan(PROGRAM, MACHINE, max_stages=1, pins=[parse_pin("layers.1=stage 1")])
