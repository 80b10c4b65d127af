"""Planning as users call it: what it returns, and what it says when it cannot."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.homed import devices
from tests.programs import mlp, transformer
from weft.core.errors import InfeasibleError, InputError, MismatchError, VerifyError
from weft.machine.model import Machine
from weft.machine.presets import preset
from weft.parallel.estimate import slowest_device
from weft.parallel.experts import expert_plan
from weft.parallel.explanation import axis_roles, explain
from weft.parallel.homes import Homes, plan_by_homes
from weft.parallel.plan import Hop, Level
from weft.parallel.planning import plan
from weft.parallel.validate import validate
from weft.parallel.wide import Way
from weft.program.graph import Role

MACHINE = preset("dgx-h100x1")


def tiny_memory(machine: Machine, num_bytes: float) -> Machine:
    """The machine with so little memory on each device."""
    groups = tuple(
        replace(
            group,
            device=replace(
                group.device, memory_bytes=replace(group.device.memory_bytes, value=num_bytes)
            ),
        )
        for group in machine.groups
    )
    return replace(machine, groups=groups)


PROGRAM = mlp(num_layers=2, batch=64, width=256, hidden=lambda _: 1024, slots=("m",))


def test_a_plan_is_legal_and_names_what_it_was_made_for() -> None:
    found = plan(PROGRAM, MACHINE, max_stages=1)
    validate(found, PROGRAM)
    assert found.program_digest == PROGRAM.digest
    assert found.machine_digest == MACHINE.digest
    assert found.level is Level.FAST
    assert found.mesh.num_devices == MACHINE.num_devices
    assert found.prediction.objective_s >= found.prediction.bound_s * (1 - 1e-9)


def test_the_same_question_has_the_same_answer() -> None:
    first, second = plan(PROGRAM, MACHINE, max_stages=1), plan(PROGRAM, MACHINE, max_stages=1)
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
        plan(PROGRAM, MACHINE, max_stages=1, memory_limit_bytes=1000)
    error = caught.value
    assert "1000 B" in error.need
    assert "smallest plan found" in error.got
    assert "memory limit" in error.hint
    assert error.constraint


def test_a_model_larger_than_the_machine_names_a_larger_machine() -> None:
    huge = mlp(num_layers=4, batch=64, width=65536, hidden=lambda _: 4 * 65536, slots=("m", "v"))
    with pytest.raises(InfeasibleError, match=r"a machine such as dgx-h100x\d+") as caught:
        plan(huge, MACHINE, mesh=(8,))
    named = re.search(r"dgx-h100x\d+", caught.value.hint)
    assert named
    assert plan(huge, preset(named[0]), max_stages=1).prediction.peak_bytes <= 80 * 2**30


def test_no_larger_machine_is_named_where_none_would_do() -> None:
    # One row cannot be cut over more devices, and its activations alone are too large.
    long = mlp(num_layers=2, batch=1, width=7, hidden=lambda _: 7)
    with pytest.raises(InfeasibleError, match="more memory on each device"):
        plan(long, tiny_memory(MACHINE, 64), mesh=(8,))


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
        plan(PROGRAM, MACHINE, max_stages=1, **arguments)


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


def test_an_explanation_for_something_else_is_refused() -> None:
    found = plan(PROGRAM, MACHINE, mesh=(8,))
    with pytest.raises(MismatchError, match="dgx-a100x1"):
        explain(found, PROGRAM, preset("dgx-a100x1"))
    with pytest.raises(MismatchError, match=PROGRAM.digest):
        explain(found, mlp(num_layers=1), MACHINE)


def test_an_explanation_says_if_a_plan_does_not_fit() -> None:
    small = tiny_memory(MACHINE, 1e4)
    assert "does not fit" in explain(expert_plan(PROGRAM, small, dp=8), PROGRAM, small)


def test_a_copy_that_leads_elsewhere_is_no_plan() -> None:
    found = expert_plan(PROGRAM, MACHINE, dp=8, fsdp=True)
    validate(found, PROGRAM)
    first = found.copies[0]
    for wrong in (replace(first, hops=()), replace(first, hops=(Hop(3, -1),))):
        with pytest.raises(VerifyError, match="do not lead there"):
            validate(replace(found, copies=(wrong, *found.copies[1:])), PROGRAM)


@pytest.mark.parametrize(
    ("degrees", "named"),
    [({"dp": 16}, "at most 8 devices"), ({"dp": 8, "tp": 2}, "DDP 8 x TP 2")],
)
def test_experts_are_told_when_devices_are_too_few(degrees: dict[str, int], named: str) -> None:
    with pytest.raises(InputError, match=named):
        expert_plan(PROGRAM, MACHINE, **degrees)


def test_experts_are_told_which_batch_does_not_divide() -> None:
    with pytest.raises(InputError, match=r"batch\.\w+ with 63 rows"):
        expert_plan(mlp(num_layers=1, batch=63), MACHINE, dp=2)


def test_of_uneven_devices_the_slowest_counts_for_each_element_type() -> None:
    mixed = preset("mixed-v100-p100-1080ti")
    slowest = slowest_device(mixed)
    for dtype, rate in slowest.matmul_flops_per_s.items():
        rates = [group.device.matmul_flops_per_s[dtype].value for group in mixed.groups]
        assert rate.value == min(rates)
    assert slowest.memory_bytes.value == min(g.device.memory_bytes.value for g in mixed.groups)


def test_an_explanation_tells_shared_work_from_repeated_work() -> None:
    shared = explain(expert_plan(PROGRAM, MACHINE, dp=8), PROGRAM, MACHINE)
    assert "mesh      8 (inside a node) cuts batch 100%" in shared
    alone = mlp(num_layers=1, batch=1, width=3, hidden=lambda _: 3)
    repeated = explain(plan(alone, MACHINE, mesh=(8,)), alone, MACHINE)
    assert "all devices repeat work" in repeated


def test_the_best_hand_written_plan_is_always_among_what_lost() -> None:
    found = plan(PROGRAM, MACHINE, max_stages=1)
    written = next(a for a in found.alternatives if not a.name.startswith("mesh"))
    many = tuple(replace(found.alternatives[0], name=f"mesh {n}") for n in range(9))
    text = explain(replace(found, alternatives=(*many, written)), PROGRAM, MACHINE)
    assert f"{written.name}: " in text
    assert text.count("searched, mesh") == 3
    learnt = tuple(replace(one, name=name) for one, name in zip(many, LEARNT, strict=False))
    assert f"{written.name}: " in explain(
        replace(found, alternatives=(*learnt, written)), PROGRAM, MACHINE
    )


LEARNT = ("dqn 4x2", "dqn 8", "groups of operators by tree search", "TP 8 by tree search")
"""Names of what learned planners find."""


def test_an_explanation_counts_what_a_home_holds() -> None:
    """Two devices of four cut a layer's weight: each device holds a quarter in the mean."""
    program, machine = mlp(num_layers=1, batch=8, width=64, hidden=lambda _: 64), devices(4)
    every = {i.node: i for i in program.inputs if i.role is Role.PARAMETER}
    homes = Homes(layouts=((1, 1, 0, 0),), home=(0,) * len(program.nodes))
    whole, cut = (
        plan_by_homes("drawn", program, machine, own, memory_limit_bytes=1e12).plan
        for own in (homes, replace(homes, cut=dict.fromkeys(every, (Way.COLUMNS,))))
    )
    assert "16.0 KiB of 32.0 KiB on a device, in the mean (1/2)" in explain(whole, program, machine)
    assert "8.0 KiB of 32.0 KiB on a device, in the mean (1/4)" in explain(cut, program, machine)


def test_a_plan_of_another_form_is_refused_before_anything_reads_it() -> None:
    found = expert_plan(PROGRAM, MACHINE, dp=8, fsdp=True)
    first, *rest = found.strategies
    outputs = first.outputs
    loop = replace(found.copies[0], origin=found.copies[0].target, target=found.copies[0].origin)
    wrong = [
        replace(found, strategies=(replace(first, outputs=()), *rest)),
        replace(found, strategies=(replace(first, outputs=((*outputs[0], -1),)), *rest)),
        replace(found, strategies=(replace(first, outputs=((7,),)), *rest)),
        replace(found, strategies=tuple(rest)),
        replace(found, recompute=(10**6,)),
        replace(found, copies=(*found.copies, loop)),
    ]
    for damaged in wrong:
        with pytest.raises(VerifyError):
            validate(damaged, PROGRAM)
