"""The exact planner: flow programmes over all candidate meshes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from weft.parallel.candidate import Proposal
from weft.parallel.depth import Views
from weft.parallel.exact.meshes import candidate_meshes
from weft.parallel.exact.search import Limits, MeshSearch
from weft.parallel.exact.stage import Stage
from weft.parallel.planner import Progress, Search
from weft.parallel.request import PlanRequest
from weft.parallel.skeleton import build_skeleton
from weft.program.fold import Folding

__all__ = ["ExactPlanner"]


class ExactPlanner:
    """Rhino's role: an exact search, with the bound that says how good the plan is.

    Source: Rhino (arXiv 2302.08141); the formulation is weft's own, see docs/explain.
    """

    name = "exact"

    def start(
        self, request: PlanRequest, folding: Folding, views: Views | None, progress: Progress
    ) -> Search:
        """The best plan of each mesh, with and without recomputation."""
        return _Search(request, folding, views, progress).proposals


class _Search:
    """One mesh after the other; HiGHS solves the next one while plans of this one are simulated."""

    def __init__(
        self, request: PlanRequest, folding: Folding, views: Views | None, progress: Progress
    ) -> None:
        self._started_s = time.perf_counter()
        self._request = request
        self._progress = progress
        self._skeleton = build_skeleton(request.program, folding)
        self._stage = Stage(request.program, views)
        self._meshes = (
            (request.mesh,)
            if request.mesh is not None
            else candidate_meshes(request.machine, request.level)
        )
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="weft-highs")
        self._next = self._begin(0)

    def proposals(self) -> list[Proposal]:
        found: list[Proposal] = []
        try:
            for number, mesh in enumerate(self._meshes, start=1):
                if found and time.perf_counter() - self._started_s > self._request.time_limit_s:
                    left = len(self._meshes) - number + 1
                    self._progress(f"time limit: {left} mesh shapes not tried")
                    break
                self._progress(f"mesh {mesh} ({number} of {len(self._meshes)})")
                search = self._next
                if number < len(self._meshes):
                    self._next = self._begin(number)
                search.search()
                found += search.proposals
        finally:
            self._pool.shutdown(cancel_futures=True)
        return found

    def _begin(self, number: int) -> MeshSearch:
        request = self._request
        limits = Limits(memory_limit_bytes=request.limit_bytes, level=request.level)
        mesh = self._meshes[number]
        search = MeshSearch(self._skeleton, request.machine, mesh, limits, self._stage)
        search.start(self._pool)
        return search
