"""Memory of one device over one step, against the limit."""

from __future__ import annotations

from collections.abc import Sequence

from weft.core.units import format_bytes
from weft.cost.timeline import MemoryPoint, Timeline
from weft.report.markup import Markup, join, tag
from weft.report.plot.frame import Area, figure, legend, x_axis, y_axis
from weft.report.plot.scale import Scale, byte_ticks, second_ticks

__all__ = ["memory_plot", "thin"]

_WIDTH, _HEIGHT = 940.0, 290.0
_FAR = 4.0
"""A limit of more than so many times what is used would flatten the picture."""

_AREA = Area(left=116.0, top=34.0, width=804.0, height=206.0)


def memory_plot(
    timeline: Timeline, *, limit_bytes: float = 0.0, state_bytes: float = 0.0
) -> Markup:
    """Memory in use as an area, the part that stays from step to step, and the limit.

    Args:
        timeline: the simulated step.
        limit_bytes: what a device may use; 0 for no line.
        state_bytes: parameters, buffers and optimizer state; 0 for no line.
    """
    end_s = max(timeline.step_s, 1e-12)
    highest = max(timeline.peak_bytes, state_bytes, 1.0)
    limit_is_near = limit_bytes <= _FAR * highest
    top = max(highest, limit_bytes if limit_is_near else 0.0) * 1.06
    x = Scale(low=0.0, high=end_s, start=_AREA.left, end=_AREA.right)
    y = Scale(low=0.0, high=top, start=_AREA.bottom, end=_AREA.top)
    entries = [("in use", "fill-memory")]
    parts = [
        x_axis(_AREA, x, second_ticks(0.0, end_s, count=8), "time"),
        y_axis(_AREA, y, byte_ticks(0.0, top), "memory of a device"),
        _area(thin(timeline.memory, end_s / _AREA.width), end_s, x, y),
    ]
    if state_bytes:
        entries.append((f"state {format_bytes(state_bytes)}", "line-state"))
        parts.append(_level(y(state_bytes), "line-state"))
    if limit_bytes:
        beyond = "" if limit_is_near else ", above the picture"
        entries.append((f"limit {format_bytes(limit_bytes)}{beyond}", "line-limit"))
    if limit_bytes and limit_is_near:
        parts.append(_level(y(limit_bytes), "line-limit"))
    peak = format_bytes(timeline.peak_bytes)
    return join(legend(entries), figure(_WIDTH, _HEIGHT, f"Memory over time, peak {peak}", *parts))


def _level(y: float, style: str) -> Markup:
    return tag("line", x1=_AREA.left, x2=_AREA.right, y1=y, y2=y, class_=style)


def _area(points: Sequence[MemoryPoint], end_s: float, x: Scale, y: Scale) -> Markup:
    if not points:
        return Markup("")
    words = [f"M{x(points[0].time_s):.1f},{y.start:.1f}"]
    words += [
        f"V{y(point.num_bytes):.1f}H{x(following):.1f}"
        for point, following in zip(points, [*(p.time_s for p in points[1:]), end_s], strict=True)
    ]
    return tag("path", d="".join([*words, f"V{y.start:.1f}Z"]), class_="area fill-memory")


def thin(points: Sequence[MemoryPoint], finest_s: float) -> list[MemoryPoint]:
    """At most one point each `finest_s`: the highest of those that fall together.

    The peak is therefore never lost.
    """
    kept: list[MemoryPoint] = []
    for point in points:
        if kept and point.time_s - kept[-1].time_s < finest_s:
            kept[-1] = MemoryPoint(kept[-1].time_s, max(kept[-1].num_bytes, point.num_bytes))
        else:
            kept.append(point)
    return kept
