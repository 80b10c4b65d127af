import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.report.plot.drawing import elements, outside, overlaps
from weft.core.units import format_seconds
from weft.report.plot import Bar, bar_plot
from weft.report.plot.scale import second_ticks

NAMES = st.text("abc ", min_size=1, max_size=40)


def draw(values, names):
    bars = [
        Bar(name=n, value=v, text=format_seconds(v)) for n, v in zip(names, values, strict=True)
    ]
    return bar_plot(bars, second_ticks(0.0, max(values)), title="t", x_title="step")


@given(st.lists(st.tuples(NAMES, st.floats(1e-6, 1e3)), min_size=1, max_size=8))
def test_no_label_touches_another_or_leaves_the_picture(rows):
    names, values = zip(*rows, strict=True)
    plot = draw(values, names)
    assert overlaps(plot) == []
    assert outside(plot) == []


def test_lengths_are_proportional_to_values():
    widths = [float(e.get("width")) for e in elements(draw([1.0, 2.0, 4.0], "abc"), "rect")]
    assert widths[2] == pytest.approx(2 * widths[1]) == pytest.approx(4 * widths[0])
