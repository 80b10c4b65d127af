"""Laws of the time of collectives."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.core.provenance import derived
from weft.cost.collective import collective_seconds
from weft.machine.curve import Curve
from weft.machine.model import COLLECTIVES, CollectiveCurve, Link
from weft.machine.topology import Group

kinds = st.sampled_from(COLLECTIVES)
payloads = st.floats(0.0, 1e12)
counts = st.integers(1, 64)


def link(bytes_per_s: float, latency_s: float, curves: tuple[CollectiveCurve, ...] = ()) -> Link:
    return Link(
        bytes_per_s=derived(bytes_per_s, "B/s", "test"),
        latency_s=derived(latency_s, "s", "test"),
        curves=curves,
    )


FAST = link(3.6e11, 2e-6)
SLOW = link(4.25e10, 4e-6)
PURE = link(1e9, 0.0)


def pair(inside: int, across: int) -> Group:
    return Group(sizes=(inside, across), links=(FAST, SLOW))


groups = st.builds(pair, counts, counts)


@given(payloads, groups)
def test_all_reduce_is_reduce_scatter_then_all_gather(payload: float, group: Group) -> None:
    both = sum(collective_seconds(k, payload, group) for k in ("reduce-scatter", "all-gather"))
    assert collective_seconds("all-reduce", payload, group) == pytest.approx(both)


@given(kinds, payloads, payloads, groups)
def test_time_grows_with_bytes(kind: str, a: float, b: float, group: Group) -> None:
    small, large = sorted((a, b))
    assert collective_seconds(kind, small, group) <= collective_seconds(kind, large, group)


@given(kinds, payloads)
def test_one_device_sends_nothing(kind: str, payload: float) -> None:
    assert collective_seconds(kind, payload, pair(1, 1)) == 0.0


@given(st.integers(2, 64), st.floats(1.0, 1e12))
def test_without_latency_each_device_sends_what_the_others_lack(n: int, payload: float) -> None:
    group = Group(sizes=(n,), links=(PURE,))
    gathered = payload * (n - 1) / n / 1e9
    assert collective_seconds("all-gather", payload, group) == pytest.approx(gathered)
    assert collective_seconds("reduce-scatter", payload, group) == pytest.approx(gathered)
    assert collective_seconds("all-reduce", payload, group) == pytest.approx(2 * gathered)
    exchanged = gathered / n
    assert collective_seconds("all-to-all", payload, group) == pytest.approx(exchanged)


@given(st.integers(2, 64))
def test_without_bytes_a_collective_pays_for_its_logarithm(n: int) -> None:
    group = Group(sizes=(n,), links=(link(1e9, 1.0),))
    rounds = math.ceil(math.log2(n))
    assert collective_seconds("all-gather", 0.0, group) == rounds
    assert collective_seconds("reduce-scatter", 0.0, group) == rounds
    assert collective_seconds("all-reduce", 0.0, group) == 2 * rounds
    assert collective_seconds("all-to-all", 0.0, group) == rounds


@given(kinds, payloads, st.integers(1, 200), st.sampled_from([FAST, SLOW, PURE]))
def test_time_never_falls_as_devices_join(kind: str, held: float, n: int, way: Link) -> None:
    def seconds(size: int) -> float:
        # Of an all-to-all what each device holds stays as it is, of the others the whole tensor.
        payload = held * size if kind == "all-to-all" else held
        return collective_seconds(kind, payload, Group(sizes=(size,), links=(way,)))

    assert seconds(n) <= seconds(n + 1) * (1 + 1e-12)


def test_seven_devices_reduce_a_small_tensor_as_fast_as_eight() -> None:
    seven, eight = (collective_seconds("all-reduce", 1e3, pair(n, 1)) for n in (7, 8))
    assert seven == pytest.approx(eight, rel=1e-3)


@pytest.mark.parametrize("payload", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("kind", COLLECTIVES)
def test_a_payload_that_is_no_size_is_refused(kind: str, payload: float) -> None:
    with pytest.raises(InputError, match="finite payload"):
        collective_seconds(kind, payload, pair(8, 1))


@given(kinds, st.floats(1.0, 1e12), st.sampled_from([2, 4, 8, 16]))
def test_crossing_a_node_never_costs_less(kind: str, payload: float, n: int) -> None:
    inside = collective_seconds(kind, payload, pair(n, 1))
    for half in (1, 2, n // 2):
        assert collective_seconds(kind, payload, pair(n // half, half)) >= inside * (1 - 1e-12)
    assert collective_seconds(kind, payload, pair(1, n)) >= inside


@given(st.floats(1e6, 1e12))
def test_nodes_reduce_before_the_network_carries(payload: float) -> None:
    flat = collective_seconds("all-reduce", payload, pair(1, 64))
    nested = collective_seconds("all-reduce", payload, pair(8, 8))
    assert nested < flat
    # Between nodes each device moves the eighth that it owns.
    across = 2 * payload / 8 * 7 / 8 / 4.25e10
    assert nested > across


def test_two_levels_add_up_by_hand() -> None:
    payload = 8e9
    group = Group(sizes=(4, 2), links=(PURE, link(1e8, 0.0)))
    # 3/4 of 8 GB at 1 GB/s, then half of the own 2 GB at 0.1 GB/s.
    assert collective_seconds("reduce-scatter", payload, group) == pytest.approx(6.0 + 10.0)
    # Each of 8 devices holds 1 GB: 3/4 of it to neighbours, then half of it between nodes.
    assert collective_seconds("all-to-all", payload, group) == pytest.approx(0.75 + 5.0)


@given(kinds, st.floats(1.0, 1e9), st.integers(2, 16))
def test_the_order_of_empty_levels_does_not_matter(kind: str, payload: float, n: int) -> None:
    alone = Group(sizes=(n,), links=(SLOW,))
    nested = Group(sizes=(1, n, 1), links=(FAST, SLOW, FAST))
    assert collective_seconds(kind, payload, nested) == collective_seconds(kind, payload, alone)


def measured(kind: str, num_devices: int, *points: tuple[float, float]) -> CollectiveCurve:
    sizes, seconds = zip(*points, strict=True)
    curve = Curve(sizes_bytes=sizes, seconds=seconds, source="test")
    return CollectiveCurve(collective=kind, num_devices=num_devices, curve=curve)


def test_a_measured_curve_wins_over_the_model_for_its_collective_only() -> None:
    curve = measured("all-reduce", 2, (1e3, 0.5), (1e6, 0.7))
    group = Group(sizes=(2,), links=(link(1e9, 0.0, (curve,)),))
    assert collective_seconds("all-reduce", 1e6, group) == pytest.approx(0.7)
    assert collective_seconds("all-gather", 1e6, group) == pytest.approx(0.5e-3)


def test_a_curve_of_another_size_is_scaled_as_the_model_scales() -> None:
    curve = measured("all-gather", 2, (1e3, 3e-6), (1e9, 3.0))
    group = Group(sizes=(4,), links=(link(1e9, 0.0, (curve,)),))
    # The model moves 1/2 of the payload between two devices and 3/4 among four.
    assert collective_seconds("all-gather", 1e9, group) == pytest.approx(4.5)


def test_of_several_curves_the_nearest_size_counts() -> None:
    curves = (
        measured("all-reduce", 2, (1.0, 1.0)),
        measured("all-reduce", 4, (1.0, 4.0)),
    )
    group = Group(sizes=(4,), links=(link(1e9, 0.0, curves),))
    assert collective_seconds("all-reduce", 1.0, group) == pytest.approx(4.0)


@given(kinds, payloads, groups)
def test_times_are_finite(kind: str, payload: float, group: Group) -> None:
    assert math.isfinite(collective_seconds(kind, payload, group))


def test_negative_payload_names_the_value() -> None:
    with pytest.raises(InputError, match="-5"):
        collective_seconds("all-reduce", -5.0, pair(2, 1))


def test_an_unknown_collective_names_those_there_are() -> None:
    with pytest.raises(InputError, match="all-reduce, all-gather, reduce-scatter, all-to-all"):
        collective_seconds("broadcast", 1.0, pair(2, 1))
