import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.report.plot.drawing import elements, outside, overlaps
from weft.core.errors import InputError
from weft.report.plot import Level, Series, line_plot

HEIGHTS = st.lists(st.floats(1e-3, 1e5), min_size=1, max_size=30)


def draw(ys, **options):
    series = Series(name="loss", points=tuple((float(x), y) for x, y in enumerate(ys)))
    return line_plot([series], title="t", x_title="step", y_title="loss", **options)


@given(HEIGHTS)
def test_no_label_touches_another_or_leaves_the_picture(ys):
    plot = draw(ys)
    assert overlaps(plot) == []
    assert outside(plot) == []


def test_a_higher_value_is_drawn_higher():
    path = elements(draw([1.0, 3.0]), "path")[0].get("d")
    first, second = (float(point.split(",")[1]) for point in path[1:].split("L"))
    assert second < first


def test_a_value_that_is_no_number_interrupts_the_line():
    path = elements(draw([1.0, math.nan, 2.0, 3.0]), "path")[0].get("d")
    assert path.count("M") == 2
    assert path.count("L") == 1


def test_levels_are_inside_the_picture_and_named():
    plot = draw([1.0, 2.0], levels=[Level(name="predicted", value=10.0)])
    line = next(e for e in elements(plot, "line") if e.get("class") == "line-3")
    assert 0 < float(line.get("y1")) < 250
    assert "predicted" in plot


def test_nothing_to_draw_is_an_error_that_names_the_series():
    with pytest.raises(InputError, match="loss"):
        draw([math.inf])
