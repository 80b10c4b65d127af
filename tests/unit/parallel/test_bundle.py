"""Which collectives travel together, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import pytest

from tests.programs import transformer
from weft.machine.presets import preset
from weft.parallel import bundle
from weft.parallel.bundle import with_bundles
from weft.parallel.estimate import estimate
from weft.parallel.experts import expert_plan
from weft.parallel.local import Collective, CollectiveKind, LocalProgram
from weft.parallel.prefetch import with_last_use
from weft.parallel.spmd import lower

PROGRAM = transformer(num_layers=3, batch=8, length=8, width=16, vocabulary=16, slots=("m",))
MACHINE = preset("dgx-h100x1")
PLANS = {
    "ddp": expert_plan(PROGRAM, MACHINE, dp=8),
    "fsdp": expert_plan(PROGRAM, MACHINE, dp=8, fsdp=True),
    "2d": expert_plan(PROGRAM, MACHINE, dp=4, tp=2, fsdp=True, sp=True),
}


@pytest.fixture(params=PLANS)
def local(request: pytest.FixtureRequest) -> LocalProgram:
    return lower(PROGRAM, PLANS[request.param])


def messages(local: LocalProgram) -> list[list[Collective]]:
    """Neighbours of one number, in order."""
    runs = groupby(local.instructions, lambda i: i.bundle if isinstance(i, Collective) else None)
    return [[c for c in run if isinstance(c, Collective)] for n, run in runs if n not in (None, -1)]


def unmarked(local: LocalProgram) -> list[object]:
    return [replace(i, bundle=-1) if isinstance(i, Collective) else i for i in local.instructions]


def test_a_message_stands_side_by_side_and_is_of_one_kind_axis_and_type(
    local: LocalProgram,
) -> None:
    found = messages(local)
    assert found
    numbers = [message[0].bundle for message in found]
    assert len(set(numbers)) == len(numbers)
    for message in found:
        assert len(message) > 1
        kinds = {(c.kind, c.axis, c.reduce, c.phase, local.slots[c.source].dtype) for c in message}
        assert len(kinds) == 1


def test_nobody_in_a_message_waits_for_another_member(local: LocalProgram) -> None:
    for message in messages(local):
        made = {c.target for c in message}
        assert made.isdisjoint(c.source for c in message)


def test_gradients_of_a_small_model_are_one_message() -> None:
    reductions = [
        m for m in messages(lower(PROGRAM, PLANS["ddp"])) if m[0].kind is CollectiveKind.ALL_REDUCE
    ]
    parameters = sum(1 for i in PROGRAM.inputs if i.role.value == "parameter")
    assert max(map(len, reductions)) >= parameters - 1


@pytest.mark.parametrize(("small", "message"), [(0, 2**23), (2**20, 0)])
def test_large_tensors_travel_alone(
    local: LocalProgram, small: int, message: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "SMALL_BYTES", small)
    monkeypatch.setattr(bundle, "MESSAGE_BYTES", message)
    plain = replace(local, instructions=tuple(unmarked(local)))
    assert not messages(with_bundles(plain))


def test_joining_moves_instructions_and_loses_none(local: LocalProgram) -> None:
    plain = replace(local, instructions=tuple(unmarked(local)))
    joined = with_last_use(with_bundles(plain))
    assert set(unmarked(joined)) == set(plain.instructions)
    assert len(joined.instructions) == len(plain.instructions)


def test_a_message_costs_less_than_its_members_alone(local: LocalProgram) -> None:
    together, _ = estimate(local, PROGRAM, MACHINE)
    apart, _ = estimate(replace(local, instructions=tuple(unmarked(local))), PROGRAM, MACHINE)
    assert together.step_s < apart.step_s
