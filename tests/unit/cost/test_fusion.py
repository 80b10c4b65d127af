"""Laws of what stays out of memory where operators fuse."""

from hypothesis import given
from hypothesis import strategies as st

from weft.cost.fusion import Step, fused_traffic, program_traffic
from weft.program.graph import Input, Node, Program, Role, Value
from weft.program.types import DType, TensorType

INPUT = (-1, 0)


def step(op: str, *reads: tuple[int, int] | int, phase: str = "forward", outputs: int = 1) -> Step:
    pairs = tuple((r, 0) if isinstance(r, int) else r for r in reads)
    return Step(op, phase, pairs, outputs)


def test_a_chain_of_pointwise_operators_reads_once_and_writes_once() -> None:
    steps = [step("exp.default", INPUT), step("neg.default", 0), step("tanh.default", 1)]
    paid = fused_traffic(steps, kept={(2, 0)})
    assert [p.reads for p in paid] == [(True,), (False,), (False,)]
    assert [p.writes for p in paid] == [(False,), (False,), (True,)]


def test_matrix_products_read_and_write_everything() -> None:
    steps = [
        step("exp.default", INPUT),
        step("einsum", 0, INPUT),
        step("exp.default", 1),
    ]
    paid = fused_traffic(steps, kept={(2, 0)})
    assert [p.reads for p in paid] == [(True,), (True, True), (True,)]
    assert [p.writes for p in paid] == [(True,), (True,), (True,)]


def test_a_residual_is_written_for_the_reader_behind_a_product() -> None:
    steps = [
        step("add.Tensor", INPUT, (-1, 1)),  # the residual stream
        step("neg.default", 0),  # read at once: the same kernel
        step("einsum", 1, (-1, 2)),
        step("add.Tensor", 0, 2),  # read again behind the product: another kernel
    ]
    paid = fused_traffic(steps, kept={(3, 0)})
    assert paid[0].writes == (True,)
    assert paid[1].reads == (False,)
    assert paid[3].reads == (True, True)


def test_what_backward_reads_is_written_by_forward() -> None:
    steps = [
        step("exp.default", INPUT),
        step("neg.default", 0),
        step("mul.Tensor", 0, (-1, 1), phase="backward"),
    ]
    paid = fused_traffic(steps, kept={(1, 0), (2, 0)})
    assert paid[0].writes == (True,)
    assert paid[2].reads == (True, True)


def test_a_normalisation_in_parts_is_one_kernel_that_loads_its_input_once() -> None:
    steps = [
        step("mul.Tensor", INPUT, INPUT),
        step("sum", 0),
        step("rsqrt.default", 1),
        step("mul.Tensor", INPUT, 2),
    ]
    paid = fused_traffic(steps, kept={(3, 0)})
    assert [p.writes for p in paid] == [(False,), (False,), (False,), (True,)]
    assert paid[3].reads[1] is False


def test_a_tensor_read_by_two_operators_of_a_kernel_is_loaded_once() -> None:
    steps = [
        step("einsum", INPUT, INPUT),
        step("exp.default", 0),
        step("neg.default", 0),
        step("add.Tensor", 1, 2),
    ]
    paid = fused_traffic(steps, kept={(3, 0)})
    assert sum(p.reads.count(True) for p in paid[1:]) == 1


def test_forward_and_backward_do_not_share_a_load() -> None:
    steps = [
        step("einsum", INPUT, INPUT),
        step("exp.default", 0),
        step("neg.default", 0, phase="backward"),
    ]
    paid = fused_traffic(steps, kept={(1, 0), (2, 0)})
    assert (paid[1].reads, paid[2].reads) == ((True,), (True,))


def test_collectives_are_kernels_of_their_own() -> None:
    steps = [step("exp.default", INPUT), step("all-reduce", 0), step("neg.default", 1)]
    paid = fused_traffic(steps, kept={(2, 0)})
    assert all(p.reads == (True,) and p.writes == (True,) for p in paid)


def test_views_pay_nothing_and_pass_on_what_they_view() -> None:
    steps = [
        step("exp.default", INPUT),
        step("view", 0),
        step("permute", 1),
        step("neg.default", 2),
        step("einsum", 2, 3),
    ]
    paid = fused_traffic(steps)
    assert paid[1].reads == paid[2].reads == (False,)
    assert paid[1].writes == paid[2].writes == (False,)
    assert paid[3].reads == (False,)
    assert paid[0].writes == (True,)  # the product reads it through both views


def test_a_kept_view_keeps_what_it_views() -> None:
    steps = [step("exp.default", INPUT), step("view", 0)]
    assert fused_traffic(steps, kept={(1, 0)})[0].writes == (True,)


def test_each_output_is_written_for_its_own_readers() -> None:
    steps = [
        step("native_layer_norm.default", INPUT, outputs=3),
        step("exp.default", (0, 0)),
        step("neg.default", (0, 2), phase="backward"),
    ]
    paid = fused_traffic(steps, kept={(1, 0), (2, 0)})
    assert paid[0].writes == (False, False, True)


OPS = ("exp.default", "view", "sum", "einsum", "embedding.default", "all-gather")


@st.composite
def step_lists(draw: st.DrawFn) -> list[Step]:
    steps: list[Step] = []
    for i in range(draw(st.integers(1, 10))):
        op = draw(st.sampled_from(OPS))
        reads = draw(st.lists(st.integers(-1, i - 1), min_size=1, max_size=2))
        phase = "forward" if i < 5 else "backward"
        steps.append(step(op, *(reads[:1] if op == "view" else reads), phase=phase))
    return steps


@given(step_lists())
def test_whatever_is_loaded_was_written(steps: list[Step]) -> None:
    paid = fused_traffic(steps)
    roots = {}
    for i, s in enumerate(steps):
        if s.op == "view":
            roots[i] = roots.get(s.reads[0][0], s.reads[0][0])
    for s, p in zip(steps, paid, strict=True):
        for (producer, _), pays in zip(s.reads, p.reads, strict=True):
            source = roots.get(producer, producer)
            if pays and source >= 0:
                assert paid[source].writes == (True,)


@given(step_lists())
def test_a_tensor_in_registers_never_crosses_a_kernel_boundary(steps: list[Step]) -> None:
    paid = fused_traffic(steps)
    for s, p in zip(steps, paid, strict=True):
        if s.op in ("einsum", "embedding.default", "all-gather"):
            assert all(p.reads) and all(p.writes)


def test_a_program_keeps_its_loss_and_its_updates() -> None:
    x = TensorType(DType.F32, (4,))
    scalar = TensorType(DType.F32, ())
    program = Program(
        name="p",
        nodes=(
            Node(op="input", args=("w",), outputs=(x,)),
            Node(op="exp.default", args=(Value(0),), outputs=(x,)),
            Node(op="sum", args=(Value(1), (0,), False), outputs=(scalar,)),
        ),
        inputs=(Input(name="w", role=Role.PARAMETER, node=0),),
        loss=Value(2),
        updates=((0, Value(1)),),
    )
    paid = program_traffic(program)
    assert (paid[1].writes, paid[2].writes) == ((True,), (True,))
    assert (paid[1].reads, paid[2].reads) == ((True,), (False,))
