"""Micro-batches and stages compute what the whole step does."""

from __future__ import annotations

import numpy as np
import pytest

from tests.programs import mlp, random_inputs, transformer
from tests.stages import run_stages
from weft.core.errors import InputError
from weft.parallel.pipeline.microbatch import in_micro_batches
from weft.parallel.pipeline.stages import stage_of_nodes, stage_programs
from weft.program.builder import Builder
from weft.program.evaluate import evaluate
from weft.program.graph import Phase, Program, Role
from weft.program.types import DType, TensorType
from weft.program.verify import verify

PROGRAMS = {
    "mlp": lambda: mlp(4, batch=8, slots=("m",), dtype=DType.F64),
    "transformer": lambda: transformer(
        num_layers=3, batch=8, length=4, width=8, vocabulary=16, slots=("m",), dtype=DType.F64
    ),
}


def evenly(program: Program, num_stages: int) -> list[int]:
    """Stages of about as many nodes each."""
    forward = [
        number
        for number, node in enumerate(program.nodes)
        if node.phase is Phase.FORWARD and node.op != "input"
    ]
    stages = [0] * len(program.nodes)
    for position, number in enumerate(forward):
        stages[number] = position * num_stages // len(forward)
    return stages


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize("num_stages", [1, 2, 3, 5])
def test_stages_compute_the_step(name: str, count: int, num_stages: int) -> None:
    program = PROGRAMS[name]()
    inputs = random_inputs(program)
    loss, updates = evaluate(program, inputs)
    part = in_micro_batches(program, count)
    verify(part)
    stages = stage_programs(part, stage_of_nodes(part, evenly(part, num_stages)))
    for stage in stages:
        verify(stage.program)
        assert len(stage.origin) == len(stage.program.nodes)
    assert len(stages) == num_stages
    found, new = run_stages(stages, count, inputs)
    assert found == pytest.approx(loss, rel=1e-12)
    assert set(new) == set(updates)
    for key, value in updates.items():
        np.testing.assert_allclose(new[key], value, rtol=1e-9, atol=1e-12)


def test_a_parameter_lives_in_one_stage_with_its_state_and_update() -> None:
    part = in_micro_batches(PROGRAMS["transformer"](), 2)
    stages = stage_programs(part, stage_of_nodes(part, evenly(part, 3)))
    homes: dict[str, int] = {}
    for stage in stages:
        for source in stage.program.inputs:
            if source.role in (Role.PARAMETER, Role.STATE):
                assert source.name not in homes
                homes[source.name] = stage.number
    assert set(homes.values()) == {0, 1, 2}
    for source in part.inputs:
        if source.parameter:
            assert homes[source.name] == homes[source.parameter]


def test_what_skips_a_stage_is_relayed_by_it() -> None:
    b = Builder("skip")
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F64, (4, 3)))
    weights = [b.input(f"w{n}", Role.PARAMETER, TensorType(DType.F64, (3, 3))) for n in range(3)]
    first = b.add("einsum", "bi,ij->bj", x, weights[0])
    second = b.add("einsum", "bi,ij->bj", first, weights[1])
    third = b.add("einsum", "bi,ij->bj", second, weights[2])
    loss = b.add("sum", b.add("mul.Tensor", third, first), (0, 1))
    program = b.build(loss)
    part = in_micro_batches(program, 2)
    ends = [part.nodes.index(n) for n in part.nodes if n.op == "einsum"]
    forward = [sum(number >= end for end in ends[1:]) for number in range(len(part.nodes))]
    stages = stage_programs(part, stage_of_nodes(part, forward))
    assert [len(stage.sends) for stage in stages] == [1, 2, 0]
    assert [len(stage.receives) for stage in stages] == [0, 1, 2]
    inputs = random_inputs(program)
    assert run_stages(stages, 2, inputs)[0] == pytest.approx(evaluate(program, inputs)[0])


