"""Bars side by side, such as the step times of plans that were compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from weft.report.markup import Markup, tag
from weft.report.plot.frame import Area, figure, text_width, x_axis
from weft.report.plot.scale import Scale, Ticks

__all__ = ["Bar", "bar_plot"]

_WIDTH, _ROW = 940.0, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar: its name, its length, the text at its end and a CSS class."""

    name: str
    value: float
    text: str
    style: str = "fill-1"


def bar_plot(bars: Sequence[Bar], ticks: Ticks, *, title: str, x_title: str) -> Markup:
    """Horizontal bars from zero, one below the other, with room for the texts at their ends.

    Args:
        bars: at least one, in order from the top.
        ticks: marks of the horizontal axis.
        title: what is shown, for those who cannot see the picture.
        x_title: name of the axis; the unit comes from the ticks.
    """
    left = max(text_width(bar.name) for bar in bars) + 20
    room = max(text_width(bar.text) for bar in bars) + 20
    area = Area(left=left, top=6.0, width=_WIDTH - left - room, height=_ROW * len(bars))
    longest = max(max(bar.value for bar in bars), 1e-12)
    x = Scale(low=0.0, high=longest, start=area.left, end=area.right)
    rows = [_row(bar, area.top + _ROW * n, x) for n, bar in enumerate(bars)]
    parts = [x_axis(area, x, ticks, x_title), *rows]
    return figure(_WIDTH, area.bottom + 42, title, *parts)


def _row(bar: Bar, top: float, x: Scale) -> Markup:
    middle = top + _ROW / 2 + 4
    end = x(bar.value)
    return tag(
        "g",
        tag("text", bar.name, x=x.start - 10, y=middle, text_anchor="end"),
        tag(
            "rect",
            tag("title", f"{bar.name}: {bar.text}"),
            x=x.start,
            y=top + 5,
            width=max(end - x.start, 1.0),
            height=_ROW - 10,
            class_=bar.style,
        ),
        tag("text", bar.text, x=end + 8, y=middle, text_anchor="start"),
    )
