"""Stages of ZeRO in pipelines: what is computed, and what is gathered and reduced when."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest

from tests.pipelines import run_pipeline
from tests.programs import random_inputs, transformer, with_masters
from weft.machine.presets import preset
from weft.parallel.local import Collective, CollectiveKind
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.segments import Part
from weft.program.evaluate import evaluate
from weft.program.graph import Program, Role
from weft.program.types import DType

MACHINE = preset("dgx-h100x1")


@cache
def program(masters: bool) -> Program:
    plain = transformer(
        num_layers=4, batch=8, length=4, width=8, vocabulary=16, slots=("m",), dtype=DType.F64
    )
    return with_masters(plain) if masters else plain


@cache
def plan(masters: bool, zero: int, **degrees: int) -> PipelinePlan:
    about = {"pp": 2, "micro_batches": 2, "dp": 2, **degrees}
    return pipeline_expert(program(masters), MACHINE, **about, zero=zero)


@pytest.mark.parametrize("degrees", [{}, {"tp": 2}, {"dp": 1, "cp": 2}], ids=str)
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize("masters", [False, True])
def test_the_step_is_that_of_one_device(masters: bool, zero: int, degrees: dict[str, int]) -> None:
    inputs = random_inputs(program(masters))
    loss, updates = evaluate(program(masters), inputs)
    found, new = run_pipeline(program(masters), plan(masters, zero, **degrees), inputs)
    assert found == pytest.approx(loss, rel=1e-12)
    assert new.keys() == updates.keys()
    for name, value in updates.items():
        np.testing.assert_allclose(new[name], value, rtol=1e-9, atol=1e-11, err_msg=name)


def collectives(masters: bool, zero: int) -> Counter[tuple[Part, CollectiveKind]]:
    """How often each kind of collective stands in each part of the first stage."""
    about = plan(masters, zero)
    staged = StagedProgram(program(masters), about.micro_batches, about.cut)
    found = staged.segments(0, about.plans[0])
    return Counter(
        (part, instruction.kind)
        for part, numbers in found.parts.items()
        for instruction in (found.local.instructions[number] for number in numbers)
        if isinstance(instruction, Collective) and instruction.kind is not CollectiveKind.SLICE
    )


def num_parameters() -> int:
    about = plan(False, 0)
    staged = StagedProgram(program(False), about.micro_batches, about.cut)
    return sum(i.role is Role.PARAMETER for i in staged.stages[0].program.inputs)


def test_without_zero_gradients_are_reduced_once_a_step() -> None:
    assert collectives(False, 0) == {(Part.FINISH, CollectiveKind.ALL_REDUCE): num_parameters()}


def test_zero_1_reduces_and_gathers_once_a_step() -> None:
    assert collectives(False, 1) == {
        (Part.FINISH, CollectiveKind.REDUCE_SCATTER): num_parameters(),
        (Part.FINISH, CollectiveKind.ALL_GATHER): num_parameters(),
    }


def test_zero_1_gathers_casts_of_masters_in_the_setup() -> None:
    assert collectives(True, 1) == {
        (Part.SETUP, CollectiveKind.ALL_GATHER): num_parameters(),
        (Part.FINISH, CollectiveKind.REDUCE_SCATTER): num_parameters(),
    }


def test_zero_3_gathers_in_each_micro_batch() -> None:
    found = collectives(True, 3)
    assert found[Part.SETUP, CollectiveKind.ALL_GATHER] == 0
    assert found[Part.FORWARD, CollectiveKind.ALL_GATHER] == num_parameters()
    assert found[Part.FINISH, CollectiveKind.REDUCE_SCATTER] == num_parameters()


def test_what_lasts_takes_room_and_saves_time_over_many_micro_batches() -> None:
    def first(zero: int) -> PipelinePlan:
        wide = with_masters(
            transformer(num_layers=4, batch=64, length=64, width=512, vocabulary=64, slots=("m",))
        )
        return pipeline_expert(wide, MACHINE, pp=2, micro_batches=16, dp=4, zero=zero)

    whole, once, each = first(0).prediction, first(1).prediction, first(3).prediction
    assert once.pipeline_s == pytest.approx(whole.pipeline_s)
    assert once.pipeline_s < each.pipeline_s
    assert each.group_peak_bytes[0] < once.group_peak_bytes[0] < whole.group_peak_bytes[0]
