"""Laws of the fit: a machine gives back the times that it was fitted to."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.core.provenance import Origin
from weft.cost.collective import collective_seconds
from weft.cost.fit import Call, Measurements, ProductTime, fit_machine
from weft.cost.fit_attention import AttentionTime
from weft.cost.roofline import CACHED_BYTES, operator_seconds
from weft.machine.topology import axis_group
from weft.machine.yaml import machine_from_text, machine_to_text
from weft.program.graph import Arg, Value
from weft.program.types import DType, TensorType

LAUNCH_S = 2e-6
SIZES = (
    *((512, 512, 512), (64, 1024, 64), (1024, 32, 256), (16, 256, 256), (256, 128, 1024)),
    *((2048, 256, 8), (2048, 256, 16)),
)
ATTENTION = ((4, 4, 128, 32), (2, 4, 512, 64), (1, 2, 1024, 128), (64, 4, 16, 8), (8, 4, 64, 16))


def product_s(
    m: int,
    k: int,
    n: int,
    *,
    rate: float = 8e10,
    width: float = 0.0,
    depth: float = 0.0,
    few: float = 0.0,
) -> float:
    lost = (1 + width / m) * (1 + width / n) * (1 + depth / k) * (1 + (few / n) ** 2)
    return LAUNCH_S + 2.0 * m * k * n * lost / rate


def products(dtype: str = "f32", **law: float) -> tuple[ProductTime, ...]:
    return tuple(
        ProductTime(dtype=dtype, rows=m, depth=k, columns=n, seconds=product_s(m, k, n, **law))
        for m, k, n in SIZES
    )


def attention(
    *, share: float, block: float, rate: float = 8e10, row_s: float = 0.0, score_s: float = 0.0
) -> tuple[AttentionTime, ...]:
    times: list[AttentionTime] = []
    for b, h, t, d in ATTENTION:
        for backward, count in ((False, 4.0), (True, 10.0)):
            full_s = b * h * t * t * (count * d / (rate * share) + score_s)
            for causal, part in ((False, 1.0), (True, min(1.0, (1 + block / t) / 2))):
                times.append(
                    AttentionTime(
                        size=(b, h, t, d),
                        causal=causal,
                        backward=backward,
                        seconds=LAUNCH_S + full_s * part + b * h * t * row_s,
                    )
                )
    return tuple(times)


FOUND = Measurements(
    name="cpu-ranks-2",
    device_name="test cpu",
    kind="cpu",
    fuses=False,
    num_ranks=2,
    source="measured in a test",
    products=products(),
    large_products=(),
    attention=(),
    operators={
        "tanh.default": ((8e3, 4e-6), (8e5, 3e-4), (8e6, 3e-3)),
        "traffic": ((1e3, 2e-6), (1e6, 3e-5), (1e7, 4e-4)),
    },
    launch_s=LAUNCH_S,
    calls=(),
    stream_bytes_per_s=3e10,
    memory_bytes=1e10,
    collectives={
        "all-reduce": ((1e3, 2e-4), (1e6, 1e-3), (1e7, 9e-3)),
        "all-gather": ((1e3, 1e-4), (1e6, 6e-4), (1e7, 5e-3)),
    },
    overlap=0.3,
)


@given(
    st.floats(1e9, 1e11),
    st.sampled_from([0.0, 4.0, 32.0]),
    st.sampled_from([0.0, 8.0, 128.0]),
    st.sampled_from([0.0, 8.0, 16.0]),
)
@settings(max_examples=20)
def test_products_that_follow_the_law_give_back_its_constants(
    rate: float, width: float, depth: float, few: float
) -> None:
    times = products(rate=rate, width=width, depth=depth, few=few)
    device = fit_machine(replace(FOUND, products=times)).groups[0].device
    assert device.matmul_flops_per_s["f32"].value == pytest.approx(rate)
    assert device.matmul_half_width is not None
    assert device.matmul_half_depth is not None
    assert device.matmul_few_columns is not None
    halves = (device.matmul_half_width.value, device.matmul_half_depth.value)
    assert (*halves, device.matmul_few_columns.value) == (width, depth, few)


def test_fitted_products_are_predicted_as_measured_and_what_they_move_beside() -> None:
    law = {"width": 16.0, "depth": 32.0, "few": 8.0}
    device = fit_machine(replace(FOUND, products=products(**law))).groups[0].device
    traffic = device.operator_curves["traffic"]
    for m, k, n in SIZES:
        types = tuple(TensorType(DType.F32, s) for s in ((m, k), (k, n), (m, n)))
        args = ("mk,kn->mn", Value(0), Value(1))
        seconds = operator_seconds("einsum", args, types[:2], types[2:], device)
        moved_s = traffic.seconds_at(4.0 * (m * k + k * n + m * n)) - traffic.seconds[0]
        assert seconds == pytest.approx(product_s(m, k, n, **law) + moved_s, rel=1e-3)


@pytest.mark.parametrize("weight", [1.0, 2.5, 4.0])
def test_large_products_give_back_what_their_bytes_weigh(weight: float) -> None:
    traffic = fit_machine(FOUND).groups[0].device.operator_curves["traffic"]

    def moved_s(m: int, k: int, n: int) -> float:
        moved = 4.0 * (m * k + k * n + m * n)
        heavy = moved + (weight - 1.0) * (moved - CACHED_BYTES)
        return traffic.seconds_at(heavy) - traffic.seconds[0]

    times = tuple(
        ProductTime(
            dtype="f32",
            rows=m,
            depth=k,
            columns=n,
            seconds=product_s(m, k, n) + moved_s(m, k, n),
        )
        for m, k, n in ((1024, 16, 8192), (8192, 1024, 64))
    )
    device = fit_machine(replace(FOUND, large_products=times)).groups[0].device
    assert device.matmul_traffic is not None
    assert device.matmul_traffic.value == weight


def test_without_large_products_bytes_weigh_what_they_do_elsewhere() -> None:
    assert fit_machine(FOUND).groups[0].device.matmul_traffic is None


def test_each_element_type_gets_its_own_rate() -> None:
    both = (*products(), *products("bf16", rate=3e11))
    rates = fit_machine(replace(FOUND, products=both)).groups[0].device.matmul_flops_per_s
    assert {t: r.value for t, r in rates.items()} == pytest.approx({"f32": 8e10, "bf16": 3e11})


@pytest.mark.parametrize(("share", "block"), [(0.5, 0.0), (0.8, 512.0), (1.0, 1024.0)])
@pytest.mark.parametrize(("row_s", "score_s"), [(0.0, 0.0), (2e-7, 0.0), (2e-7, 3e-9)])
def test_fitted_attention_is_predicted_as_measured(
    share: float, block: float, row_s: float, score_s: float
) -> None:
    times = attention(share=share, block=block, row_s=row_s, score_s=score_s)
    device = fit_machine(replace(FOUND, attention=times)).groups[0].device
    assert device.attention_share is not None
    assert device.attention_share.value == pytest.approx(share)
    assert device.attention_block is not None
    if not row_s:  # Rows are not skipped, so a tile looks larger than it is.
        assert device.attention_block.value == pytest.approx(block, abs=0.5)
    costs = {name: cost.value for name, cost in device.attention_row_s.items()}
    assert costs == pytest.approx({"attention": row_s, "attention_backward": row_s}, abs=1e-12)
    for time in times:
        q = TensorType(DType.F32, time.size)
        lse = TensorType(DType.F32, time.size[:3])
        args: tuple[Arg, ...]
        if time.backward:
            args = (*(Value(i) for i in range(6)), time.causal, 1.0)
            seconds = operator_seconds(
                "attention_backward", args, (q, q, q, q, q, lse), (q, q, q), device
            )
        else:
            args = (Value(0), Value(1), Value(2), time.causal, 1.0)
            seconds = operator_seconds("attention", args, (q, q, q), (q, lse), device)
        assert seconds == pytest.approx(time.seconds, rel=1e-2 if not row_s else 0.1)


def test_attention_does_not_outrun_products() -> None:
    device = fit_machine(replace(FOUND, attention=attention(share=3.0, block=0.0))).groups[0].device
    assert device.attention_share is not None
    assert device.attention_share.value == pytest.approx(1.0)


def test_attention_that_was_not_measured_leaves_no_figures() -> None:
    device = fit_machine(FOUND).groups[0].device
    assert (device.attention_share, device.attention_block) == (None, None)


def test_measured_operators_and_collectives_are_predicted_as_measured() -> None:
    machine = fit_machine(FOUND)
    x = TensorType(DType.F32, (1_000_000,))
    device = machine.groups[0].device
    assert operator_seconds("tanh.default", (Value(0),), (x,), (x,), device) == 3e-3
    group = axis_group(machine, (2,), 0)
    for kind, points in FOUND.collectives.items():
        for num_bytes, seconds in points:
            assert collective_seconds(kind, num_bytes, group) == pytest.approx(seconds)


def test_the_link_is_what_moved_the_largest_all_gather() -> None:
    link = fit_machine(FOUND).groups[0].link
    assert link.bytes_per_s.value == pytest.approx(1e7 / 2 / 5e-3)
    assert link.latency_s.value == pytest.approx(1e-4)


def test_a_disturbed_short_measurement_does_not_lengthen_longer_ones() -> None:
    disturbed = {"traffic": ((1e6, 3e-5), (1e3, 9e-1), (1e7, 4e-4))}
    curve = fit_machine(replace(FOUND, operators=disturbed)).groups[0].device.operator_curves
    assert curve["traffic"].seconds == (3e-5, 3e-5, 4e-4)


def test_the_vector_rate_is_that_of_transcendental_functions() -> None:
    device = fit_machine(FOUND).groups[0].device
    assert device.vector_flops_per_s.value == pytest.approx(15 * 1e5 / 3e-4)


@pytest.mark.parametrize(("overlap", "kept"), [(-0.2, 0.0), (0.3, 0.3), (1.7, 1.0)])
def test_the_overlap_is_a_share(overlap: float, kept: float) -> None:
    assert fit_machine(replace(FOUND, overlap=overlap)).overlap.value == kept


def test_one_rank_needs_no_collectives() -> None:
    machine = fit_machine(replace(FOUND, num_ranks=1, collectives={}))
    assert machine.num_devices == 1
    assert machine.groups[0].link.curves == ()


def test_every_figure_says_that_it_was_measured_and_survives_a_file() -> None:
    machine = fit_machine(FOUND)
    device = machine.groups[0].device
    for quantity in (*device.matmul_flops_per_s.values(), device.launch_s, device.memory_bytes):
        assert (quantity.origin, quantity.source) == (Origin.MEASURED, "measured in a test")
    read = machine_from_text(machine_to_text(machine), "test")
    assert (read, read.digest) == (machine, machine.digest)


def test_without_a_product_there_is_nothing_to_fit() -> None:
    with pytest.raises(InputError, match="at least one measured matrix product"):
        fit_machine(replace(FOUND, products=()))


def call(
    op: str,
    args: tuple[Arg, ...],
    operands: tuple[TensorType, ...],
    outputs: tuple[TensorType, ...],
) -> Call:
    return Call(op=op, args=args, operands=operands, outputs=outputs)


def f32(*shape: int) -> TensorType:
    return TensorType(DType.F32, shape)


def test_the_start_of_an_operator_is_what_its_call_takes_beyond_its_work() -> None:
    big = f32(512, 512)
    product = call("einsum", ("ab,bc->ac", Value(0), Value(1)), (big, big), (big,))
    tiny = f32(4, 4)
    small = call("einsum", ("ab,bc->ac", Value(0), Value(1)), (tiny, tiny), (tiny,))
    plain = fit_machine(FOUND).groups[0].device
    works = [
        operator_seconds(c.op, c.args, c.operands, c.outputs, plain) - LAUNCH_S
        for c in (product, small)
    ]
    calls = ((product, works[0] + 8e-6), (small, works[1] + 12e-6))
    device = fit_machine(replace(FOUND, calls=calls)).groups[0].device
    assert device.operator_launch_s["einsum"].value == pytest.approx(10e-6)
    assert device.operator_launch_s["einsum"].source == FOUND.source
    took = operator_seconds(small.op, small.args, small.operands, small.outputs, device)
    assert took == pytest.approx(works[1] + 10e-6)


def test_views_share_one_start() -> None:
    calls = (
        (call("view", (Value(0), (4,)), (f32(2, 2),), (f32(4),)), 2e-6),
        (call("slice", (Value(0), 0, 0, 1), (f32(2, 2),), (f32(1, 2),)), 4e-6),
    )
    device = fit_machine(replace(FOUND, calls=calls)).groups[0].device
    assert {name: q.value for name, q in device.operator_launch_s.items()} == {
        "view": pytest.approx(3e-6)
    }


def test_no_start_is_below_zero() -> None:
    big = f32(1024, 1024)
    product = call("einsum", ("ab,bc->ac", Value(0), Value(1)), (big, big), (big,))
    device = fit_machine(replace(FOUND, calls=((product, 1e-9),))).groups[0].device
    assert device.operator_launch_s["einsum"].value == 0.0
