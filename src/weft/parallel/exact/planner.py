"""The exact planner: flow programmes over all candidate meshes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from weft.parallel.candidate import Candidate
from weft.parallel.exact.meshes import candidate_meshes
from weft.parallel.exact.search import Limits, MeshSearch
from weft.parallel.planner import Progress
from weft.parallel.recompute import Expanded, cheap_nodes, expand, layer_nodes
from weft.parallel.request import PlanRequest
from weft.parallel.skeleton import build_skeleton
from weft.program.fold import fold
from weft.program.graph import Program

__all__ = ["ExactPlanner"]


class ExactPlanner:
    """Rhino's role: an exact search, with the bound that says how good the plan is.

    Source: Rhino (arXiv 2302.08141); the formulation is weft's own, see docs/explain.
    """

    name = "exact"

    def candidates(self, request: PlanRequest, progress: Progress) -> list[Candidate]:
        """The best plan of each mesh, with and without recomputation."""
        started = time.perf_counter()
        program = request.program
        skeleton = build_skeleton(program, fold(program))
        limits = Limits(memory_limit_bytes=request.limit_bytes, level=request.level)
        recomputations = Recomputations(program)
        meshes = (
            (request.mesh,)
            if request.mesh is not None
            else candidate_meshes(request.machine, request.level)
        )
        found: list[Candidate] = []
        for number, mesh in enumerate(meshes, start=1):
            if found and time.perf_counter() - started > request.time_limit_s:
                progress(f"time limit: {len(meshes) - number + 1} mesh shapes not tried")
                break
            progress(f"mesh {mesh} ({number} of {len(meshes)})")
            search = MeshSearch(skeleton, request.machine, mesh, limits, recomputations)
            search.search()
            found += search.candidates
        return found


class Recomputations(Mapping[str, Expanded]):
    """Ways to recompute, least work first; made when they are first asked for."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._ways = {"cheap": cheap_nodes, "full": layer_nodes}
        self._made: dict[str, Expanded] = {}

    def __getitem__(self, name: str) -> Expanded:
        if name not in self._made:
            self._made[name] = expand(self._program, self._ways[name](self._program))
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ways)

    def __len__(self) -> int:
        return len(self._ways)
