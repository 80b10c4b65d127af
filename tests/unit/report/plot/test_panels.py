import math
import re

import pytest

from weft.core.errors import InputError
from weft.report.plot.lines import Level
from weft.report.plot.panels import DASHES, HUES, Band, Panel, key, panel_plot

NAN = math.nan


def band(*points, **more):
    return Band(
        name="a", points=tuple(p if len(p) == 4 else (*p, NAN, NAN) for p in points), **more
    )


def plot(*panels, **more):
    titled = [Panel(title=f"panel {n}", bands=tuple(bands)) for n, bands in enumerate(panels)]
    return panel_plot(titled, title="t", x_title="x", y_title="y", **more)


def lines(markup):
    return re.findall(r'<path d="([^"]*)" class="line', markup)


def places(path):
    return [tuple(map(float, pair.split(","))) for pair in re.findall(r"[\d.]+,[\d.]+", path)]


def test_panels_share_their_scales():
    (first, second) = lines(plot([band((0, 0.0), (10, 1.0))], [band((0, 0.0), (5, 0.5))]))
    (ax, ay), (bx, by) = places(first)
    (cx, cy), (dx, dy) = places(second)
    assert (ax, ay) == (cx, cy)
    assert dx == pytest.approx((ax + bx) / 2, abs=0.1) and dy == pytest.approx(
        (ay + by) / 2, abs=0.1
    )


@pytest.mark.parametrize(
    ("count", "wide"), [(1, 940), (2, 470), (3, 313.333), (4, 470), (7, 313.333)]
)
def test_panels_lie_beside_each_other_within_the_picture(count, wide):
    markup = plot(*([band((0, 0.0), (1, 1.0))] for _ in range(count)))
    moves = re.findall(r"translate\(([\d.]+),([\d.]+)\)", markup)
    assert len(moves) == len(set(moves)) == count
    height = float(re.search(r'viewBox="0 0 940 ([\d.]+)"', markup).group(1))
    assert all(float(x) + wide <= 940.1 and float(y) + 170 < height for x, y in moves)


def test_a_band_is_drawn_where_it_is_known_and_held_within_the_picture():
    points = [
        (0, 0.5, 0.4, 0.6),
        (1, 0.5, -99.0, 99.0),
        (2, 0.5),
        (3, 0.5, 0.4, 0.6),
        (4, 0.6, 0.5, 0.7),
    ]
    markup = plot([band(*points)])
    (path,) = re.findall(r'<path d="([^"]*)" class="band', markup)
    assert path.count("M") == path.count("Z") == 2
    assert all(30 <= y <= 280 for _, y in places(path))


def test_a_few_values_far_out_do_not_flatten_the_rest():
    points = [(n, 0.5 + 0.01 * (n % 7)) for n in range(100)]
    points[50] = (50, 1e9)
    markup = plot([band(*points)])
    assert "goes up to 1e+09" in markup and "goes down" not in markup
    (path,) = lines(markup)
    heights = [y for _, y in places(path)]
    assert min(heights) == heights[50] == 30.0  # at the edge
    assert max(heights) - sorted(heights)[1] > 10


def test_lines_are_interrupted_by_nan_and_single_points_are_dots():
    markup = plot([band((0, 1.0), (1, 2.0), (2, NAN), (3, 1.5), (4, NAN))])
    (path,) = lines(markup)
    assert path.count("M") == 2 and markup.count("<circle") == 1


def test_levels_go_through_all_panels_and_are_within_the_scale():
    level = Level(name="budget", value=9.0)
    markup = plot([band((0, 1.0), (1, 2.0))], [band((0, 1.0))], levels=[level])
    heights = re.findall(
        r'<line x1="56" x2="[\d.]+" y1="([\d.]+)" y2="[\d.]+" class="line-3"', markup
    )
    assert len(heights) == 2 and all(30 <= float(y) <= 200 for y in heights)


def test_colours_and_patterns_that_run_out_are_grey_and_the_last():
    markup = plot([band((0, 1.0), (1, 2.0), hue=HUES + 5, dash=99)])
    assert 'class="line hue-rest"' in markup and f'stroke-dasharray="{DASHES[-1]}"' in markup
    assert "stroke-dasharray" not in key(0, 0)


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-12])
def test_a_constant_can_be_drawn(value):
    (path,) = lines(plot([band((0, value), (1, value))]))
    assert len({y for _, y in places(path)}) == 1


def test_a_single_step_can_be_drawn():
    assert plot([band((7, 0.5))]).count("<circle") == 1


def test_without_a_finite_point_there_is_an_error_that_names_the_panels():
    with pytest.raises(InputError, match="panel 0"):
        plot([band((0, NAN))])
    with pytest.raises(InputError, match="no panels"):
        plot()
