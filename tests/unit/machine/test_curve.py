"""Laws of measured curves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.machine.curve import Curve


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    steps = draw(st.lists(st.floats(1.0, 1e6), min_size=1, max_size=6))
    rises = draw(st.lists(st.floats(0.0, 1.0), min_size=len(steps), max_size=len(steps)))
    sizes = tuple(sum(steps[: i + 1]) for i in range(len(steps)))
    seconds = tuple(1e-6 + sum(rises[: i + 1]) for i in range(len(steps)))
    return Curve(sizes_bytes=sizes, seconds=seconds, source="test")


@given(curves())
def test_a_curve_passes_through_its_points(curve: Curve) -> None:
    for size, seconds in zip(curve.sizes_bytes, curve.seconds, strict=True):
        assert curve.seconds_at(size) == pytest.approx(seconds, rel=1e-9)


@given(curves(), st.floats(0.0, 1e8), st.floats(0.0, 1e8))
def test_more_bytes_never_take_less_time(curve: Curve, a: float, b: float) -> None:
    small, large = sorted((a, b))
    assert curve.seconds_at(small) <= curve.seconds_at(large) * (1 + 1e-12)


def test_between_two_points_latency_plus_bandwidth_is_exact() -> None:
    def law(num_bytes: float) -> float:
        return 1e-4 + num_bytes / 1e9

    sizes = (1e3, 1e5, 1e7)
    curve = Curve(sizes_bytes=sizes, seconds=tuple(map(law, sizes)), source="test")
    for size in (2e3, 5e4, 3e6):
        assert curve.seconds_at(size) == pytest.approx(law(size))


def test_above_the_last_point_the_last_rate_goes_on() -> None:
    curve = Curve(sizes_bytes=(1.0, 4.0), seconds=(1.0, 8.0), source="test")
    assert curve.seconds_at(40.0) == pytest.approx(80.0)


@pytest.mark.parametrize(
    ("sizes", "seconds", "source"),
    [
        ((), (), "test"),
        ((1.0, 1.0), (1.0, 2.0), "test"),
        ((2.0, 1.0), (1.0, 2.0), "test"),
        ((1.0, 2.0), (2.0, 1.0), "test"),
        ((0.0, 2.0), (1.0, 2.0), "test"),
        ((1.0, 2.0), (0.0, 2.0), "test"),
        ((1.0, 2.0), (1.0,), "test"),
        ((1.0, float("inf")), (1.0, 2.0), "test"),
        ((1.0, 2.0), (1.0, float("nan")), "test"),
        ((float("nan"),), (1.0,), "test"),
        ((1.0,), (1.0,), ""),
    ],
)
def test_points_that_are_no_curve_are_refused(
    sizes: tuple[float, ...], seconds: tuple[float, ...], source: str
) -> None:
    with pytest.raises(InputError, match="sizes that rise"):
        Curve(sizes_bytes=sizes, seconds=seconds, source=source)
