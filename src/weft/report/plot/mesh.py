"""The device grid: which devices share a node, and along which axis they meet."""

from __future__ import annotations

import math

from weft.parallel.placement import Mesh
from weft.report.markup import Markup, join, tag
from weft.report.plot.frame import figure, text_width

__all__ = ["mesh_plot"]

_WIDTH = 940.0
_MOST_COLUMNS, _MOST_ROWS = 64, 16
_LARGEST = 34.0


def mesh_plot(mesh: Mesh, axis_names: tuple[str, ...], devices_per_node: int) -> Markup:
    """The mesh as a grid of squares, the innermost axis downwards, the others to the right.

    Squares of one node share a shade. A grid that is too large for the page is cut, and says
    so.

    Args:
        mesh: the grid.
        axis_names: one for each axis.
        devices_per_node: consecutive ranks that share a node.
    """
    inner = mesh.shape[-1]
    outer = math.prod(mesh.shape[:-1])
    columns, rows = min(outer, _MOST_COLUMNS), min(inner, _MOST_ROWS)
    down = f"{axis_names[-1]} {inner}"
    across = " x ".join(f"{n} {s}" for n, s in zip(axis_names[:-1], mesh.shape[:-1], strict=True))
    left = text_width(down) + 24
    cell = min(_LARGEST, (_WIDTH - left - 30) / columns)
    squares = [
        _square(column * inner + row, left + column * cell, 30 + row * cell, cell, devices_per_node)
        for column in range(columns)
        for row in range(rows)
    ]
    labels = [tag("text", f"{down} ↓", x=4, y=30 + cell / 2 + 4)]
    if across:
        labels.append(tag("text", f"{across} →", x=left, y=18))
    height = 30 + rows * cell + 12
    if columns < outer or rows < inner:
        cut = f"the first {columns * rows} of {mesh.num_devices} devices"
        labels.append(tag("text", cut, x=left, y=height + 8))
        height += 18
    description = f"Mesh {mesh} of {mesh.num_devices} devices, {devices_per_node} in a node"
    return figure(_WIDTH, height, description, join(*squares), join(*labels))


def _square(rank: int, x: float, y: float, cell: float, devices_per_node: int) -> Markup:
    node = rank // devices_per_node
    gap = 2.0 if cell > 12 else 0.8
    parts = [
        tag(
            "rect",
            tag("title", f"rank {rank}, node {node}"),
            x=x + gap / 2,
            y=y + gap / 2,
            width=cell - gap,
            height=cell - gap,
            rx=min(3.0, cell / 6),
            class_=f"node-{node % 2}",
        )
    ]
    if text_width(str(rank)) < cell - 4:
        middle = {"x": x + cell / 2, "y": y + cell / 2 + 4}
        parts.append(tag("text", str(rank), text_anchor="middle", class_="rank", **middle))
    return join(*parts)
