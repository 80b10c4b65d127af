"""The phase diagram as a picture that stands by itself, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, log10

from weft.report.markup import Markup, join, tag
from weft.report.plot.frame import Area, x_axis, y_axis
from weft.report.plot.scale import Scale, Ticks
from weft.report.plot.standalone import standalone

__all__ = ["Cell", "Limit", "Panel", "phase_picture"]

_PANEL, _GAP, _LEFT, _TOP, _HEIGHT = 268.0, 30.0, 56.0, 86.0, 300.0
_DECADES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

_LIGHT = """
.stable{fill:#0072b2}.grows{fill:none;stroke:#d55e00;stroke-width:1.5}
.stalls{fill:none;stroke:#8a939e;stroke-width:1.5}
.line{fill:none;stroke-width:2;stroke:#1d2126}
.line-dashed{stroke:#e69f00;stroke-dasharray:5 4}
"""
_DARK = """
.stable{fill:#4aa3dc}.grows{stroke:#f07f35}.stalls{stroke:#7d8894}
.line{stroke:#e4e8ed}.line-dashed{stroke:#f0b429}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What a run came to.

    Attributes:
        at: which of the lags.
        x: step size times curvature.
        style: "stable", "stalls" or "grows".
    """

    at: int
    x: float
    style: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A computed threshold for each of the lags.

    Attributes:
        name: for the key below the heading.
        values: steps; those that are not finite are left out.
        style: "line", and more classes for another colour.
    """

    name: str
    values: tuple[float, ...]
    style: str = "line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One optimizer's cells and thresholds.

    Attributes:
        title: the heading.
        note: under which conditions.
        cells, limits: what is drawn.
    """

    title: str
    note: str
    cells: tuple[Cell, ...]
    limits: tuple[Limit, ...]


def phase_picture(panels: Sequence[Panel], lags: Sequence[int], *, title: str, text: str) -> str:
    """An SVG document: panels beside each other, lags to the right, steps upwards.

    Args:
        panels: at least one.
        lags: names of the places on the horizontal axis.
        title: what is shown.
        text: the same at length, for those who cannot see the picture.
    """
    width = _LEFT + len(panels) * (_PANEL + _GAP)
    height = _TOP + _HEIGHT + 74
    steps = [cell.x for panel in panels for cell in panel.cells]
    low, high = log10(min(steps)) - 0.05, log10(max(steps)) + 0.05
    parts = [
        _panel(panel, lags, _LEFT + n * (_PANEL + _GAP), (low, high), is_first=n == 0)
        for n, panel in enumerate(panels)
    ]
    return standalone(
        width,
        height,
        *parts,
        _key(height - 18),
        title=title,
        text=text,
        light=_LIGHT,
        dark=_DARK,
    )


def _panel(
    panel: Panel, lags: Sequence[int], left: float, span: tuple[float, float], *, is_first: bool
) -> Markup:
    area = Area(left=left, top=_TOP, width=_PANEL, height=_HEIGHT)
    x = Scale(low=-0.5, high=len(lags) - 0.5, start=area.left, end=area.right)
    y = Scale(low=span[0], high=span[1], start=area.bottom, end=area.top)
    marks = [one for one in _DECADES if span[0] <= log10(one) <= span[1]]
    rows = Ticks(
        values=tuple(map(log10, marks)),
        labels=tuple(f"{one:g}" if is_first else "" for one in marks),
        unit="",
    )
    columns = Ticks(values=tuple(range(len(lags))), labels=tuple(map(str, lags)), unit="")
    named = [
        join(
            tag("path", d=f"M{area.left:g},{_TOP - 30 + 14 * n:g}h22", class_=one.style),
            tag("text", one.name, x=area.left + 28, y=_TOP - 26 + 14 * n),
        )
        for n, one in enumerate(panel.limits)
    ]
    return join(
        tag("text", panel.title, x=area.left, y=20.0, class_="head"),
        tag("text", panel.note, x=area.left, y=37.0, class_="note"),
        *named,
        y_axis(area, y, rows, ""),
        x_axis(area, x, columns, "lag [steps]"),
        *(_dot(cell, x, y) for cell in panel.cells),
        *(_line(one, x, y) for one in panel.limits),
    )


def _dot(cell: Cell, x: Scale, y: Scale) -> Markup:
    words = tag("title", f"{cell.x:.3g}: {cell.style}")
    radius = 2.6 if cell.style == "stable" else 2.3
    return tag("circle", words, cx=x(cell.at), cy=y(log10(cell.x)), r=radius, class_=cell.style)


def _line(limit: Limit, x: Scale, y: Scale) -> Markup:
    places = [
        f"{x(at):.1f},{y(log10(value)):.1f}"
        for at, value in enumerate(limit.values)
        if isfinite(value) and y.low <= log10(value) <= y.high
    ]
    return tag("path", d="M" + "L".join(places), class_=limit.style)


def _key(at: float) -> Markup:
    kinds = (
        ("stable", "shrinks"),
        ("stalls", "comes to rest, not at the minimum"),
        ("grows", "grows"),
    )
    parts: list[Markup] = [tag("text", "simulated:", x=_LEFT, y=at + 4, class_="note")]
    left = _LEFT + 74
    for style, name in kinds:
        parts.append(tag("circle", cx=left, cy=at, r=3.0, class_=style))
        parts.append(tag("text", name, x=left + 9, y=at + 4))
        left += 36 + 6.4 * len(name)
    parts.append(
        tag("text", "upwards: step size times curvature", x=left + 24, y=at + 4, class_="note")
    )
    return join(*parts)
