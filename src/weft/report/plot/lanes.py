"""Lanes, one below the other: shares of a whole, or a histogram over whole numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from weft.core.errors import InputError
from weft.report.markup import Markup, tag
from weft.report.plot.frame import Area, figure, text_width, x_axis
from weft.report.plot.scale import Scale, linear_ticks

__all__ = ["Lane", "histogram_lanes", "share_lanes"]

_WIDTH, _LEAST_LEFT, _MOST_LEFT = 940.0, 60.0, 330.0
_SHARE, _HISTOGRAM = 24.0, 40.0
_BARS = 64
"""Bars of a histogram, at most; wider ones take in several numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A name, and how much there is of what.

    Attributes:
        name: beside the lane.
        parts: amounts by key, none below 0; the key is a CSS class of a colour for shares and a
            whole number for a histogram.
    """

    name: str
    parts: Mapping[str, float] | Mapping[int, float]


def share_lanes(
    lanes: Sequence[Lane], names: Mapping[str, str], *, title: str, x_title: str
) -> Markup:
    """Each lane as a bar of the same length, divided.

    Args:
        lanes: with a CSS class as key.
        names: what the classes mean; parts are drawn in this order.
        title: what is shown, for those who cannot see the picture.
        x_title: name of the axis.

    Raises:
        InputError: no lane, or one of nothing.
    """
    area = _area(lanes, _SHARE)
    x = Scale(low=0.0, high=100.0, start=area.left, end=area.right)
    parts = [x_axis(area, x, linear_ticks(0.0, 100.0, count=10, unit="%"), x_title)]
    for at, lane in enumerate(lanes):
        top, total, done = area.top + at * _SHARE, sum(lane.parts.values()), 0.0
        parts.append(_name(lane.name, area.left, top + _SHARE / 2))
        given = {str(style): amount for style, amount in lane.parts.items()}
        for style, name in names.items():
            share = 100.0 * given.get(style, 0.0) / total
            words = f"{lane.name}: {name} {share:.1f} %"
            parts += _rectangle(words, x(done), x(done + share), top + 3, _SHARE - 6, style)
            done += share
    return figure(_WIDTH, area.bottom + 42, title, *parts)


def histogram_lanes(lanes: Sequence[Lane], *, title: str, x_title: str, style: str) -> Markup:
    """Each lane as bars over whole numbers, the highest as high as the lane.

    Args:
        lanes: with a whole number as key.
        title: what is shown, for those who cannot see the picture.
        x_title: name of the axis.
        style: CSS class of the bars' colour.

    Raises:
        InputError: no lane, or one of nothing.
    """
    area = _area(lanes, _HISTOGRAM)
    highest = max(int(number) for lane in lanes for number in lane.parts)
    lowest = min(0, *(int(number) for lane in lanes for number in lane.parts))
    wide = -(-(highest - lowest + 1) // _BARS)
    end = lowest + wide * -(-(highest - lowest + 1) // wide)
    x = Scale(low=lowest - 0.5, high=end - 0.5, start=area.left, end=area.right)
    ticks = linear_ticks(float(lowest), float(highest) + 0.01, count=12)
    whole = [t for t in zip(ticks.values, ticks.labels, strict=True) if t[0] == round(t[0])]
    marks = type(ticks)(
        values=tuple(v for v, _ in whole), labels=tuple(w for _, w in whole), unit=""
    )
    parts = [x_axis(area, x, marks, x_title)]
    for at, lane in enumerate(lanes):
        bottom = area.top + (at + 1) * _HISTOGRAM
        bins: dict[int, float] = {}
        for number, amount in lane.parts.items():
            first = lowest + (int(number) - lowest) // wide * wide
            bins[first] = bins.get(first, 0.0) + amount
        total, most = sum(bins.values()), max(bins.values())
        parts.append(_name(lane.name, area.left, bottom - _HISTOGRAM / 2))
        for first, amount in sorted(bins.items()):
            height = max(1.0, (_HISTOGRAM - 8) * amount / most)
            at_which = str(first) if wide == 1 else f"{first} to {first + wide - 1}"
            words = f"{lane.name}: {at_which}, {100 * amount / total:.1f} %"
            left, right = x(first - 0.5), x(first - 0.5 + wide)
            gap = min(2.0, 0.1 * (right - left))
            parts += _rectangle(words, left + gap, right - gap, bottom - height, height, style)
    return figure(_WIDTH, area.bottom + 42, title, *parts)


def _area(lanes: Sequence[Lane], height: float) -> Area:
    if not lanes or not all(
        min(lane.parts.values(), default=-1.0) >= 0.0 < sum(lane.parts.values()) for lane in lanes
    ):
        raise InputError(
            need="lanes with something in each",
            got=f"{len(lanes)} lanes, of which at least one is empty" if lanes else "none",
            hint="leave out lanes of which nothing is known",
        )
    # Names lie against the edge of the picture: what the estimate lacks would be cut off.
    widest = 1.15 * max(text_width(lane.name) for lane in lanes) + 20
    left = min(max(widest, _LEAST_LEFT), _MOST_LEFT)
    return Area(left=left, top=6.0, width=_WIDTH - left - 20, height=height * len(lanes))


def _name(name: str, left: float, middle: float) -> Markup:
    room = int((left - 20) / (1.15 * text_width("x")) + 1e-9)
    short = name if len(name) <= room else name[: room - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return tag("text", tag("title", name), short, x=left - 8, y=middle + 4, text_anchor="end")


def _rectangle(
    words: str, left: float, right: float, top: float, height: float, style: str
) -> list[Markup]:
    if right <= left:
        return []
    title = tag("title", words)
    return [tag("rect", title, x=left, y=top, width=right - left, height=height, class_=style)]
