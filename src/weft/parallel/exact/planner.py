"""The exact planner: flow programmes over all candidate meshes."""

from __future__ import annotations

import time

from weft.parallel.candidate import Candidate
from weft.parallel.exact.meshes import candidate_meshes
from weft.parallel.exact.search import Limits, search_mesh
from weft.parallel.planner import Progress
from weft.parallel.recompute import cheap_nodes, layer_nodes
from weft.parallel.request import PlanRequest
from weft.parallel.skeleton import build_skeleton
from weft.program.fold import fold

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
            found += search_mesh(
                program,
                request.machine,
                mesh,
                limits,
                skeleton,
                lambda: {"cheap": cheap_nodes(program), "full": layer_nodes(program)},
            )
        return found
