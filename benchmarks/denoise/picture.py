"""Likeness over speed of all contestants, as a picture: python -m benchmarks.denoise.picture.

Drawn from the last line of the kept results, so that it shows what the table says.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from benchmarks.denoise.run import FULL, UNCALIBRATED, WEFT, Point, frontier
from weft.report.markup import Markup, join, tag
from weft.report.plot.frame import Area, text_width, x_axis, y_axis
from weft.report.plot.scale import Scale, linear_ticks
from weft.report.plot.standalone import standalone

__all__ = ["draw", "points_of"]

Line: TypeAlias = list[tuple[float, float]]

_PANEL, _GAP, _LEFT, _TOP, _HEIGHT = 430.0, 46.0, 56.0, 62.0, 330.0
_SPEEDS, _LIKENESS = (1.0, 6.6), (18.0, 76.0)
_ROOM = 15.0
"""Between the names of two lines [pixels]: the height of a line of text."""
_INKS = {
    "fewer steps": ("#59626d", "#9aa5b1"),
    "FirstBlockCache": ("#d55e00", "#f07f35"),
    "PAB": ("#cc79a7", "#e39cc4"),
    "MagCache": ("#009e73", "#3cc79c"),
    "SeaCache": ("#c58a00", "#f0b429"),
    "TaylorSeer": ("#7a5195", "#b48fd0"),
    "cache-dit": ("#c0392b", "#ef6b5b"),
    WEFT: ("#0072b2", "#4aa3dc"),
}
"""On light and on dark ground, in the order in which they are drawn."""
_LINES = """
.line{fill:none;stroke-width:1.6}.line.weft{stroke-width:3.2}text.weft{font-weight:600}
.line.fewer-steps{stroke-dasharray:5 4}circle{fill:#fff;stroke-width:1.6}
"""


def _class(name: str) -> str:
    return name.replace(" ", "-")


def _inks(at: int) -> str:
    return "".join(
        f".line.{_class(name)},circle.{_class(name)}{{stroke:{both[at]}}}"
        f"text.{_class(name)}{{fill:{both[at]}}}\n"
        for name, both in _INKS.items()
    )


def points_of(result: Mapping[str, object]) -> dict[str, list[Point]]:
    """What a line of the kept results tells of each denoiser."""
    told: Mapping[str, Sequence[Sequence[object]]] = result["points"]  # type: ignore[assignment]
    return {
        name: [Point(**dict(zip(Point.__slots__, row, strict=True))) for row in rows]  # type: ignore[arg-type]
        for name, rows in told.items()
    }


def draw(found: Mapping[str, Sequence[Point]]) -> str:
    """An SVG document: a panel for each denoiser."""
    width = _LEFT + len(found) * (_PANEL + _GAP)
    height = _TOP + _HEIGHT + 44
    text = (
        "Likeness to the video of all steps in full over speed, for each cache the best of its"
        " settings. weft's line lies above all others at every speed."
        if all(map(_leads, found.values()))
        else "Likeness to the video of all steps in full over speed, for each cache the best of"
        " its settings."
    )
    return standalone(
        width,
        height,
        *(
            _panel(name, points, _LEFT + n * (_PANEL + _GAP))
            for n, (name, points) in enumerate(found.items())
        ),
        title="Likeness over speed",
        text=text,
        light=_LINES + _inks(0),
        dark=f"circle{{fill:#14171b}}\n{_inks(1)}",
    )


def _leads(points: Sequence[Point]) -> bool:
    """Whether no setting of another is both as fast and as good as one of weft's line."""
    own = frontier(points, WEFT)
    others = [p for p in points if p.name not in (WEFT, FULL, UNCALIBRATED)]
    return not any(p.speedup >= speed and p.psnr_db >= db for p in others for speed, db in own)


def _panel(name: str, points: Sequence[Point], left: float) -> Markup:
    area = Area(left=left, top=_TOP, width=_PANEL, height=_HEIGHT)
    x = Scale(low=_SPEEDS[0], high=_SPEEDS[1], start=area.left, end=area.right)
    y = Scale(low=_LIKENESS[0], high=_LIKENESS[1], start=area.bottom, end=area.top)
    lines = {
        own: _seen(frontier(points, own)) for own in _INKS if any(p.name == own for p in points)
    }
    return join(
        tag("text", f"{name}, 50 steps", x=area.left, y=20.0, class_="head"),
        tag(
            "text", "likeness to all steps in full (PSNR) [dB]", x=area.left, y=38.0, class_="note"
        ),
        y_axis(area, y, linear_ticks(y.low, y.high, count=6), ""),
        x_axis(area, x, linear_ticks(x.low, x.high, count=8), "speed over all steps in full"),
        *(_drawn(line, _class(own), x, y) for own, line in lines.items() if line),
        *_names({own: line for own, line in lines.items() if line}, area, x, y),
    )


def _seen(line: Line) -> Line:
    """Those points of a line that lie inside of the picture."""
    (slow, fast), (low, high) = _SPEEDS, _LIKENESS
    return [(s, db) for s, db in line if slow <= s <= fast and low <= db <= high]


def _drawn(line: Line, style: str, x: Scale, y: Scale) -> Markup:
    path = "L".join(f"{x(s):.1f},{y(db):.1f}" for s, db in line)
    dots = [
        tag("circle", tag("title", f"{s:.2f}, {db:.1f} dB"), cx=x(s), cy=y(db), r=2.8, class_=style)
        for s, db in line
    ]
    return join(tag("path", d=f"M{path}", class_=f"line {style}"), *dots)


def _names(lines: Mapping[str, Line], area: Area, x: Scale, y: Scale) -> list[Markup]:
    """Names at the right ends of lines, moved apart where they would touch."""
    parts: list[Markup] = []
    taken: list[tuple[float, float, float]] = []
    for name, line in sorted(lines.items(), key=lambda own: own[1][-1][1], reverse=True):
        speed, db = line[-1]
        half = text_width(name)
        left = min(x(speed) + 8, area.right - half)
        at = y(db) + 4
        while any(abs(at - b) < _ROOM and left < r and a < left + half for a, b, r in taken):
            at += 2.0
        taken.append((left, at, left + half))
        parts.append(tag("text", name, x=left, y=at, class_=_class(name)))
    return parts


if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parents[2]
    (KEPT,) = sorted((ROOT / "benchmarks/results").glob("denoise_*.jsonl"))[-1:]
    PLACE = ROOT / "docs/images/denoise.svg"
    PLACE.write_text(draw(points_of(json.loads(KEPT.read_text().splitlines()[-1]))))
    print(PLACE, file=sys.stderr)
