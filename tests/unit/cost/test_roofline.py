"""Laws of the time of one operator."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError, VerifyError
from weft.core.provenance import Quantity, derived
from weft.cost.fusion import Paid
from weft.cost.roofline import (
    CACHED_BYTES,
    COLUMN_SUM,
    TRAFFIC,
    measured_size_bytes,
    operator_seconds,
)
from weft.machine.curve import Curve
from weft.machine.model import Device
from weft.machine.presets import preset
from weft.program.graph import Arg, Value
from weft.program.types import DType, TensorType


def figure(value: float) -> Quantity:
    return derived(value, "test", "test")


PLAIN = Device(
    name="plain",
    kind="cpu",
    matmul_flops_per_s={"f32": figure(1e12), "bf16": figure(4e12)},
    vector_flops_per_s=figure(1e11),
    memory_bytes=figure(1e9),
    memory_bytes_per_s=figure(1e10),
    launch_s=figure(1e-6),
    fuses=False,
)
H100 = preset("dgx-h100x1").groups[0].device

sizes = st.integers(1, 4096)


def f32(*shape: int) -> TensorType:
    return TensorType(DType.F32, shape)


def product(device: Device, m: int, k: int, n: int, dtype: DType = DType.F32) -> float:
    a, b, c = (TensorType(dtype, shape) for shape in ((m, k), (k, n), (m, n)))
    args = ("mk,kn->mn", Value(0), Value(1))
    return operator_seconds("einsum", args, (a, b), (c,), device)


def pointwise(device: Device, op: str, x: TensorType, paid: Paid | None = None) -> float:
    return operator_seconds(op, (Value(0),), (x,), (x,), device, paid)


def attention(device: Device, size: tuple[int, int, int, int], *, causal: bool = False) -> float:
    q, lse = f32(*size), f32(*size[:3])
    args: tuple[Arg, ...] = (Value(0), Value(1), Value(2), causal, 1.0)
    return operator_seconds("attention", args, (q, q, q), (q, lse), device)


def test_a_large_product_runs_at_the_full_rate() -> None:
    flops = 2.0 * 4096**3
    assert product(PLAIN, 4096, 4096, 4096) == pytest.approx(1e-6 + flops / 1e12)
    assert product(PLAIN, 4096, 4096, 4096, DType.BF16) == pytest.approx(1e-6 + flops / 4e12)


def test_a_thin_product_is_as_slow_as_its_memory() -> None:
    num_bytes = 4.0 * (4096 * 4096 + 2 * 4096)
    assert product(PLAIN, 1, 4096, 4096) == pytest.approx(1e-6 + num_bytes / 1e10)


@given(sizes, sizes, sizes)
def test_half_sizes_slow_small_products_by_their_law(m: int, k: int, n: int) -> None:
    fast = replace(PLAIN, memory_bytes_per_s=figure(1e30), launch_s=figure(0.0))
    slow = replace(fast, matmul_half_width=figure(32.0), matmul_half_depth=figure(128.0))
    factor = (1 + 32 / m) * (1 + 32 / n) * (1 + 128 / k)
    assert product(slow, m, k, n) == pytest.approx(product(fast, m, k, n) * factor)


def test_splitting_a_product_never_more_than_halves_its_time() -> None:
    for m, k, n in ((4096, 4096, 4096), (8192, 512, 512), (256, 256, 256)):
        assert product(H100, m, k, n, DType.BF16) / 2 <= product(H100, m // 2, k, n, DType.BF16)


def test_letters_of_a_batch_do_not_count_as_rows() -> None:
    device = replace(PLAIN, matmul_half_width=figure(64.0), launch_s=figure(0.0))
    args = ("bmk,bkn->bmn", Value(0), Value(1))
    x = f32(16, 512, 512)
    batched = operator_seconds("einsum", args, (x, x), (x,), device)
    assert batched == pytest.approx(16 * product(device, 512, 512, 512))


def test_an_element_type_without_rate_names_those_there_are() -> None:
    with pytest.raises(InputError, match="f32, bf16") as caught:
        product(PLAIN, 4, 4, 4, DType.F64)
    assert "f64" in caught.value.need


@given(st.integers(1, 10**9))
def test_pointwise_time_is_the_larger_of_arithmetic_and_memory(n: int) -> None:
    assert pointwise(PLAIN, "neg.default", f32(n)) == pytest.approx(1e-6 + 8 * n / 1e10)
    # Twenty operations an element at 1e11 a second are slower than eight bytes at 1e10.
    slow_memory = replace(PLAIN, memory_bytes_per_s=figure(1e12))
    assert pointwise(slow_memory, "erf.default", f32(n)) == pytest.approx(1e-6 + 20 * n / 1e11)


@pytest.mark.parametrize("op", ["view", "permute", "expand"])
def test_views_are_free(op: str) -> None:
    assert operator_seconds(op, (Value(0), (4,)), (f32(4),), (f32(4),), PLAIN) == 0.0


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(VerifyError, match="frobnicate"):
        pointwise(PLAIN, "frobnicate", f32(4))


CURVE = Curve(sizes_bytes=(8e3, 8e6), seconds=(1e-3, 1.0), source="test")


def measured(**curves: Curve) -> Device:
    names = {"exp": "exp.default", "traffic": TRAFFIC}
    return replace(PLAIN, operator_curves={names[k]: c for k, c in curves.items()})


def test_a_measured_operator_takes_its_curve() -> None:
    device = measured(exp=CURVE)
    assert pointwise(device, "exp.default", f32(1_000_000)) == pytest.approx(1.0)
    assert pointwise(device, "neg.default", f32(1_000_000)) == pytest.approx(1e-6 + 8e6 / 1e10)


def test_curves_count_narrow_types_as_f32_and_wide_ones_twice() -> None:
    device = measured(exp=CURVE)
    full = pointwise(device, "exp.default", f32(500_000))
    for dtype, factor in ((DType.BF16, 1.0), (DType.F16, 1.0), (DType.F64, 2.0)):
        seconds = pointwise(device, "exp.default", TensorType(dtype, (500_000,)))
        assert seconds == pytest.approx(full * factor, rel=1e-2)


def test_operators_that_were_not_measured_take_the_traffic_curve_or_their_arithmetic() -> None:
    device = measured(traffic=CURVE)
    assert pointwise(device, "neg.default", f32(1_000_000)) == pytest.approx(1.0)
    quick = measured(traffic=replace(CURVE, seconds=(1e-9, 1e-8)))
    assert pointwise(quick, "neg.default", f32(1_000_000)) == pytest.approx(1e-6 + 1e6 / 1e11)


def test_products_take_their_arithmetic_and_what_they_move_but_on_a_device_that_fuses() -> None:
    device, computed_s = measured(traffic=CURVE), 1e-6 + 2 * 512**3 / 1e12
    moved_s = CURVE.seconds_at(12.0 * 512**2) - CURVE.seconds[0]
    assert product(device, 512, 512, 512) == pytest.approx(computed_s + moved_s)
    fused = replace(device, fuses=True)
    assert product(fused, 512, 512, 512) == pytest.approx(max(computed_s, moved_s + 1e-3))


def test_bytes_of_products_weigh_more_where_a_device_says_so() -> None:
    plain, heavy = (
        measured(traffic=CURVE),
        replace(measured(traffic=CURVE), matmul_traffic=figure(2.5)),
    )
    moved = 12.0 * 2048**2
    moved_s = CURVE.seconds_at(moved + 1.5 * (moved - CACHED_BYTES)) - CURVE.seconds_at(moved)
    more_s = product(heavy, 2048, 2048, 2048) - product(plain, 2048, 2048, 2048)
    assert more_s == pytest.approx(moved_s)
    assert product(heavy, 512, 512, 512) == product(plain, 512, 512, 512)
    x = f32(1000)
    assert pointwise(heavy, "neg.default", x) == pointwise(plain, "neg.default", x)
    fused = replace(heavy, fuses=True)
    assert product(fused, 2048, 2048, 2048) == product(replace(plain, fuses=True), *(2048,) * 3)


@pytest.mark.parametrize(("dims", "name"), [((0,), COLUMN_SUM), ((1,), "sum"), ((0, 1), "sum")])
def test_a_sum_that_adds_rows_has_a_curve_of_its_own(dims: tuple[int, ...], name: str) -> None:
    curves = {key: replace(CURVE, seconds=(s, s)) for key, s in (("sum", 1.0), (COLUMN_SUM, 2.0))}
    device = replace(PLAIN, operator_curves=curves)
    made = f32(*(n for d, n in enumerate((64, 32)) if d not in dims))

    def seconds(own: Device) -> float:
        return operator_seconds("sum", (Value(0), dims), (f32(64, 32),), (made,), own)

    assert seconds(device) == curves[name].seconds[0]
    assert seconds(replace(PLAIN, operator_curves={"sum": curves["sum"]})) == 1.0


def test_a_curve_is_read_at_the_size_at_which_it_is_measured() -> None:
    x = f32(1000)
    size = measured_size_bytes("exp.default", (Value(0),), (x,), (x,))
    curve = Curve(sizes_bytes=(size / 2, size, size * 2), seconds=(1.0, 5.0, 9.0), source="test")
    assert pointwise(measured(exp=curve), "exp.default", x) == pytest.approx(5.0)


FREE = Paid(reads=(False,), writes=(False,))


def test_a_device_that_fuses_pays_only_for_what_reaches_memory() -> None:
    device = replace(PLAIN, fuses=True, vector_flops_per_s=figure(1e30))
    x = f32(1_000_000)
    both = pointwise(device, "neg.default", x)
    reads = pointwise(device, "neg.default", x, Paid(reads=(True,), writes=(False,)))
    writes = pointwise(device, "neg.default", x, Paid(reads=(False,), writes=(True,)))
    # Launch goes to the operator that writes.
    assert both == pytest.approx(1e-6 + 8e6 / 1e10)
    assert reads == pytest.approx(4e6 / 1e10)
    assert writes == pytest.approx(1e-6 + 4e6 / 1e10)
    assert pointwise(device, "neg.default", x, FREE) == pytest.approx(0.0, abs=1e-12)


def test_arithmetic_is_paid_for_in_registers_too() -> None:
    device = replace(PLAIN, fuses=True)
    assert pointwise(device, "erf.default", f32(10**6), FREE) == pytest.approx(20e6 / 1e11)


def test_a_device_that_does_not_fuse_takes_no_notice() -> None:
    assert pointwise(PLAIN, "neg.default", f32(64), FREE) == pointwise(
        PLAIN, "neg.default", f32(64)
    )


SHARED = replace(PLAIN, attention_share=figure(0.5), memory_bytes_per_s=figure(1e30))


def test_attention_runs_at_its_share_of_the_product_rate() -> None:
    size = (2, 8, 1024, 128)
    flops = 4.0 * 2 * 8 * 1024 * 1024 * 128
    assert attention(SHARED, size) == pytest.approx(1e-6 + flops / 0.5e12)


def test_causal_attention_skips_whole_tiles_only() -> None:
    size = (1, 1, 4096, 128)
    launch = 1e-6
    full = attention(SHARED, size) - launch
    for block, computed in ((0.0, 0.5), (1024.0, 0.625), (4096.0, 1.0), (9999.0, 1.0)):
        device = replace(SHARED, attention_block=figure(block))
        causal = attention(device, size, causal=True) - launch
        assert causal == pytest.approx(full * computed)


def test_narrow_heads_and_short_sequences_reach_less() -> None:
    device = replace(SHARED, matmul_half_width=figure(16.0), launch_s=figure(0.0))

    def per_flop(size: tuple[int, int, int, int]) -> float:
        return attention(device, size) / (size[2] ** 2 * size[3])

    assert per_flop((1, 1, 1024, 32)) > per_flop((1, 1, 1024, 64)) > per_flop((1, 1, 1024, 128))
    assert per_flop((1, 1, 64, 64)) > per_flop((1, 1, 512, 64))


def test_backward_attention_is_two_and_a_half_forwards() -> None:
    size = (2, 4, 512, 64)
    q, lse = f32(*size), f32(*size[:3])
    args = (*(Value(i) for i in range(6)), False, 1.0)
    backward = operator_seconds("attention_backward", args, (q, q, q, q, q, lse), (q, q, q), SHARED)
    assert backward - 1e-6 == pytest.approx(2.5 * (attention(SHARED, size) - 1e-6))


def convolution(device: Device, places: int) -> float:
    x, w = f32(1, 64, places, 1), f32(64, 64, 1, 1)
    args = (Value(0), Value(1), None, (1, 1), (0, 0), (1, 1), False, (0, 0), 1)
    return operator_seconds("convolution.default", args, (x, w), (x,), device)


def test_a_convolution_of_one_place_a_weight_is_a_product() -> None:
    device = replace(PLAIN, matmul_half_width=figure(32.0), matmul_half_depth=figure(64.0))
    assert convolution(device, 4096) == pytest.approx(product(device, 4096, 64, 64))


@pytest.mark.parametrize("name", ["dgx-a100x1", "dgx-h100x1", "dgx-h200x1"])
def test_a_transformer_layer_reaches_a_plausible_share_of_the_peak(name: str) -> None:
    device = preset(name).groups[0].device
    rate = device.matmul_flops_per_s["bf16"].value
    reached = 2.0 * 8192**3 / product(device, 8192, 8192, 8192, DType.BF16)
    assert 0.9 * rate < reached <= rate
    small = 2.0 * 256**3 / product(device, 256, 256, 256, DType.BF16)
    assert small < 0.1 * rate


def test_an_operator_in_anothers_kernel_is_charged_no_launch_by_a_curve_either() -> None:
    # The first point of a curve is a launch of 5 us; 1 MB takes 10 us more.
    curve = Curve(sizes_bytes=(1e3, 1.001e6), seconds=(5e-6, 15e-6), source="test")
    x = f32(250_000)
    inside = Paid(reads=(False,), writes=(False,))
    reads = Paid(reads=(True,), writes=(False,))
    for curves in ({"neg.default": curve}, {TRAFFIC: curve}):
        device = replace(PLAIN, fuses=True, operator_curves=curves)
        alone = pointwise(device, "neg.default", x)
        assert alone > 15e-6
        compute_s = 250_000 / 1e11
        assert pointwise(device, "neg.default", x, inside) == pytest.approx(compute_s)
        read_s = 10e-6 * (1e6 - 1e3) / 1e6
        assert pointwise(device, "neg.default", x, reads) == pytest.approx(read_s)


CALLED = replace(PLAIN, operator_launch_s={"einsum": figure(1e-5), "view": figure(3e-6)})


def test_an_operator_with_a_start_of_its_own_takes_that_one() -> None:
    assert product(CALLED, 64, 64, 64) == pytest.approx(product(PLAIN, 64, 64, 64) + 9e-6)
    assert pointwise(CALLED, "neg.default", f32(8)) == pointwise(PLAIN, "neg.default", f32(8))


@pytest.mark.parametrize(
    ("op", "args"), [("view", ((4, 2),)), ("permute", ((1, 0),)), ("slice", (0, 0, 2))]
)
def test_the_call_of_a_view_takes_time_where_that_was_measured(
    op: str, args: tuple[Arg, ...]
) -> None:
    def took(device: Device) -> float:
        return operator_seconds(op, (Value(0), *args), (f32(2, 4),), (f32(4, 2),), device)

    assert took(CALLED) == 3e-6
    assert took(PLAIN) == 0.0
    # A compiler leaves no call of it.
    assert took(replace(CALLED, fuses=True)) == 0.0


def test_an_input_is_no_call() -> None:
    assert operator_seconds("input", ("x",), (), (f32(8),), CALLED) == 0.0
