"""Dots in a plane, joined or not, such as what speed costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from weft.core.errors import InputError
from weft.report.markup import Markup, join, tag
from weft.report.plot.frame import Area, figure, legend, text_width, x_axis, y_axis
from weft.report.plot.scale import Scale, linear_ticks

__all__ = ["Dots", "dot_plot"]

_WIDTH, _HEIGHT = 940.0, 420.0
_AREA = Area(left=64.0, top=30.0, width=856.0, height=340.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dots:
    """Points of one kind.

    Attributes:
        name: for the legend.
        points: (x, y), all finite.
        fill: CSS class of the dots; empty for none.
        line: CSS class of the line that joins them, in order; empty for none.
        is_hollow: whether dots are rings.
        labels: beside the dots, one each; empty for none.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    fill: str = "fill-1"
    line: str = ""
    is_hollow: bool = False
    labels: tuple[str, ...] = ()


def dot_plot(
    kinds: Sequence[Dots],
    *,
    title: str,
    x_title: str,
    y_title: str,
    ways: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
) -> Markup:
    """Dots with axes and a legend.

    Args:
        kinds: drawn one over the other; those without points are left out.
        title: what is shown, for those who cannot see the picture.
        x_title, y_title: names of the axes, with units.
        ways: pairs of points with a thin line between.

    Raises:
        InputError: there is no point, or one that is not finite.
    """
    drawn = [kind for kind in kinds if kind.points]
    points = [point for kind in drawn for point in kind.points]
    if not points or not all(math.isfinite(value) for point in points for value in point):
        raise InputError(
            need="finite points to draw",
            got="none" if not points else "some that are not",
            hint="leave the plot out where nothing was measured",
        )
    x = _scale([p[0] for p in points], _AREA.left, _AREA.right)
    y = _scale([p[1] for p in points], _AREA.bottom, _AREA.top)
    picture = figure(
        _WIDTH,
        _HEIGHT,
        title,
        x_axis(_AREA, x, linear_ticks(x.low, x.high, count=10), x_title),
        y_axis(_AREA, y, linear_ticks(y.low, y.high, count=8), y_title),
        *(
            tag("line", x1=x(a[0]), y1=y(a[1]), x2=x(b[0]), y2=y(b[1]), class_="line-way")
            for a, b in ways
        ),
        *(_line(kind, x, y) for kind in drawn if kind.line),
        *(part for kind in drawn if kind.fill for part in _dots(kind, x, y)),
    )
    return join(legend([(kind.name, kind.fill or kind.line) for kind in drawn]), picture)


def _scale(values: Sequence[float], start: float, end: float) -> Scale:
    low, high = min(values), max(values)
    room = (high - low) * 0.05 or max(abs(high), 1.0) * 0.1
    return Scale(low=low - room, high=high + room, start=start, end=end)


def _line(kind: Dots, x: Scale, y: Scale) -> Markup:
    words = [
        f"{'L' if at else 'M'}{x(px):.1f},{y(py):.1f}" for at, (px, py) in enumerate(kind.points)
    ]
    return tag("path", d="".join(words), class_=f"line {kind.line}")


def _dots(kind: Dots, x: Scale, y: Scale) -> list[Markup]:
    parts: list[Markup] = []
    style = f"{kind.fill} hollow" if kind.is_hollow else kind.fill
    for at, (px, py) in enumerate(kind.points):
        label = kind.labels[at] if kind.labels else ""
        words = tag("title", f"{label or kind.name}: {px:.2f}, {py:.1f}")
        parts.append(tag("circle", words, cx=x(px), cy=y(py), r=4.5, class_=style))
        if label:
            is_left = x(px) + 10 + text_width(label) > _AREA.right
            parts.append(
                tag(
                    "text",
                    label,
                    x=x(px) + (-9 if is_left else 9),
                    y=y(py) + 4,
                    text_anchor="end" if is_left else "start",
                )
            )
    return parts
