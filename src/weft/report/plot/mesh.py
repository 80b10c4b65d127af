"""The device grid: which devices share a node, and along which axis they meet."""

from __future__ import annotations

import math
from dataclasses import dataclass

from weft.parallel.placement import Mesh
from weft.report.markup import Markup, join, tag
from weft.report.plot.frame import figure, text_width

__all__ = ["mesh_plot"]

_WIDTH = 940.0
_MOST_COLUMNS, _MOST_ROWS = 64, 16
_WIDEST, _HIGHEST = 48.0, 34.0
_TOP, _STRIP = 30.0, 16.0


def mesh_plot(mesh: Mesh, axis_names: tuple[str, ...], devices_per_node: int) -> Markup:
    """The mesh as a grid of squares, the innermost axis downwards, the others to the right.

    Squares of one node share a shade, which none of the nodes beside it has, and stand below
    its name where nodes and columns line up. A grid that is too large for the page is cut, and
    says so.

    Args:
        mesh: the grid.
        axis_names: one for each axis.
        devices_per_node: consecutive ranks that share a node.
    """
    inner = mesh.shape[-1]
    outer = math.prod(mesh.shape[:-1])
    down = f"{axis_names[-1]} = {inner}"
    named = zip(axis_names[:-1], mesh.shape[:-1], strict=True)
    across = " x ".join(f"{name} = {size}" for name, size in named)
    grid = _Grid(
        left=text_width(down) + 24,
        inner=inner,
        columns=min(outer, _MOST_COLUMNS),
        rows=min(inner, _MOST_ROWS),
        per_node=devices_per_node,
    )
    labels = _node_labels(grid)
    labels.append(tag("text", f"{down} ↓", x=4, y=grid.y(0) + grid.height / 2 + 4))
    if across:
        labels.append(tag("text", f"{across} →", x=grid.left, y=18))
    height = grid.y(grid.rows - 1) + grid.height + 12
    if grid.columns < outer or grid.rows < inner:
        cut = f"the first {grid.columns * grid.rows} of {mesh.num_devices} devices"
        labels.append(tag("text", cut, x=grid.left, y=height + 8))
        height += 18
    description = f"Mesh {mesh} of {mesh.num_devices} devices, {devices_per_node} in a node"
    return figure(_WIDTH, height, description, join(*_squares(grid)), join(*labels))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """Where the squares stand [pixels], and which node each belongs to."""

    left: float
    inner: int
    columns: int
    rows: int
    per_node: int

    @property
    def width(self) -> float:
        """Of a square."""
        return min(_WIDEST, (_WIDTH - self.left - 30) / self.columns)

    @property
    def height(self) -> float:
        """Of a square."""
        return min(_HIGHEST, self.width)

    @property
    def is_aligned(self) -> bool:
        """Whether each node is a part of a column or a number of whole columns."""
        return self.inner % self.per_node == 0 or self.per_node % self.inner == 0

    def rank(self, column: int, row: int) -> int:
        """The device at a place of the grid."""
        return column * self.inner + row

    def node(self, column: int, row: int) -> int:
        """The node at a place of the grid."""
        return self.rank(column, row) // self.per_node

    def x(self, column: int) -> float:
        """Left edge of a column."""
        return self.left + column * self.width

    def y(self, row: int) -> float:
        """Upper edge of a row; a row in which nodes begin leaves room for their names."""
        strips = row // min(self.per_node, self.inner) + 1 if self.is_aligned else 0
        return _TOP + row * self.height + strips * _STRIP


def _node_labels(grid: _Grid) -> list[Markup]:
    """Names of the nodes above their first squares: of as many nodes as there is room for."""
    if not grid.is_aligned:
        return []
    starts = [
        (column, row)
        for column in range(grid.columns)
        for row in range(grid.rows)
        if grid.rank(column, row) % grid.per_node == 0
    ]
    columns = max(1, grid.per_node // grid.inner)
    longest = text_width(f"node {grid.node(*starts[-1])}")
    every = columns * math.ceil((longest + 2) / (columns * grid.width))
    return [
        tag("text", f"node {grid.node(column, row)}", x=grid.x(column) + 1, y=grid.y(row) - 3)
        for column, row in starts
        if column % every == 0 and grid.x(column) + longest < _WIDTH
    ]


def _shades(grid: _Grid) -> dict[int, int]:
    """A shade for each node, another one than those of the nodes above and to the left.

    A node meets one other above and two to the left at most, so that four shades do.
    """
    beside: dict[int, set[int]] = {}
    for column in range(grid.columns):
        for row in range(grid.rows):
            met = beside.setdefault(grid.node(column, row), set())
            if row:
                met.add(grid.node(column, row - 1))
            if column:
                met.add(grid.node(column - 1, row))
    shades: dict[int, int] = {}
    for node, met in beside.items():
        taken = {shades[other] for other in met if other != node}
        shades[node] = next(shade for shade in range(len(taken) + 1) if shade not in taken)
    return shades


def _squares(grid: _Grid) -> list[Markup]:
    shades = _shades(grid)
    return [
        _square(grid, column, row, shades[grid.node(column, row)])
        for column in range(grid.columns)
        for row in range(grid.rows)
    ]


def _square(grid: _Grid, column: int, row: int, shade: int) -> Markup:
    rank, x, y = grid.rank(column, row), grid.x(column), grid.y(row)
    gap = 2.0 if grid.width > 12 else 0.8
    parts = [
        tag(
            "rect",
            tag("title", f"rank {rank}, node {grid.node(column, row)}"),
            x=x + gap / 2,
            y=y + gap / 2,
            width=grid.width - gap,
            height=grid.height - gap,
            rx=min(3.0, grid.height / 6),
            class_=f"node-{shade}",
        )
    ]
    if text_width(str(rank)) < grid.width - 4:
        middle = {"x": x + grid.width / 2, "y": y + grid.height / 2 + 4}
        parts.append(tag("text", str(rank), text_anchor="middle", class_="rank", **middle))
    return join(*parts)
