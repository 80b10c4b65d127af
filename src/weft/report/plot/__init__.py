"""Pictures of our own making, as inline SVG: no scripts, no fonts, no network."""

from __future__ import annotations

from weft.report.plot.bars import Bar, bar_plot
from weft.report.plot.lines import Level, Series, line_plot
from weft.report.plot.memory import memory_plot
from weft.report.plot.mesh import mesh_plot
from weft.report.plot.steps import timeline_plot

__all__ = [
    "Bar",
    "Level",
    "Series",
    "bar_plot",
    "line_plot",
    "memory_plot",
    "mesh_plot",
    "timeline_plot",
]
