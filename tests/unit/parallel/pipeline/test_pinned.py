"""Pipelines whose modules are pinned to stages."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.programs import mlp, random_inputs, towers, transformer
from tests.stages import run_stages
from weft.core.errors import InfeasibleError, VerifyError
from weft.machine.presets import preset
from weft.parallel.kept import kept_shardings
from weft.parallel.pinning import resolve
from weft.parallel.pins import parse_pin
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.pipeline.pinned import (
    allowed_cuts,
    best_cuts,
    forward_nodes,
    own_pins,
    require_stages,
    stage_bounds,
)
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.program.annotation import Annotation, Wish
from weft.program.evaluate import evaluate
from weft.program.graph import Phase, Program
from weft.program.types import DType

MACHINE = preset("dgx-h100x1")
PROGRAM = transformer(
    num_layers=4, batch=8, length=8, width=16, num_heads=4, vocabulary=16, dtype=DType.F64,
    slots=("m",), dropout=0.25,
)  # fmt: skip


def written(*texts: str, program: Program = PROGRAM, **more: object) -> PipelinePlan:
    degrees = {"pp": 2, "micro_batches": 4, **more}
    return pipeline_expert(program, MACHINE, pins=[parse_pin(t) for t in texts], **degrees)


def stages_of(found: PipelinePlan, program: Program = PROGRAM) -> dict[str, set[int]]:
    """Stages in which nodes of each scope are, those that belong to one stage."""
    staged = StagedProgram(program, found.micro_batches, found.cut)
    settled = set(forward_nodes(staged.part))
    where: dict[str, set[int]] = {}
    for stage in staged.stages:
        for number, origin in enumerate(stage.origin):
            node = stage.program.nodes[number]
            own = origin is not None and origin.node in settled
            if own and node.phase is Phase.FORWARD and node.op not in ("input", "send"):
                where.setdefault(node.scope, set()).add(stage.number)
    return where


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_a_layer_is_the_first_of_its_stage(layer: int) -> None:
    found = written(f"layers.{layer}=stage 1", *([f"layers.{layer - 1}=stage 0"] if layer else []))
    where = stages_of(found)
    assert where[f"layers.{layer}.attention"] == {1}
    assert where[f"layers.{layer}.mlp"] == {1}
    if layer:
        assert where[f"layers.{layer - 1}.mlp"] == {0}


def test_more_stages_with_some_pinned() -> None:
    where = stages_of(written("layers.0=stage 0", "layers.1=stage 1", "head=stage 3", pp=4))
    assert where["layers.0.mlp"] == {0}
    assert where["layers.1.mlp"] == {1}
    assert where["head"] == {3}
    assert set().union(*where.values()) == {0, 1, 2, 3}


def test_without_pins_the_cuts_are_even() -> None:
    assert written("embed=stage 0", "head=stage 1").cut == written().cut


@pytest.mark.parametrize("degrees", [{}, {"dp": 2}, {"tp": 2}, {"dp": 2, "fsdp": True}])
def test_pinned_pipelines_compute_the_same(degrees: dict[str, object]) -> None:
    found = written("layers.0=stage 0", "layers.1=stage 1", **degrees)
    staged = StagedProgram(PROGRAM, found.micro_batches, found.cut)
    inputs = random_inputs(PROGRAM)
    loss, updates = evaluate(PROGRAM, inputs)
    piped, piped_updates = run_stages(staged.stages, found.micro_batches, inputs)
    assert piped == pytest.approx(loss, rel=1e-12)
    for name, array in updates.items():
        assert piped_updates[name] == pytest.approx(array, rel=1e-9, abs=1e-11)
    for number, own in enumerate(found.plans):
        assert staged.segments(number, own).local.mesh == own.mesh


def test_placements_are_kept_within_stages() -> None:
    found = written("layers.3.mlp output=S(0)x2", "head.weight=R", dp=2)
    staged = StagedProgram(PROGRAM, 4, found.cut)
    pinning = resolve(staged.part, [parse_pin("layers.3.mlp output=S(0)x2")])
    own = own_pins(staged.stages[1], pinning)
    (value,) = own.values
    shape = staged.stages[1].program.type_of(value).shape
    made = found.plans[1].strategies[value.node].outputs[0]
    assert made in kept_shardings((Wish(split=0, ways=2),), found.plans[0].mesh, shape)
    assert not own_pins(staged.stages[0], pinning).values
    with pytest.raises(InfeasibleError, match=r"layers.3.mlp output=S\(1\)"):
        written("layers.3.mlp output=S(1)", dp=2)
    with pytest.raises(InfeasibleError, match=r"head.weight=R"):
        written("head.weight=R", dp=2, fsdp=True)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("layers.1=stage 1", "head=stage 0"), "from which a value would have to flow back"),
        (("layers.*=stage 0", "layers.1=stage 1"), "in stage 1 and in stage 0"),
        (("layers.1=stage 2",), "a pipeline of more than 2 stages, for layers.1=stage 2"),
        (("embed=stage 1",), "pinned by embed=stage 1, which leave a stage empty"),
        (("loss=stage 0",), "pinned by loss=stage 0, which leave a stage empty"),
    ],
)
def test_pins_that_no_pipeline_keeps_are_named(texts: tuple[str, ...], words: str) -> None:
    with pytest.raises(InfeasibleError, match=words) as caught:
        written(*texts)
    assert caught.value.constraint == "pins"
    assert all(text in str(caught.value) for text in texts)


def test_what_lies_side_by_side_may_be_pinned_against_the_order_of_execution() -> None:
    """Query and value do not read one another, but one is computed first."""
    program = transformer(num_layers=1, batch=4, length=4)
    nodes = list(program.nodes)
    products = [n for n, node in enumerate(nodes) if node.scope.endswith("attention")]
    first, second = [n for n in products if nodes[n].op == "einsum"][:2]
    for number, stage in ((first, 1), (second, 0)):
        pins = (Annotation(Wish(stage=stage), f"model.py:{number}"),)
        nodes[number] = replace(nodes[number], pins=pins)
    pinned = replace(program, nodes=tuple(nodes))
    found = written(program=pinned, micro_batches=2)
    assert len(found.cut.runs) > 2
    inputs = random_inputs(pinned)
    staged = StagedProgram(pinned, 2, found.cut)
    loss, _ = evaluate(pinned, inputs)
    assert run_stages(staged.stages, 2, inputs)[0] == pytest.approx(loss, rel=1e-5)


def test_towers_are_in_the_stages_that_they_are_pinned_to() -> None:
    program = towers(num_layers=3, batch=8, dtype=DType.F64)
    for first, second in (("left", "right"), ("right", "left")):
        where = stages_of(
            written(f"{first}=stage 0", f"{second}=stage 1", program=program), program
        )
        assert all(where[f"{first}.{layer}"] == {0} for layer in range(3))
        assert all(where[f"{second}.{layer}"] == {1} for layer in range(3))
    with pytest.raises(InfeasibleError, match="from which a value would have to flow back"):
        written("head=stage 0", "left=stage 1", program=program)


def test_a_block_of_the_models_own_code_is_in_its_stage() -> None:
    nodes = list(PROGRAM.nodes)
    number = next(n for n, node in enumerate(nodes) if node.scope == "layers.1.norm2")
    nodes[number] = replace(nodes[number], pins=(Annotation(Wish(stage=1), "model.py:7"),))
    program = replace(PROGRAM, nodes=tuple(nodes))
    assert stages_of(written(program=program))["layers.1.norm2"] == {1}
    elsewhere = written("layers.3=stage 1", "layers.2=stage 0").cut
    with pytest.raises(VerifyError, match=r"weft.pinned\(stage=1\) at model.py:7"):
        _ = StagedProgram(program, 4, elsewhere).stages


def test_what_every_stage_computes_cannot_be_pinned() -> None:
    program = mlp(num_layers=2, batch=4)
    part = in_micro_batches(program, 2)
    pinning = resolve(part, [parse_pin("layers.0=stage 0")])
    only = replace(
        pinning, stages={part.input_by_name["batch.x"].node: pinning.stages[min(pinning.stages)]}
    )
    with pytest.raises(InfeasibleError, match="operators that belong to one stage"):
        stage_bounds(part, only, 2)


def test_bounds_close_in_on_pinned_nodes_and_cuts_lie_between_them() -> None:
    part = in_micro_batches(PROGRAM, 4)
    pinning = resolve(part, [parse_pin("layers.1=stage 1"), parse_pin("layers.3=stage 2")])
    bounds = stage_bounds(part, pinning, 4)
    scopes = {part.nodes[n].scope: bound for n, bound in bounds.items()}
    assert scopes["embed"] == (0, 1)
    assert scopes["layers.1.mlp"] == (1, 1)
    assert scopes["layers.2.mlp"] == (1, 2)
    assert scopes["head"] == (2, 3)
    cuts = allowed_cuts(part, pinning, 4)
    assert all(part.nodes[n].scope.startswith(("embed", "layers.0", "layers.1")) for n in cuts[0])
    assert {part.nodes[n].scope.split(".")[1] for n in cuts[1]} == {"2", "3"}
    free = allowed_cuts(part, resolve(part), 4)
    for own, any_ in zip(cuts, free, strict=True):
        assert set(own) < set(any_)


def test_the_law_sees_an_operator_in_another_stage() -> None:
    found = written("layers.3=stage 1")
    staged = StagedProgram(PROGRAM, 4, found.cut)
    require_stages(staged.stages, staged.part, resolve(staged.part, [parse_pin("head=stage 1")]))
    pinning = resolve(staged.part, [parse_pin("layers.3=stage 0")])
    with pytest.raises(InfeasibleError, match=r"layers.3=stage 0"):
        require_stages(staged.stages, staged.part, pinning)


@given(
    st.lists(st.integers(1, 9), min_size=4, max_size=9),
    st.integers(1, 3),
    st.data(),
)
def test_cuts_are_the_best_of_all(work: list[int], count: int, data: st.DataObject) -> None:
    total, ends = 0.0, []
    for piece in work:
        total += piece
        ends.append(total)
    positions = st.lists(st.integers(1, len(work) - 1), min_size=1, unique=True).map(sorted)
    allowed = [data.draw(positions) for _ in range(count)]

    def longest(cuts: list[int]) -> float:
        bounds = [0, *cuts, len(work)]
        return max(sum(work[a:b]) for a, b in pairwise(bounds))

    every = [[]]
    for positions_of in allowed:
        every = [[*cuts, p] for cuts in every for p in positions_of if not cuts or p > cuts[-1]]
    found = best_cuts(ends, [], allowed)
    if not every:
        assert found == []
    else:
        assert found in every
        assert longest(found) == pytest.approx(min(map(longest, every)))
