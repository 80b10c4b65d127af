"""The planner finds, unasked, the plans that people are known for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs import mlp, transformer
from weft.capture import capture
from weft.machine.presets import preset
from weft.parallel.experts import expert_plan
from weft.parallel.local import Collective, CollectiveKind
from weft.parallel.plan import ParallelPlan, Strategy
from weft.parallel.planning import plan
from weft.parallel.spmd import lower
from weft.program.graph import Phase, Program, Role
from weft.program.operators import Kind, operator
from weft.workflow.recipe import load_workload

MACHINE = preset("dgx-h100x1")
RECIPES = Path(__file__).parents[2] / "recipes"


def strategies_of(program: Program, found: ParallelPlan, op: str, scope: str) -> list[Strategy]:
    """Forward strategies of an operator in a scope."""
    return [
        strategy
        for node, strategy in zip(program.nodes, found.strategies, strict=True)
        if node.op == op and scope in node.scope and node.phase is Phase.FORWARD
    ]


def stored(program: Program, found: ParallelPlan, role: Role) -> dict[str, tuple[int, ...]]:
    return {i.name: found.strategies[i.node].outputs[0] for i in program.inputs if i.role is role}


def collectives(program: Program, found: ParallelPlan, kind: CollectiveKind, phase: Phase) -> int:
    return sum(
        isinstance(i, Collective) and i.kind is kind and i.phase is phase
        for i in lower(program, found).instructions
    )


def test_an_mlp_with_wide_weights_is_cut_by_columns_then_rows() -> None:
    program = mlp(num_layers=1, batch=64, width=8192, hidden=lambda _: 32768)
    found = plan(program, MACHINE, mesh=(8,))
    up, down = strategies_of(program, found, "einsum", "layers.0")
    assert up == Strategy(outputs=((2,),), operands=((-1,), (0,)))
    assert down == Strategy(outputs=((-2,),), operands=((2,), (1,)))


def test_attention_of_one_long_sequence_is_cut_by_heads() -> None:
    program = transformer(
        num_layers=2, batch=1, length=2048, width=2048, num_heads=16, vocabulary=2048
    )
    found = plan(program, MACHINE, mesh=(8,))
    attention = strategies_of(program, found, "attention", "layers")
    assert attention
    for strategy in attention:
        assert strategy.outputs[0] == (1,)


def test_norms_are_cut_along_the_sequence_when_memory_is_short() -> None:
    program = transformer(
        num_layers=4, batch=1, length=4096, width=1024, num_heads=16, vocabulary=1024
    )
    limit = 0.75 * expert_plan(program, MACHINE, tp=8).prediction.peak_bytes
    found = plan(program, MACHINE, mesh=(8,), memory_limit_bytes=limit)
    assert not found.recompute
    norms = strategies_of(program, found, "native_layer_norm.default", "layers")
    assert norms
    # The first norm follows the lookup in the table, whose rows are cut.
    assert all(strategy.outputs[0] == (1,) for strategy in norms[1:])
    assert found.prediction.peak_bytes <= limit


def test_only_parameters_too_large_gives_fully_sharded_data_parallelism() -> None:
    program = mlp(num_layers=6, batch=1 << 16, width=1024, hidden=lambda _: 4096, slots=("m", "v"))
    copies = expert_plan(program, MACHINE, dp=8).prediction.peak_bytes
    limit = 1.02 * expert_plan(program, MACHINE, dp=8, fsdp=True).prediction.peak_bytes
    assert limit < 0.8 * copies
    found = plan(program, MACHINE, mesh=(8,), memory_limit_bytes=limit)
    assert not found.recompute
    for role in (Role.PARAMETER, Role.STATE):
        assert all(sharding[0] >= 0 for sharding in stored(program, found, role).values())
    for strategy in strategies_of(program, found, "einsum", "layers"):
        assert strategy.operands == ((0,), (-1,))
    assert collectives(program, found, CollectiveKind.ALL_GATHER, Phase.FORWARD) >= 12


def test_a_small_model_with_a_large_batch_is_plain_data_parallelism() -> None:
    program = mlp(num_layers=2, batch=1 << 18, width=256, hidden=lambda _: 1024)
    found = plan(program, MACHINE, mesh=(8,))
    assert set(stored(program, found, Role.BATCH).values()) == {(0,)}
    for strategy in strategies_of(program, found, "einsum", "layers"):
        assert strategy.operands == ((0,), (-1,))


def test_vgg_at_a_small_batch_cuts_only_its_large_fully_connected_weights() -> None:
    program = capture(load_workload(f"{RECIPES / 'vgg.py'}:vgg19"))
    found = plan(program, MACHINE, mesh=(8,))
    for node, strategy in zip(program.nodes, found.strategies, strict=True):
        if operator(node.op).kind is Kind.CONVOLUTION and node.phase is Phase.FORWARD:
            assert strategy.operands[:2] == ((0,), (-1,)), node.scope
    hidden = [
        *strategies_of(program, found, "einsum", "hidden1"),
        *strategies_of(program, found, "einsum", "hidden2"),
    ]
    assert len(hidden) == 2
    assert all(strategy.operands[1][0] >= 0 for strategy in hidden)


def test_experts_are_cut_by_expert_with_two_all_to_alls_a_layer() -> None:
    program = capture(load_workload(f"{RECIPES / 'moe.py'}:moe_small"))
    found = plan(program, MACHINE, mesh=(4,))
    weights = {
        name: sharding
        for name, sharding in stored(program, found, Role.PARAMETER).items()
        if ".experts." in name and len(program.nodes[0].outputs) == 1
        and len(program.nodes[program.input_by_name[name].node].outputs[0].shape) == 3
    }  # fmt: skip
    assert weights
    assert set(weights.values()) == {(0,)}
    layers = len({name.split(".")[1] for name in weights})
    assert collectives(program, found, CollectiveKind.ALL_TO_ALL, Phase.FORWARD) == 2 * layers


@pytest.mark.parametrize("mesh", [(8,), (2, 4)])
def test_no_plan_is_slower_than_an_expert_that_fits(mesh: tuple[int, ...]) -> None:
    program = transformer(num_layers=3, batch=8, length=512, width=512, num_heads=8, vocabulary=512)
    found = plan(program, MACHINE, mesh=mesh)
    assert found.alternatives
    for other in found.alternatives:
        assert not other.fits or found.prediction.step_s <= other.step_s * (1 + 1e-9)
