"""Plans keep pins: those of the search, those of experts, and the law that checks both."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.programs import mlp, transformer
from weft.core.errors import InfeasibleError, InputError, VerifyError
from weft.machine.presets import preset
from weft.parallel.depth import views_of
from weft.parallel.experts import expert_plan, expert_proposals
from weft.parallel.explanation import explain
from weft.parallel.kept import kept_shardings, makes, require_kept
from weft.parallel.pinning import resolve
from weft.parallel.pins import parse_pin
from weft.parallel.placement import Mesh, Sharding
from weft.parallel.plan import ParallelPlan
from weft.parallel.planner import plan_request
from weft.parallel.planning import PLANNERS, plan
from weft.parallel.request import PlanRequest
from weft.parallel.serialize import plan_from_json, plan_to_json
from weft.parallel.validate import validate
from weft.program.annotation import Annotation, Wish
from weft.program.fold import fold
from weft.program.graph import Program

MACHINE = preset("dgx-h100x1")
PROGRAM = transformer(
    num_layers=6, batch=8, length=16, width=32, num_heads=8, vocabulary=64, slots=("m",)
)


def pins(*texts: str) -> list[object]:
    return [parse_pin(text) for text in texts]


def stored(found: ParallelPlan, program: Program, name: str) -> Sharding:
    return found.strategies[program.input_by_name[name].node].outputs[0]


@pytest.mark.parametrize(
    ("wish", "kept"),
    [
        (Wish(split=0), ((-1, 0), (0, -1), (0, 0), (0, 1), (1, 0))),
        (Wish(split=0, ways=4), ((0, 0),)),
        (Wish(split=0, ways=2), ((-1, 0), (0, -1), (0, 1), (1, 0))),
        (Wish(replicated=True), ((-1, -1),)),
        (Wish(split=-1, ways=4), ()),
        (Wish(split=2), ()),
        (Wish(split=1), ((-1, 1), (0, 1), (1, -1), (1, 0))),
    ],
    ids=str,
)
def test_what_grants_a_wish(wish: Wish, kept: tuple[Sharding, ...]) -> None:
    assert set(kept_shardings((wish,), Mesh((2, 2)), (8, 6))) == set(kept)


def test_two_wishes_hold_together() -> None:
    both = (Wish(split=0, ways=2), Wish(split=1, ways=2))
    assert set(kept_shardings(both, Mesh((2, 2)), (8, 6))) == {(0, 1), (1, 0)}


def test_summands_may_still_be_reduced() -> None:
    assert makes((0, -2), ((0, 1),))
    assert not makes((1, -2), ((0, 1),))
    assert not makes((-1, -1), ((0, 1),))


def test_parameters_lie_as_pinned() -> None:
    free = plan(PROGRAM, MACHINE)
    wanted = pins("layers.*.attention.query=S(1)x4", "embed.weight=R", "head.weight=S(0)x8")
    found = plan(PROGRAM, MACHINE, pins=wanted)
    for layer in range(6):
        sharding = stored(found, PROGRAM, f"layers.{layer}.attention.query")
        assert [n for n, p in zip(found.mesh.shape, sharding, strict=True) if p == 1] == [4]
    assert set(stored(found, PROGRAM, "embed.weight")) == {-1}
    assert set(stored(found, PROGRAM, "head.weight")) == {0}
    assert set(stored(free, PROGRAM, "layers.0.attention.query")) != {1}
    assert found.prediction.step_s >= free.prediction.step_s


def test_layers_are_pinned_one_by_one() -> None:
    found = plan(PROGRAM, MACHINE, mesh=(8,), pins=pins("layers.2.mlp.up=S(1)"))
    cut = [stored(found, PROGRAM, f"layers.{n}.mlp.up") == (1,) for n in range(6)]
    assert cut[2]
    assert not all(cut)


def test_an_output_is_there_as_pinned() -> None:
    pinned = pins("layers.*.mlp output=S(1)x4", "layers.3.norm2 output=R")
    found = plan(PROGRAM, MACHINE, pins=pinned)
    for value, asked in resolve(PROGRAM, pinned).values.items():
        kept = kept_shardings((asked[0].wish,), found.mesh, PROGRAM.type_of(value).shape)
        made = found.strategies[value.node].outputs[0]
        copies = [copy.target for copy in found.copies if copy.value == value]
        assert makes(made, kept)
        assert made in kept or any(copy in kept for copy in copies)


def test_a_batch_entry_and_optimizer_state_can_be_pinned() -> None:
    pinned = pins("batch.ids=S(1)", "optimizer.m.embed.weight=S(1)")
    found = plan(PROGRAM, MACHINE, mesh=(8,), pins=pinned)
    assert stored(found, PROGRAM, "batch.ids") == (1,)
    assert stored(found, PROGRAM, "optimizer.m.embed.weight") == (1,)


def test_an_explanation_and_a_file_name_the_pins() -> None:
    found = plan(PROGRAM, MACHINE, mesh=(8,), pins=pins("layers.*.mlp.up=S(1)", "embed.weight=R"))
    text = explain(plan_from_json(plan_to_json(found)), PROGRAM, MACHINE)
    assert "kept layers.*.mlp.up=S(1) (6 tensors)" in text
    assert "kept embed.weight=R (1 tensor)" in text


def test_experts_that_break_a_pin_are_not_proposed() -> None:
    def names(*texts: str) -> set[str]:
        request = PlanRequest(program=PROGRAM, machine=MACHINE, pins=tuple(pins(*texts)))
        views = views_of(PROGRAM, fold(PROGRAM, request.pinning.marks))
        return {proposal.name for proposal in expert_proposals(request, views)}

    assert {"DDP 8", "FSDP 8"} <= names()
    assert "FSDP 8" not in names("embed.weight=R")
    assert "DDP 8" in names("embed.weight=R")
    assert names("layers.2.mlp output=S(1)") == {n for n in names() if n.endswith("SP")}


def test_short_versions_of_a_deep_program_know_the_pins() -> None:
    deep = transformer(num_layers=12, batch=8, length=16, width=32, num_heads=8, slots=("m",))
    wanted = pins("layers.*.mlp output=S(1)", "layers.*.attention.query=S(0)x8")
    request = PlanRequest(program=deep, machine=MACHINE, pins=tuple(wanted))
    assert views_of(deep, fold(deep, request.pinning.marks)) is not None
    found = plan_request(request, PLANNERS["exact"]())
    assert stored(found, deep, "layers.7.attention.query") == (0,) * found.mesh.num_axes


def test_an_expert_says_which_pin_its_degrees_break() -> None:
    assert expert_plan(PROGRAM, MACHINE, dp=8, pins=pins("embed.weight=R")).mesh == Mesh((8,))
    with pytest.raises(InfeasibleError) as caught:
        expert_plan(PROGRAM, MACHINE, dp=8, fsdp=True, pins=pins("embed.weight=R"))
    assert caught.value.need == "embed.weight=R"
    assert "embed.weight f32[64,32] as S0 on mesh 8" in caught.value.got


def test_recomputation_does_not_hide_a_pin() -> None:
    kept = expert_plan(
        PROGRAM, MACHINE, dp=8, recompute="full", pins=pins("layers.1.mlp output=S(0)")
    )
    assert kept.recompute
    with pytest.raises(InfeasibleError, match=r"layers.1.mlp output=S\(1\)"):
        expert_plan(PROGRAM, MACHINE, dp=8, recompute="full", pins=pins("layers.1.mlp output=S(1)"))


def test_the_law_sees_a_copy_that_is_missing() -> None:
    found = expert_plan(PROGRAM, MACHINE, tp=8, sp=True)
    pinning = resolve(PROGRAM, pins("layers.1.mlp output=S(1)"))
    (value,) = pinning.values
    require_kept(found.mesh, found.strategies, found.copies, PROGRAM, pinning)
    fewer = [copy for copy in found.copies if copy.value != value]
    with pytest.raises(InfeasibleError, match=r"layers.1.mlp output=S\(1\)"):
        require_kept(found.mesh, found.strategies, fewer, PROGRAM, pinning)


def own_pin(program: Program, wish: Wish) -> Program:
    """The program with its first relu pinned by the model's own code."""
    number = next(n for n, node in enumerate(program.nodes) if node.op == "relu.default")
    nodes = list(program.nodes)
    nodes[number] = replace(nodes[number], pins=(Annotation(wish, "model.py:7"),))
    return replace(program, nodes=tuple(nodes))


