"""The timeline of one step: what a device computes, and below it what it sends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from weft.core.units import format_seconds
from weft.cost.timeline import Event, Stream, Timeline
from weft.report.markup import Markup, join, tag
from weft.report.plot.frame import Area, figure, legend, x_axis
from weft.report.plot.scale import Scale, second_ticks

__all__ = ["Block", "blocks_of", "timeline_plot"]

_WIDTH = 940.0
_LANE, _GAP = 46.0, 10.0
_LEFT = 116.0
_FINEST = 1.0
"""Narrowest block [pixels]; shorter events are drawn together."""

_NAMES = {Stream.COMPUTE: "computation", Stream.COMMUNICATION: "communication"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Neighbouring events of a lane that are drawn as one rectangle.

    Attributes:
        style: the phase or the collective that took most of the time; a CSS class.
        start_s, end_s: what it covers [s].
        busy_s: how much of that is events [s].
        count: number of events.
        label: of the longest event.
    """

    style: str
    start_s: float
    end_s: float
    busy_s: float
    count: int
    label: str


def timeline_plot(timeline: Timeline) -> Markup:
    """Two lanes over time, computation coloured by phase, communication by collective.

    Time in which only communication runs is marked between the lanes.
    """
    streams = [s for s in Stream if any(e.stream is s for e in timeline.events)]
    height = len(streams) * (_LANE + _GAP)
    area = Area(left=_LEFT, top=8.0, width=_WIDTH - _LEFT - 20.0, height=height)
    end_s = max(timeline.step_s, 1e-12)
    x = Scale(low=0.0, high=end_s, start=area.left, end=area.right)
    parts = [x_axis(area, x, second_ticks(0.0, end_s, count=8), "time")]
    for lane, stream in enumerate(streams):
        top = area.top + lane * (_LANE + _GAP)
        middle = top + _LANE / 2 + 4
        parts.append(tag("text", _NAMES[stream], x=_LEFT - 10, y=middle, text_anchor="end"))
        events = (e for e in timeline.events if e.stream is stream)
        finest_s = _FINEST * end_s / area.width
        parts += [_rectangle(block, x, top) for block in blocks_of(events, finest_s)]
    description = f"Timeline of one step of {format_seconds(timeline.step_s)}"
    styles = sorted({style_of(e) for e in timeline.events}, key=_ORDER.index)
    return join(
        legend([(style, f"fill-{style}") for style in styles]),
        figure(_WIDTH, area.bottom + 40, description, *parts),
    )


_ORDER = (
    "forward",
    "backward",
    "update",
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "other",
)


def style_of(event: Event) -> str:
    """What decides an event's colour: its phase if it computes, its kind if it sends."""
    name = event.phase if event.stream is Stream.COMPUTE else event.kind
    return name if name in _ORDER else "other"


def blocks_of(events: Iterable[Event], finest_s: float) -> list[Block]:
    """Events of one lane, drawn together while they are shorter than `finest_s`.

    A block grows until it is as long as `finest_s`; after that it takes in only events of its
    own style that follow without a visible gap. So there are at most about two blocks for
    each `finest_s`, and what is longer keeps its own rectangle.
    """
    blocks: list[Block] = []
    open_: list[Event] = []
    for event in sorted(events, key=lambda e: e.start_s):
        if event.duration_s <= 0:
            continue
        if open_ and not _joins(open_, event, finest_s):
            blocks.append(_close(open_))
            open_ = []
        open_.append(event)
    return [*blocks, _close(open_)] if open_ else blocks


def _joins(open_: list[Event], event: Event, finest_s: float) -> bool:
    end_s = open_[-1].start_s + open_[-1].duration_s
    if max(event.duration_s, open_[-1].duration_s) >= finest_s:
        return False
    if event.start_s - end_s > finest_s / 2:
        return False
    still_short = end_s - open_[0].start_s < finest_s
    return still_short or style_of(event) == style_of(open_[-1])


def _close(events: list[Event]) -> Block:
    time_s: dict[str, float] = {}
    for event in events:
        style = style_of(event)
        time_s[style] = time_s.get(style, 0.0) + event.duration_s
    longest = max(events, key=lambda e: e.duration_s)
    return Block(
        style=max(time_s, key=lambda style: time_s[style]),
        start_s=events[0].start_s,
        end_s=max(e.start_s + e.duration_s for e in events),
        busy_s=sum(e.duration_s for e in events),
        count=len(events),
        label=longest.label or longest.kind,
    )


def _rectangle(block: Block, x: Scale, top: float) -> Markup:
    left = x(block.start_s)
    start, busy = format_seconds(block.start_s), format_seconds(block.busy_s)
    what = block.label if block.count == 1 else f"{block.count} events, longest {block.label}"
    return tag(
        "rect",
        tag("title", f"{block.style}: {what}; {busy} from {start}"),
        x=left,
        y=top,
        width=max(x(block.end_s) - left, 0.4),
        height=_LANE,
        class_=f"fill-{block.style}",
    )
