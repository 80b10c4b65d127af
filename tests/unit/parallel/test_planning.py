"""Planning as users call it: what it returns, and what it says when it cannot."""

from __future__ import annotations

import pytest

from tests.programs import mlp, transformer
from weft.core.errors import InfeasibleError, InputError
from weft.machine.presets import preset
from weft.parallel.explanation import axis_roles, explain
from weft.parallel.plan import Level
from weft.parallel.planning import plan
from weft.parallel.validate import validate

MACHINE = preset("dgx-h100x1")
PROGRAM = mlp(num_layers=2, batch=64, width=256, hidden=lambda _: 1024, slots=("m",))


def test_a_plan_is_legal_and_names_what_it_was_made_for() -> None:
    found = plan(PROGRAM, MACHINE)
    validate(found, PROGRAM)
    assert found.program_digest == PROGRAM.digest
    assert found.machine_digest == MACHINE.digest
    assert found.level is Level.FAST
    assert found.mesh.num_devices == MACHINE.num_devices
    assert found.prediction.objective_s >= found.prediction.bound_s * (1 - 1e-9)


def test_the_same_question_has_the_same_answer() -> None:
    first, second = plan(PROGRAM, MACHINE), plan(PROGRAM, MACHINE)
    assert first.strategies == second.strategies
    assert first.copies == second.copies


def test_less_memory_never_makes_a_plan_faster_and_is_kept_to() -> None:
    program = transformer(
        num_layers=3, batch=8, length=256, width=256, num_heads=4, vocabulary=256, slots=("m",)
    )
    free = plan(program, MACHINE, mesh=(8,))
    for share in (0.9, 0.7, 0.5):
        limit = share * free.prediction.peak_bytes
        try:
            found = plan(program, MACHINE, mesh=(8,), memory_limit_bytes=limit)
        except InfeasibleError:
            continue
        assert found.prediction.peak_bytes <= limit
        assert found.prediction.step_s >= free.prediction.step_s * (1 - 1e-9)


def test_what_cannot_fit_is_refused_with_figures_and_a_way_out() -> None:
    with pytest.raises(InfeasibleError) as caught:
        plan(PROGRAM, MACHINE, memory_limit_bytes=1000)
    error = caught.value
    assert "1000 B" in error.need
    assert "smallest plan found" in error.got
    assert "memory limit" in error.hint
    assert error.constraint


def test_a_model_larger_than_the_machine_names_a_larger_machine() -> None:
    huge = mlp(num_layers=4, batch=64, width=65536, hidden=lambda _: 4 * 65536, slots=("m", "v"))
    with pytest.raises(InfeasibleError, match=r"a machine such as dgx-h100x\d+"):
        plan(huge, MACHINE, mesh=(8,))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"planner": "oracle"}, "oracle"),
        ({"level": "quick"}, "quick"),
        ({"mesh": (16,)}, "mesh 16"),
        ({"mesh": (0,)}, r"mesh \(0,\)"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        plan(PROGRAM, MACHINE, **arguments)


def test_an_explanation_starts_with_the_result_and_names_what_lost() -> None:
    found = plan(PROGRAM, MACHINE, mesh=(2, 4))
    text = explain(found, PROGRAM, MACHINE)
    first, *rest = text.splitlines()
    assert first.startswith("mlp on dgx-h100x1 (8 h100")
    assert any(line.startswith("  mesh") for line in rest)
    assert any("TP 4" in line for line in rest)


def test_roles_of_an_axis_add_up() -> None:
    for roles in axis_roles(plan(PROGRAM, MACHINE, mesh=(2, 4)), PROGRAM):
        assert sum(roles.values()) == pytest.approx(1.0)
