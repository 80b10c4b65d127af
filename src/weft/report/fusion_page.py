"""A model's regions as a page: the graph, the bytes that fusion saves, the plans, the code."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from pathlib import Path

from weft.core.units import format_bytes, format_seconds
from weft.fusion.explained import ExplainedRegion, Explanation
from weft.report.markup import Markup, join, tag
from weft.report.page import Figure, Page, Section, html_table, write_page
from weft.report.plot.frame import figure, legend
from weft.report.table import Table

__all__ = ["fusion_plain", "fusion_table", "write_fusion_page"]

_WIDTH, _BOX, _HEIGHT, _GAP = 940.0, 104.0, 34.0, 8.0


def fusion_table(fused: Explanation) -> Table:
    """The regions, for people."""
    return Table(
        caption=fused.name,
        columns=("region", "operators", "phases", "by", *_FIGURES),
        rows=tuple(
            (
                str(numbers[0]) + (f" and {len(numbers) - 1} alike" if len(numbers) > 1 else ""),
                str(len(region.operators)),
                str(len(region.phases)),
                "Inductor" if region.left else "weft",
                *_figures(region),
            )
            for numbers in fused.alike
            for region in (fused.regions[numbers[0]],)
        ),
    )


_FIGURES = ("predicted", "Inductor's", "bound", "moves", "unfused")


def _figures(region: ExplainedRegion) -> tuple[str, ...]:
    plan = region.plan
    if plan is None:
        return ("",) * len(_FIGURES)
    return (
        format_seconds(plan.seconds),
        "" if region.inductor_s is None else format_seconds(region.inductor_s),
        format_seconds(plan.bound_s),
        format_bytes(plan.num_bytes),
        format_bytes(plan.unfused_bytes),
    )


def fusion_plain(fused: Explanation) -> dict[str, object]:
    """The same as JSON values."""
    return {
        "model": fused.name,
        "regions": [
            {
                "operators": list(region.operators),
                "phases": len(region.phases),
                "predicted_s": region.plan.seconds if region.plan else None,
                "inductor_s": region.inductor_s,
                "bound_s": region.plan.bound_s if region.plan else None,
                "bytes": region.plan.num_bytes if region.plan else None,
                "unfused_bytes": region.plan.unfused_bytes if region.plan else None,
                "left": region.left,
            }
            for region in fused.regions
        ],
        "inductor": dict(Counter(n for g in fused.graphs for n in g if isinstance(n, str))),
    }


def write_fusion_page(fused: Explanation, path: Path) -> None:
    """Write the page.

    Raises:
        FileError: the file cannot be written.
    """
    kernels = fused.taken
    phases = sum(len(region.phases) for region in kernels)
    plans = [region.plan for region in kernels if region.plan is not None]
    moved, unfused = (sum(p.num_bytes for p in plans), sum(p.unfused_bytes for p in plans))
    write_page(
        Page(
            title=f"fusion of {fused.name}",
            kicker=f"how weft fuses {fused.name}",
            sentence=fused.sentence,
            figures=(
                Figure(value=str(len(kernels)), meaning="kernels"),
                Figure(value=str(phases), meaning="phases in them"),
                Figure(value=format_bytes(moved), meaning="moved"),
                Figure(value=format_bytes(unfused), meaning="moved without fusion"),
            ),
            picture=Section(
                heading="The fused graph",
                text="Each box is a kernel, in the order in which they run.",
                body=join(
                    legend((("compiled by weft", "fill-1"), ("by Inductor", "fill-2"))),
                    *(_graph(number, fused) for number in range(len(fused.graphs))),
                ),
            ),
            sections=(
                Section(heading="Regions", body=html_table(fusion_table(fused))),
                *(_region(number, region) for number, region in enumerate(fused.regions)),
            ),
        ),
        path,
    )


def _graph(number: int, fused: Explanation) -> Markup:
    """The kernels of a graph as boxes, in rows; equal neighbours are one."""
    boxes: list[tuple[str, str, str]] = []
    for name, group in groupby(fused.graphs[number]):
        count = len(list(group))
        if isinstance(name, int):
            size = len(fused.regions[name].operators)
            style = "fill-2" if fused.regions[name].left else "fill-1"
            boxes.append((f"region {name}", f"{size} operators", style))
        else:
            short = name.split(".")[1] if name.count(".") > 1 else name
            boxes.append((short[:15], f"{count} times" if count > 1 else "", "fill-2"))
    in_row = int(_WIDTH // (_BOX + _GAP))
    parts = [
        _box(box, at % in_row * (_BOX + _GAP), at // in_row * (_HEIGHT + _GAP))
        for at, box in enumerate(boxes)
    ]
    rows = -(-len(boxes) // in_row)
    what = "forward" if number == 0 else "backward" if number == 1 else f"graph {number}"
    picture = figure(_WIDTH, rows * (_HEIGHT + _GAP), f"kernels of the {what} graph", *parts)
    return join(tag("h3", what), picture)


def _box(box: tuple[str, str, str], left: float, top: float) -> Markup:
    name, below, style = box
    middle = left + _BOX / 2
    return tag(
        "g",
        tag("rect", x=left, y=top, width=_BOX, height=_HEIGHT, rx=4, class_=style),
        tag("text", name, x=middle, y=top + 15, text_anchor="middle"),
        tag("text", below, x=middle, y=top + 29, text_anchor="middle") if below else None,
    )


def _region(number: int, region: ExplainedRegion) -> Section:
    rows = tuple(
        (
            str(at),
            phase.shared_out,
            "; ".join(phase.nests),
            format_seconds(phase.seconds),
            format_bytes(phase.num_bytes),
        )
        for at, phase in enumerate(region.phases)
    )
    columns = ("phase", "shared out", "nests", "predicted", "moves")
    names = ", ".join(
        f"{op} {count}" if count > 1 else op for op, count in Counter(region.operators).items()
    )
    left = f" Left to Inductor: {region.left}" if region.left else ""
    code = tag("details", tag("summary", "generated code"), tag("pre", region.source))
    return Section(
        heading=f"Region {number}",
        text=f"{names}.{left}",
        body=join(html_table(Table(columns=columns, rows=rows)), code),
    )
