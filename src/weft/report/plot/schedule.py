"""The schedule of a pipeline: what each group of devices does, and where it waits."""

from __future__ import annotations

from weft.core.units import format_seconds
from weft.parallel.pipeline.schedule import Work
from weft.parallel.pipeline.timing import Busy, PipelineTime
from weft.report.markup import Markup, join, tag
from weft.report.plot.frame import Area, figure, legend, x_axis
from weft.report.plot.scale import Scale, second_ticks

__all__ = ["schedule_plot"]

_WIDTH, _LEFT = 940.0, 76.0
_TALLEST, _LOWEST = 30.0, 8.0
_ROOM = 520.0
"""Height that all lanes together may take before they get lower [pixels]."""
_MOST = 6000
"""Actions that are drawn; of longer schedules the first ones, which repeat."""

_STYLES = {
    Work.FORWARD: ("forward", "forward"),
    Work.BACKWARD: ("backward", "backward"),
    Work.INPUTS: ("gradients that another stage waits for", "backward"),
    Work.WEIGHTS: ("the other gradients", "update"),
}


def schedule_plot(time: PipelineTime) -> Markup:
    """A lane for each group over time; what is empty is waiting."""
    shown = _end_of_what_is_drawn(time)
    lane = min(_TALLEST, max(_LOWEST, _ROOM / len(time.groups) - 4.0))
    height = len(time.groups) * (lane + 4.0)
    area = Area(left=_LEFT, top=8.0, width=_WIDTH - _LEFT - 20.0, height=height)
    x = Scale(low=0.0, high=max(shown, 1e-12), start=area.left, end=area.right)
    parts = [x_axis(area, x, second_ticks(0.0, max(shown, 1e-12), count=8), "time")]
    for group, done in enumerate(time.groups):
        top = area.top + group * (lane + 4.0)
        if lane >= 12.0 or group % 4 == 0:
            label = tag("text", f"group {group}", x=_LEFT - 8, y=top + 10, text_anchor="end")
            parts.append(label)
        parts += [_rectangle(busy, x, top, lane) for busy in done if busy.start_s < shown]
    works = [w for w in Work if any(b.action.work is w for g in time.groups for b in g)]
    description = f"Schedule of a pipeline of {len(time.groups)} groups"
    return join(
        legend([(_STYLES[work][0], f"fill-{_STYLES[work][1]}") for work in works]),
        figure(_WIDTH, area.bottom + 40, description, *parts),
    )


def _end_of_what_is_drawn(time: PipelineTime) -> float:
    count = sum(map(len, time.groups))
    return time.step_s * min(1.0, _MOST / max(count, 1))


def _rectangle(busy: Busy, x: Scale, top: float, height: float) -> Markup:
    left = x(busy.start_s)
    action, took = busy.action, format_seconds(busy.end_s - busy.start_s)
    words = (
        f"stage {action.stage}, micro-batch {action.micro_batch}: {_STYLES[action.work][0]}, {took}"
    )
    return tag(
        "rect",
        tag("title", words),
        x=left,
        y=top,
        width=max(min(x(busy.end_s), x.end) - left - 0.6, 0.4),
        height=height,
        class_=f"fill-{_STYLES[action.work][1]}",
    )
