"""Laws of the local program."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.programs import mlp, transformer
from weft.core.errors import MismatchError, VerifyError
from weft.machine.presets import preset
from weft.parallel.candidate import unpriced
from weft.parallel.copies import Decision, copies_for
from weft.parallel.degrees import Degrees
from weft.parallel.experts import expert_plan
from weft.parallel.local import Collective, CollectiveKind, LocalProgram, Run
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level, Strategy
from weft.parallel.prefetch import slots_read
from weft.parallel.reshard import Resharding
from weft.parallel.spmd import lower
from weft.parallel.validate import validate
from weft.program.builder import Builder
from weft.program.graph import Phase, Role
from weft.program.types import DType, TensorType

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


def test_slots_are_written_once_and_before_they_are_read(local: LocalProgram) -> None:
    written = {i.slot for i in local.inputs}
    for instruction in local.instructions:
        assert set(slots_read(instruction)) <= written
        new = instruction.outputs if isinstance(instruction, Run) else (instruction.target,)
        assert written.isdisjoint(new)
        written.update(new)
    assert {local.loss, *(slot for _, slot in local.updates)} <= written


def test_last_use_is_the_last_reader(local: LocalProgram) -> None:
    for slot, last in enumerate(local.last_use):
        readers = [n for n, i in enumerate(local.instructions) if slot in slots_read(i)]
        if last < len(local.instructions):
            assert last == max(readers, default=-1)


def test_every_state_comes_back_in_its_own_sharding(local: LocalProgram) -> None:
    types = {i.name: local.slots[i.slot] for i in local.inputs}
    assert local.updates
    for name, slot in local.updates:
        assert local.slots[slot] == types[name]


def test_data_parallelism_reduces_each_gradient_once() -> None:
    local = lower(PROGRAM, PLANS["ddp"])
    kinds = [i.kind for i in local.instructions if isinstance(i, Collective)]
    parameters = sum(1 for i in PROGRAM.inputs if i.role.value == "parameter")
    assert set(kinds) == {CollectiveKind.ALL_REDUCE}
    # One for each gradient, and those of the loss: its sum and the number of its tokens.
    assert parameters <= len(kinds) <= parameters + 3


def test_a_weight_is_gathered_two_weights_ahead_of_its_reader() -> None:
    program = mlp(num_layers=4, batch=8, width=1024, hidden=lambda _: 4096, slots=("m",))
    local = lower(program, expert_plan(program, MACHINE, dp=8, fsdp=True))
    gathered: list[int] = []
    ahead: list[int] = []
    for instruction in local.instructions:
        if instruction.phase is not Phase.FORWARD:
            continue
        if isinstance(instruction, Run):
            read = [gathered.index(s) for s in slots_read(instruction) if s in gathered]
            ahead += [len(gathered) - 1 - position for position in read]
        elif instruction.kind is CollectiveKind.ALL_GATHER:
            gathered.append(instruction.target)
    assert ahead[:-2] == [2] * (len(gathered) - 2)


def test_fully_sharded_gathers_weights_for_both_passes_and_scatters_gradients() -> None:
    local = lower(PROGRAM, PLANS["fsdp"])
    gathers = {
        phase: {
            i.node
            for i in local.instructions
            if isinstance(i, Collective)
            and i.kind is CollectiveKind.ALL_GATHER
            and i.phase is phase
        }
        for phase in Phase
    }
    assert gathers[Phase.FORWARD]
    assert gathers[Phase.BACKWARD]
    assert not gathers[Phase.UPDATE]
    scatters = [
        i
        for i in local.instructions
        if isinstance(i, Collective) and i.kind is CollectiveKind.REDUCE_SCATTER
    ]
    assert len(scatters) >= len(gathers[Phase.BACKWARD])


def test_gathers_of_weights_start_one_reader_ahead() -> None:
    """Between a gather and its first reader stands the reader of the gather before it."""
    local = lower(PROGRAM, PLANS["fsdp"])
    order = [
        (n, i)
        for n, i in enumerate(local.instructions)
        if isinstance(i, Collective)
        and i.kind is CollectiveKind.ALL_GATHER
        and i.phase is Phase.FORWARD
    ]
    first_reader = {
        i.target: next(m for m, j in enumerate(local.instructions) if i.target in slots_read(j))
        for _, i in order
    }
    ahead = [first_reader[i.target] - n for n, i in order]
    assert min(ahead[2:]) >= 1
    assert sum(gap > 1 for gap in ahead) > len(ahead) // 2


def test_a_plan_for_another_program_is_refused_by_both_digests() -> None:
    other = transformer(num_layers=2, batch=8, length=8, width=16, vocabulary=16)
    with pytest.raises(MismatchError) as caught:
        validate(PLANS["ddp"], other)
    assert PROGRAM.digest in caught.value.need
    assert other.digest in caught.value.got


def test_an_edited_strategy_is_found_with_its_operator() -> None:
    plan = PLANS["ddp"]
    number = next(n for n, x in enumerate(PROGRAM.nodes) if x.op == "gelu.default")
    strategy = plan.strategies[number]
    wrong = Strategy(((-2,),), strategy.operands)
    edited = (*plan.strategies[:number], wrong, *plan.strategies[number + 1 :])
    with pytest.raises(VerifyError):
        validate(replace(plan, strategies=edited), PROGRAM)


def test_a_missing_copy_is_an_error() -> None:
    with pytest.raises(VerifyError, match="copy"):
        lower(PROGRAM, replace(PLANS["fsdp"], copies=()))


def test_experts_have_the_names_engineers_use() -> None:
    assert Degrees(dp=16, tp=4, zero=3, sp=True).name == "FSDP 16 x TP 4 + SP"


def test_what_is_kept_of_an_input_is_made_for_whoever_reads_it_first() -> None:
    builder = Builder("kept")
    weight = builder.input("w", Role.PARAMETER, TensorType(DType.F32, (4, 2)))
    x = builder.input("batch.x", Role.BATCH, TensorType(DType.F32, (4, 2)))
    loss = builder.add("sum", builder.add("mul.Tensor", x, weight), (0, 1))
    gradient = builder.add("mul.Scalar", x, 2.0, phase=Phase.BACKWARD)
    new = builder.add("add.Tensor", weight, gradient, phase=Phase.UPDATE)
    program = builder.build(loss, ((weight, new),))
    whole, rows, columns = (-1,), (0,), (1,)
    strategies = (
        Strategy(outputs=(whole,), operands=()),
        Strategy(outputs=(rows,), operands=()),
        Strategy(outputs=(whole,), operands=(whole, whole)),
        Strategy(outputs=(whole,), operands=(whole,)),
        Strategy(outputs=(columns,), operands=(columns,)),
        Strategy(outputs=(whole,), operands=(whole, whole)),
    )
    hubs = {(x, Phase.FORWARD): columns, (x, Phase.BACKWARD): columns}
    mesh = Mesh((2,))
    copies = copies_for(
        program, Decision(strategies, hubs, frozenset({x})), Resharding(MACHINE, mesh, 0.0)
    )
    plan = unpriced(
        program,
        MACHINE,
        mesh,
        strategies,
        copies,
        memory_limit_bytes=1e9,
        recompute=(),
        level=Level.FAST,
    )
    moved = [i for i in lower(program, plan).instructions if isinstance(i, Collective)]
    of_input = [i.kind for i in moved if i.node == x.node]
    assert of_input.count(CollectiveKind.ALL_TO_ALL) == 1
