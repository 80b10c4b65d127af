"""The parts that all plots share: the picture, its axes, its legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from weft.report.markup import Markup, join, tag
from weft.report.plot.scale import Scale, Ticks

__all__ = ["Area", "figure", "legend", "text_width", "x_axis", "y_axis"]

_CHARACTER = 6.4
"""Mean width of a character of the plots' 12-pixel font [pixels], rounded up so that an
estimate errs towards more room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """The part of a picture that data are drawn in [pixels]."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Lower edge."""
        return self.top + self.height


def text_width(text: str) -> float:
    """Room that a label needs [pixels]; an estimate, since no font is measured here."""
    return _CHARACTER * len(text)


def figure(width: float, height: float, description: str, *parts: Markup) -> Markup:
    """The picture itself, with a description for those who cannot see it."""
    picture = tag(
        "svg",
        tag("title", description),
        *parts,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        class_="plot",
    )
    return tag("div", picture, class_="scroll")


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Names beside colour patches; the second of each pair is a CSS class of the patch."""
    items = (tag("li", tag("span", class_=f"patch {style}"), name) for name, style in entries)
    return tag("ul", *items, class_="legend")


def x_axis(area: Area, scale: Scale, ticks: Ticks, title: str) -> Markup:
    """Marks and labels below an area; labels that would touch their neighbour are left out."""
    parts: list[Markup] = []
    free_from = float("-inf")
    for value, label in zip(ticks.values, ticks.labels, strict=True):
        x, half = scale(value), text_width(label) / 2
        parts.append(_line(x, area.top, x, area.bottom, "grid"))
        if x - half >= free_from:
            parts.append(_text(x, area.bottom + 16, label, anchor="middle"))
            free_from = x + half + 6
    name = f"{title} [{ticks.unit}]" if ticks.unit else title
    parts.append(_text(area.right, area.bottom + 32, name, anchor="end", style="axis-title"))
    parts.append(_line(area.left, area.bottom, area.right, area.bottom, "axis"))
    return join(*parts)


def y_axis(area: Area, scale: Scale, ticks: Ticks, title: str) -> Markup:
    """Marks and labels left of an area, the title above it."""
    parts: list[Markup] = []
    for value, label in zip(ticks.values, ticks.labels, strict=True):
        y = scale(value)
        parts.append(_line(area.left, y, area.right, y, "grid"))
        parts.append(_text(area.left - 8, y + 4, label, anchor="end"))
    name = f"{title} [{ticks.unit}]" if ticks.unit else title
    parts.append(_text(4, area.top - 10, name, anchor="start", style="axis-title"))
    return join(*parts)


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=style)


def _text(x: float, y: float, text: str, *, anchor: str, style: str | None = None) -> Markup:
    return tag("text", text, x=x, y=y, text_anchor=anchor, class_=style)
