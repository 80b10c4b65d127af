"""Lines over a common axis, such as losses over steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from weft.core.errors import InputError
from weft.report.markup import Markup, join, tag
from weft.report.plot.frame import Area, figure, legend, x_axis, y_axis
from weft.report.plot.scale import Scale, linear_ticks

__all__ = ["Level", "Series", "line_plot"]

_WIDTH, _HEIGHT = 940.0, 300.0
_AREA = Area(left=64.0, top=30.0, width=856.0, height=220.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points to be joined by a line.

    Attributes:
        name: for the legend.
        points: (x, y), in order of x; a y that is not finite interrupts the line.
        style: CSS class of the line: "line-1" to "line-4"; "line-wide" and "line-dashed" so
            that one of two lines that coincide can be seen below the other.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    style: str = "line-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A horizontal line at a value."""

    name: str
    value: float
    style: str = "line-3"


def line_plot(
    series: Sequence[Series],
    *,
    title: str,
    x_title: str,
    y_title: str,
    levels: Sequence[Level] = (),
    from_zero: bool = False,
) -> Markup:
    """Lines with axes and a legend.

    Args:
        series: at least one, with at least one finite point between them.
        title: what is shown, for those who cannot see the picture.
        x_title, y_title: names of the axes, with units.
        levels: horizontal lines.
        from_zero: let the vertical axis start at zero.

    Raises:
        InputError: there is no finite point.
    """
    points = [p for s in series for p in s.points if all(map(math.isfinite, p))]
    if not points:
        raise InputError(
            need="at least one finite point to draw",
            got=f"none in {', '.join(s.name for s in series) or 'no series'}",
            hint="leave the plot out where nothing was measured",
        )
    x = _scale([p[0] for p in points], _AREA.left, _AREA.right, margin=0.0)
    heights = [*(p[1] for p in points), *(level.value for level in levels)]
    y = _scale([*heights, *([0.0] if from_zero else [])], _AREA.bottom, _AREA.top, margin=0.06)
    entries = [(s.name, s.style) for s in series] + [(v.name, v.style) for v in levels]
    drawing = figure(
        _WIDTH,
        _HEIGHT,
        title,
        x_axis(_AREA, x, linear_ticks(x.low, x.high, count=10), x_title),
        y_axis(_AREA, y, linear_ticks(y.low, y.high), y_title),
        *(_path(s, x, y) for s in series),
        *(
            tag("line", x1=_AREA.left, x2=_AREA.right, y1=y(v.value), y2=y(v.value), class_=v.style)
            for v in levels
        ),
    )
    return join(legend(entries), drawing)


def _scale(values: Sequence[float], start: float, end: float, *, margin: float) -> Scale:
    low, high = min(values), max(values)
    room = (high - low) * margin or (0.0 if high > low else max(abs(high), 1.0) * 0.5)
    return Scale(low=low - room if low != 0 else low, high=high + room, start=start, end=end)


def _path(series: Series, x: Scale, y: Scale) -> Markup:
    words: list[str] = []
    pen = "M"
    for px, py in series.points:
        if math.isfinite(px) and math.isfinite(py):
            words.append(f"{pen}{x(px):.1f},{y(py):.1f}")
            pen = "L"
        else:
            pen = "M"
    return tag("path", d="".join(words), class_=f"line {series.style}")