def test_random_masks_are_those_of_the_whole_batch() -> None:
    b = Builder("mask")
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (8, 3)))
    seed = b.input("seed", Role.SEED, TensorType(DType.I64, ()))
    noise = b.add("uniform", seed, 5, (8, 3))
    place = b.add("expand", b.add("view", b.add("iota", 8, 2, 3, "f32"), (8, 1)), (8, 3))
    both = b.add("mul.Tensor", b.add("mul.Tensor", x, noise), place)
    program = b.build(b.add("sum", both, (0, 1)))
    inputs = random_inputs(program) | {"seed": np.array(11)}
    part = in_micro_batches(program, 4)
    assert {"uniform_part"} <= {node.op for node in part.nodes}
    stages = stage_programs(part, stage_of_nodes(part, [0] * len(part.nodes)))
    found, _ = run_stages(stages, 4, inputs)
    assert found == pytest.approx(evaluate(program, inputs)[0], rel=1e-6)


def test_a_token_repeated_for_every_sample_is_repeated_for_those_of_a_part() -> None:
    b = Builder("class token")
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F64, (8, 2, 3)))
    token = b.input("token", Role.PARAMETER, TensorType(DType.F64, (3,)))
    tokens = b.add("mul.Scalar", b.add("expand", token, (8, 1, 3)), 2.0)
    both = b.add("cat", (tokens, x), 1)
    program = b.build(b.add("sum", b.add("mul.Tensor", both, both), (0, 1, 2)))
    part = in_micro_batches(program, 4)
    verify(part)
    assert [str(n.outputs[0]) for n in part.nodes if n.op == "cat"] == ["f64[2,3,3]"]
    inputs = random_inputs(program)
    stages = stage_programs(part, stage_of_nodes(part, [0] * len(part.nodes)))
    found, _ = run_stages(stages, 4, inputs)
    assert found == pytest.approx(evaluate(program, inputs)[0], rel=1e-12)


def test_a_parameter_that_meets_the_rows_of_the_batch_is_refused() -> None:
    b = Builder("row by row")
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (8, 3)))
    rows = b.input("rows", Role.PARAMETER, TensorType(DType.F32, (8, 3)))
    program = b.build(b.add("sum", b.add("mul.Tensor", x, rows), (0, 1)))
    with pytest.raises(InputError, match="mixes samples"):
        in_micro_batches(program, 2)


@pytest.mark.parametrize("count", [2, 4])
def test_an_update_that_squares_a_gradient_squares_the_whole_of_it(count: int) -> None:
    b = Builder("factored")
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F64, (8, 3)))
    y = b.input("batch.y", Role.BATCH, TensorType(DType.F64, (8, 4)))
    w = b.input("w", Role.PARAMETER, TensorType(DType.F64, (3, 4)))
    loss = b.add("sum", b.add("mul.Tensor", b.add("einsum", "bi,ij->bj", x, w), y), (0, 1))
    gradient = b.add("einsum", "bi,bj->ij", x, y, phase=Phase.BACKWARD)
    square = b.add("mul.Tensor", gradient, gradient, phase=Phase.UPDATE)
    columns = b.add("sum", square, (0,), True, phase=Phase.UPDATE)
    step = b.add("mul.Tensor", gradient, columns, phase=Phase.UPDATE)
    program = b.build(loss, ((w, b.add("sub.Tensor", w, step, phase=Phase.UPDATE)),))
    inputs = random_inputs(program)
    expected, updates = evaluate(program, inputs)
    part = in_micro_batches(program, count)
    found, new = run_stages(
        stage_programs(part, stage_of_nodes(part, [0] * len(part.nodes))), count, inputs
    )
    assert found == pytest.approx(expected)
    np.testing.assert_allclose(new["w"], updates["w"], rtol=1e-12)


def test_statistics_over_the_batch_are_refused_with_their_place() -> None:
    b = Builder("batch norm")
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (8, 3)))
    w = b.input("w", Role.PARAMETER, TensorType(DType.F32, (3,)))
    y = b.add("mul.Tensor", x, w)
    mean = b.add("sum", y, (0,), scope="norm", source="model.py:7")
    centred = b.add("sub.Tensor", y, mean, scope="norm", source="model.py:7")
    program = b.build(b.add("sum", b.add("mul.Tensor", centred, centred), (0, 1)))
    with pytest.raises(InputError, match=r"sub.Tensor in norm model.py:7"):
        in_micro_batches(program, 2)


@pytest.mark.parametrize("count", [0, 1, 3, 16])
def test_a_number_of_parts_that_does_not_divide_is_refused(count: int) -> None:
    with pytest.raises(InputError, match="divides the batch"):
        in_micro_batches(PROGRAMS["mlp"](), count)
