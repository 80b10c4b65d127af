"""The programs that a search simulates: the whole one, its short versions, with recomputation.

Each is made when it is first asked for and kept for all meshes.
"""

from __future__ import annotations

from weft.parallel.depth import Gap, Shortened, Views, undivided
from weft.parallel.recompute import RECOMPUTATIONS, Expanded, expand
from weft.program.graph import Program

__all__ = ["Stage"]


class Stage:
    """A program, its short versions if it is deep, and each with recomputation."""

    def __init__(self, program: Program, views: Views | None = None) -> None:
        self.whole = undivided(program)
        self.views = views
        self._expanded: dict[tuple[tuple[Gap, ...], str], Expanded] = {}

    def expanded(self, view: Shortened, recomputation: str) -> Expanded:
        """A view with one of `RECOMPUTATIONS`."""
        key = (view.gaps, recomputation)
        if key not in self._expanded:
            nodes = RECOMPUTATIONS[recomputation](view.program)
            self._expanded[key] = expand(view.program, nodes)
        return self._expanded[key]
