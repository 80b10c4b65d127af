"""Where money, or tokens, went: a bar for each group, cut by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from weft.report.markup import Markup, join, tag
from weft.report.plot.frame import Area, figure, legend, text_width, x_axis
from weft.report.plot.scale import Scale, Ticks

__all__ = ["Piece", "Stack", "stack_plot"]

_WIDTH, _ROW = 940.0, 30.0
_NAME_ROOM = 300.0
"""Longer names are cut, so that bars keep more than half of the picture. Chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a bar: what it is, how long, and a CSS class."""

    name: str
    value: float
    style: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A bar: its name, its pieces from the left, and the text at its end."""

    name: str
    pieces: tuple[Piece, ...]
    text: str

    @property
    def length(self) -> float:
        """Of all pieces."""
        return sum(piece.value for piece in self.pieces)


def stack_plot(stacks: Sequence[Stack], ticks: Ticks, *, title: str, x_title: str) -> Markup:
    """Horizontal bars from zero, with a legend of their pieces.

    Args:
        stacks: at least one, in order from the top.
        ticks: marks of the horizontal axis.
        title: what is shown, for those who cannot see the picture.
        x_title: name of the axis.
    """
    left = min(_NAME_ROOM, max(text_width(stack.name) for stack in stacks)) + 20
    room = max(text_width(stack.text) for stack in stacks) + 20
    area = Area(left=left, top=6.0, width=_WIDTH - left - room, height=_ROW * len(stacks))
    longest = max(max(stack.length for stack in stacks), 1e-12)
    x = Scale(low=0.0, high=longest, start=area.left, end=area.right)
    rows = [_row(stack, area.top + _ROW * place, x) for place, stack in enumerate(stacks)]
    entries = dict.fromkeys((p.name, p.style) for stack in stacks for p in stack.pieces if p.value)
    parts = [x_axis(area, x, ticks, x_title), *rows]
    return join(legend(list(entries)), figure(_WIDTH, area.bottom + 42, title, *parts))


def _row(stack: Stack, top: float, x: Scale) -> Markup:
    middle = top + _ROW / 2 + 4
    parts: list[Markup] = []
    reached = 0.0
    for piece in stack.pieces:
        start, reached = x(reached), reached + piece.value
        if piece.value:
            parts.append(
                tag(
                    "rect",
                    tag("title", f"{stack.name}, {piece.name}"),
                    x=start,
                    y=top + 5,
                    width=max(x(reached) - start, 0.5),
                    height=_ROW - 10,
                    class_=piece.style,
                )
            )
    return tag(
        "g",
        tag("text", _short(stack.name), x=x.start - 10, y=middle, text_anchor="end"),
        *parts,
        tag("text", stack.text, x=x(reached) + 8, y=middle, text_anchor="start"),
    )


def _short(name: str) -> str:
    most = int(_NAME_ROOM / text_width("m"))
    return name if len(name) <= most else f"{name[: most - 3]}..."