def test_pins_of_the_models_own_code_are_kept_and_part_of_the_law() -> None:
    plain = mlp(num_layers=2, batch=8, width=16)
    pinned = own_pin(plain, Wish(split=2, ways=8))
    found = plan(pinned, MACHINE)
    validate(found, pinned)
    assert "kept with weft.pinned(split=2, ways=8) at model.py:7 (1 tensor)" in found.notes
    other = replace(expert_plan(plain, MACHINE, dp=8), program_digest=pinned.digest)
    with pytest.raises(VerifyError, match=r"weft.pinned\(split=2, ways=8\) at model.py:7"):
        validate(other, pinned)
    with pytest.raises(InfeasibleError, match=r"weft.pinned\(split=2, ways=8\) at model.py:7"):
        expert_plan(pinned, MACHINE, dp=8)
    assert expert_plan(pinned, MACHINE, tp=8).mesh == Mesh((8,))


def test_a_pin_that_names_nothing_stops_a_plan() -> None:
    with pytest.raises(InputError, match=r"layers.9.mlp output=R, which names none"):
        plan(PROGRAM, MACHINE, pins=pins("layers.9.mlp output=R"))


def test_a_text_is_no_pin() -> None:
    with pytest.raises(InputError, match=r"'embed.weight=R'"):
        plan(PROGRAM, MACHINE, pins=["embed.weight=R"])


def test_a_stage_needs_a_pipeline() -> None:
    with pytest.raises(InfeasibleError, match=r"a pipeline, for layers.1=stage 1"):
        plan(PROGRAM, MACHINE, max_stages=1, pins=pins("layers.1=stage 1"))
    assert plan(mlp(), MACHINE, mesh=(2,), pins=pins("layers.0=stage 0")).mesh == Mesh((2,))


def test_where_memory_is_too_small_the_pins_are_mentioned() -> None:
    program = mlp(num_layers=2, batch=8, width=32)
    with pytest.raises(InfeasibleError, match="without some of the pins"):
        plan(program, MACHINE, memory_limit_bytes=100, pins=pins("layers.*.up=R"))
