"""Panels side by side with common scales: lines over steps, each with a band of its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from weft.core.errors import InputError
from weft.report.markup import Markup, join, tag
from weft.report.plot.frame import Area, figure, x_axis, y_axis
from weft.report.plot.lines import Level
from weft.report.plot.scale import Scale, linear_ticks

__all__ = ["DASHES", "HUES", "Band", "Panel", "key", "panel_plot"]

HUES = 8
"""Colours that stay apart, `hue-0` and on in the style sheet; `hue-rest` is for all others."""

DASHES = ("", "7 3", "2 3", "8 3 2 3")
"""Patterns of lines, so that colour is not all that tells them apart."""

_WIDTH, _LEFT, _RIGHT = 940.0, 56.0, 14.0
_TOP, _BELOW, _ALONE, _BESIDE = 30.0, 44.0, 250.0, 170.0
_FAR = 4.0
"""A value of more than so many times what nearly all are would flatten the picture, and is cut."""
_NEARLY_ALL = 0.97

_END = (math.nan, math.nan, math.nan, math.nan)
"""A point that ends what is being drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """One line and how sure it is.

    Attributes:
        name: for those who point at it.
        points: (x, y, low, high), in order of x; low and high NaN where there is no telling, y NaN
            where the line is interrupted.
        hue: number of its colour.
        dash: number of its pattern.
    """

    name: str
    points: tuple[tuple[float, float, float, float], ...]
    hue: int = 0
    dash: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Lines that share axes, under a title."""

    title: str
    bands: tuple[Band, ...]


def key(hue: int, dash: int) -> Markup:
    """A piece of line for a legend."""
    line = tag("path", d="M0,5L28,5", class_=_line(hue), stroke_dasharray=_dash(dash))
    return tag("svg", line, viewBox="0 0 28 10", class_="key", aria_hidden="true")


def panel_plot(
    panels: Sequence[Panel],
    *,
    title: str,
    x_title: str,
    y_title: str,
    levels: Sequence[Level] = (),
) -> Markup:
    """A panel for each, all with the same scales, so that they compare.

    Bands are cut at the edges. A few values far from all others are cut, too: they are drawn at the
    edge, and the panel says how far they go.

    Args:
        panels: those without a finite point are left out.
        title: what is shown, for those who cannot see the picture.
        x_title, y_title: names of the axes, with units.
        levels: horizontal lines through all panels.

    Raises:
        InputError: there is no finite point.
    """
    drawn = [(panel, found) for panel in panels if (found := _finite(panel))]
    if not drawn:
        raise InputError(
            need="at least one finite point to draw",
            got=f"none in {', '.join(panel.title for panel in panels) or 'no panels'}",
            hint="leave the plot out where nothing was measured",
        )
    points = [point for _, found in drawn for point in found]
    low, high = _range([y for _, y in points], [level.value for level in levels])
    ends = min(x for x, _ in points), max(x for x, _ in points)
    columns = {1: 1, 2: 2, 4: 2}.get(len(drawn), 3)
    width = _WIDTH / columns
    tall = _ALONE if columns == 1 else _BESIDE
    area = Area(left=_LEFT, top=_TOP, width=width - _LEFT - _RIGHT, height=tall)
    room = 0.0 if ends[1] > ends[0] else 0.5
    x = Scale(low=ends[0] - room, high=ends[1] + room, start=area.left, end=area.right)
    y = Scale(low=low, high=high, start=area.bottom, end=area.top)
    parts = [
        tag(
            "g",
            _panel(panel, area, x, y, x_title, y_title),
            *(_level(level, area, y) for level in levels),
            transform=f"translate({at % columns * width:g},{at // columns * (tall + 74):g})",
        )
        for at, (panel, _) in enumerate(drawn)
    ]
    rows = math.ceil(len(drawn) / columns)
    return figure(_WIDTH, rows * (tall + _TOP + _BELOW), title, *parts)


def _finite(panel: Panel) -> list[tuple[float, float]]:
    return [
        (x, y)
        for band in panel.bands
        for x, y, _, _ in band.points
        if math.isfinite(x) and math.isfinite(y)
    ]


def _range(values: Sequence[float], levels: Sequence[float]) -> tuple[float, float]:
    """What the vertical axis shows: all, but for a few that are far out."""
    ordered = sorted(values)
    last = len(ordered) - 1
    low, high = ordered[0], ordered[-1]
    usual = ordered[round((1 - _NEARLY_ALL) * last)], ordered[round(_NEARLY_ALL * last)]
    spread = usual[1] - usual[0]
    if spread > 0.0:
        low = max(low, usual[0] - _FAR * spread)
        high = min(high, usual[1] + _FAR * spread)
    low, high = min(low, *levels, high), max(high, *levels, low)
    if low >= 0.0 and low < 0.5 * high:
        low = 0.0
    room = (high - low) * 0.06 or max(abs(high), 1.0) * 0.5
    return (low if low == 0.0 else low - room), high + room


def _panel(panel: Panel, area: Area, x: Scale, y: Scale, x_title: str, y_title: str) -> Markup:
    count = max(2, round(area.width / 70))
    title = tag("text", panel.title, x=area.right, y=area.top - 10, text_anchor="end")
    heights = [height for _, height in _finite(panel)]
    cut = [
        tag("text", f"{words} {value:.3g}", x=area.left + 6, y=at, class_="axis-title")
        for words, value, at, is_cut in (
            ("goes up to", max(heights), area.top + 14, max(heights) > y.high),
            ("goes down to", min(heights), area.bottom - 8, min(heights) < y.low),
        )
        if is_cut
    ]
    return join(
        x_axis(area, x, linear_ticks(x.low, x.high, count=count), x_title),
        y_axis(area, y, linear_ticks(y.low, y.high), y_title),
        title,
        *(_band(band, x, y) for band in panel.bands),
        *(_mean(band, x, y) for band in panel.bands),
        *cut,
    )


def _band(band: Band, x: Scale, y: Scale) -> Markup | None:
    """The interval, in pieces where it is interrupted."""
    words: list[str] = []
    piece: list[tuple[float, float, float, float]] = []
    for point in (*band.points, _END):
        if all(map(math.isfinite, point)):
            piece.append(point)
            continue
        if len(piece) > 1:
            upper = [f"{x(p[0]):.1f},{_held(p[3], y):.1f}" for p in piece]
            lower = [f"{x(p[0]):.1f},{_held(p[2], y):.1f}" for p in reversed(piece)]
            words.append("M" + "L".join([*upper, *lower]) + "Z")
        piece = []
    return tag("path", d="".join(words), class_=f"band {_hue(band.hue)}") if words else None


def _mean(band: Band, x: Scale, y: Scale) -> Markup:
    words: list[str] = []
    dots: list[Markup] = []
    pen, length = "M", 0
    last = (0.0, 0.0)
    for px, py, _, _ in (*band.points, _END):
        if math.isfinite(px) and math.isfinite(py):
            last = x(px), _held(py, y)
            words.append(f"{pen}{last[0]:.1f},{last[1]:.1f}")
            pen, length = "L", length + 1
            continue
        if length == 1:  # a line of one point would not be seen
            dots.append(tag("circle", cx=last[0], cy=last[1], r=2.5, class_=_hue(band.hue)))
        pen, length = "M", 0
    line = tag(
        "path",
        tag("title", band.name),
        d="".join(words),
        class_=_line(band.hue),
        stroke_dasharray=_dash(band.dash),
    )
    return join(line, *dots)


def _level(level: Level, area: Area, y: Scale) -> Markup:
    height = y(level.value)
    name = tag("title", level.name)
    return tag("line", name, x1=area.left, x2=area.right, y1=height, y2=height, class_=level.style)


def _held(value: float, y: Scale) -> float:
    return y(min(max(value, y.low), y.high))


def _hue(hue: int) -> str:
    return f"hue-{hue}" if hue < HUES else "hue-rest"


def _line(hue: int) -> str:
    return f"line {_hue(hue)}"


def _dash(dash: int) -> str | None:
    return DASHES[min(dash, len(DASHES) - 1)] or None
