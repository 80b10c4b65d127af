"""Where a collective goes that reads what another one made."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from weft.parallel.chained import put_off_chained
from weft.parallel.local import Collective, CollectiveKind, Instruction, LocalProgram, Run
from weft.parallel.placement import Mesh
from weft.parallel.plan import Strategy
from weft.parallel.prefetch import slots_read, slots_written
from weft.program.graph import Phase, Value
from weft.program.types import DType, TensorType

SMALL, LARGE = (8,), (2**20,)
REDUCE, GATHER = CollectiveKind.REDUCE_SCATTER, CollectiveKind.ALL_GATHER


def run(reads: Sequence[int], writes: int, phase: Phase = Phase.BACKWARD) -> Run:
    return Run(
        node=writes,
        op="add.Tensor",
        args=tuple(map(Value, reads)),
        outputs=(writes,),
        strategy=Strategy(operands=((-1,),) * len(reads), outputs=((-1,),)),
        phase=phase,
    )


def send(
    source: int, target: int, kind: CollectiveKind = REDUCE, phase: Phase = Phase.UPDATE
) -> Collective:
    return Collective(kind=kind, axis=0, source=source, target=target, node=source, phase=phase)


def program(instructions: Sequence[Instruction], shape: tuple[int, ...] = LARGE) -> LocalProgram:
    slots = 1 + max(slot for i in instructions for slot in slots_written(i))
    return LocalProgram(
        mesh=Mesh((2,)),
        slots=(TensorType(DType.F32, shape),) * slots,
        inputs=(),
        instructions=tuple(instructions),
        last_use=(),
        loss=slots - 1,
        updates=(),
    )


def order(instructions: Sequence[Instruction], shape: tuple[int, ...] = LARGE) -> list[int]:
    """The slots that instructions write, in their new order."""
    put_off = put_off_chained(program(instructions, shape))
    return [slot for i in put_off.instructions for slot in slots_written(i)]


TWO_GRADIENTS = (
    *(run((0,), 1), send(1, 2), send(2, 3, GATHER)),
    *(run((0,), 4), send(4, 5), send(5, 6, GATHER)),
    run((0,), 7),
    run((3,), 8, Phase.UPDATE),
    run((6,), 9, Phase.UPDATE),
)
"""Each is scattered, then gathered, as the lowering puts it."""


def test_a_large_gather_waits_until_the_next_collective_is_under_way() -> None:
    assert order(TWO_GRADIENTS) == [1, 2, 4, 5, 3, 7, 6, 8, 9]


def test_small_gathers_of_the_update_stand_together_in_front_of_it() -> None:
    assert order(TWO_GRADIENTS, SMALL) == [1, 2, 4, 5, 7, 3, 6, 8, 9]


def test_a_small_one_that_is_no_update_does_not_wait_for_others() -> None:
    forward = [
        *(send(0, 1, GATHER, Phase.FORWARD), send(1, 2, GATHER, Phase.FORWARD)),
        *(run((0,), 3, Phase.FORWARD), send(0, 4, GATHER, Phase.FORWARD)),
        *(run((0,), 5, Phase.FORWARD), run((2, 4), 6, Phase.FORWARD)),
    ]
    assert order(forward, SMALL) == [1, 3, 4, 2, 5, 6]


def test_nobody_waits_longer_than_to_the_first_reader() -> None:
    read_at_once = [send(0, 1), send(1, 2, GATHER), run((2,), 3), send(0, 4)]
    assert order(read_at_once) == [1, 2, 3, 4]


def test_hops_of_a_copy_are_put_off_one_after_the_other() -> None:
    three = [send(0, 1), send(1, 2), send(2, 3), send(0, 4), send(0, 5), run((3,), 6)]
    assert order(three) == [1, 4, 2, 5, 3, 6]


def test_a_part_taken_of_what_came_waits_for_it() -> None:
    part = send(1, 2, CollectiveKind.SLICE)
    assert order([send(0, 1), part, send(0, 3)]) == [1, 2, 3]


def test_a_result_that_nobody_reads_comes_all_the_same() -> None:
    assert order([send(0, 1), send(1, 2), run((0,), 3)]) == [1, 3, 2]


@st.composite
def programs(draw: st.DrawFn) -> list[Instruction]:
    """Programs in which everything reads what is there; phases come in their order."""
    instructions: list[Instruction] = []
    phases = sorted(
        draw(st.lists(st.sampled_from(list(Phase)), min_size=1, max_size=20)), key=list(Phase).index
    )
    kinds = st.sampled_from([None, REDUCE, GATHER, CollectiveKind.SLICE])
    for target, phase in enumerate(phases, start=1):
        source, kind = draw(st.integers(0, target - 1)), draw(kinds)
        instructions.append(
            run((source,), target, phase) if kind is None else send(source, target, kind, phase)
        )
    return instructions


@given(programs(), st.sampled_from([SMALL, LARGE]))
def test_everything_is_done_once_and_after_what_it_reads(
    instructions: list[Instruction], shape: tuple[int, ...]
) -> None:
    put_off = put_off_chained(program(instructions, shape)).instructions
    assert sorted(map(instructions.index, put_off)) == list(range(len(instructions)))
    known = {0}
    for instruction in put_off:
        assert known.issuperset(slots_read(instruction))
        known.update(slots_written(instruction))


@given(programs(), st.sampled_from([SMALL, LARGE]))
def test_what_waits_for_no_collective_keeps_its_order(
    instructions: list[Instruction], shape: tuple[int, ...]
) -> None:
    received = {i.target for i in instructions if is_sent(i)}
    kept = [i for i in instructions if not (is_sent(i) and i.source in received)]
    put_off = put_off_chained(program(instructions, shape)).instructions
    assert [i for i in put_off if i in kept] == kept


def is_sent(instruction: Instruction) -> bool:
    return isinstance(instruction, Collective) and instruction.kind is not CollectiveKind.SLICE
