"""The exact planner: flow programmes over all candidate meshes."""

from __future__ import annotations

import time

from weft.parallel.candidate import Proposal
from weft.parallel.depth import Views
from weft.parallel.exact.meshes import candidate_meshes
from weft.parallel.exact.search import Limits, MeshSearch
from weft.parallel.exact.stage import Stage
from weft.parallel.planner import Progress
from weft.parallel.request import PlanRequest
from weft.parallel.skeleton import build_skeleton
from weft.program.fold import Folding

__all__ = ["ExactPlanner"]


class ExactPlanner:
    """Rhino's role: an exact search, with the bound that says how good the plan is.

    Source: Rhino (arXiv 2302.08141); the formulation is weft's own, see docs/explain.
    """

    name = "exact"

    def proposals(
        self, request: PlanRequest, folding: Folding, views: Views | None, progress: Progress
    ) -> list[Proposal]:
        """The best plan of each mesh, with and without recomputation."""
        started = time.perf_counter()
        skeleton = build_skeleton(request.program, folding)
        limits = Limits(memory_limit_bytes=request.limit_bytes, level=request.level)
        stage = Stage(request.program, views)
        meshes = (
            (request.mesh,)
            if request.mesh is not None
            else candidate_meshes(request.machine, request.level)
        )
        found: list[Proposal] = []
        for number, mesh in enumerate(meshes, start=1):
            if found and time.perf_counter() - started > request.time_limit_s:
                progress(f"time limit: {len(meshes) - number + 1} mesh shapes not tried")
                break
            progress(f"mesh {mesh} ({number} of {len(meshes)})")
            search = MeshSearch(skeleton, request.machine, mesh, limits, stage)
            search.search()
            found += search.proposals
        return found
