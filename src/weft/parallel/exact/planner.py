"""The exact planner: flow programmes over all candidate meshes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import inf

from weft.parallel.candidate import Proposal
from weft.parallel.depth import Views
from weft.parallel.exact.conflict import collision, stuck_unit
from weft.parallel.exact.meshes import candidate_meshes
from weft.parallel.exact.pipelines.search import PipelineSearch
from weft.parallel.exact.pipelines.unlike import UnlikeSearch
from weft.parallel.exact.search import Limits, MeshSearch
from weft.parallel.exact.stage import Stage
from weft.parallel.outcome import PipelineOutcome
from weft.parallel.pipeline.orders import best_order, which_lost
from weft.parallel.pipeline.unlike import unlike_pipelines
from weft.parallel.plan import Alternative, Level
from weft.parallel.planner import Progress, Search
from weft.parallel.request import PlanRequest
from weft.parallel.rows import batch_rows
from weft.parallel.skeleton import Skeleton, build_skeleton
from weft.program.fold import Folding

__all__ = ["ExactPlanner"]


HOPELESS = 1.25
"""Optimum of a mesh's programme, without regard to memory, over a step that fits, beyond which the
mesh is passed over at the fast level. Derived: not 1, since a quarter of the communication that
may be hidden is in it."""


class ExactPlanner:
    """Rhino's role: an exact search, with the bound that says how good the plan is.

    Source: Rhino (arXiv 2302.08141); the formulation is weft's own, see docs/explain.
    """

    name = "exact"

    def start(
        self, request: PlanRequest, folding: Folding, views: Views | None, progress: Progress
    ) -> Search:
        """The best plan of each mesh, with and without recomputation."""
        return _Search(request, folding, views, progress)

    def pipelines(
        self,
        request: PlanRequest,
        views: Views | None,
        progress: Progress,
        least_groups: int,
        most_s: float,
    ) -> PipelineOutcome:
        """The best pipeline of the most promising configurations."""
        until_s = time.perf_counter() + request.time_limit_s
        search = PipelineSearch(request, views, progress, least_groups, most_s)
        plan = search.best_after_all()
        others: tuple[Alternative, ...] = ()
        notes: tuple[str, ...] = ()
        broken = search.broken
        if not request.machine.is_uniform:
            progress("pipelines over unlike devices")
            left_s = max(0.0, until_s - time.perf_counter())
            unlike = UnlikeSearch(replace(request, time_limit_s=left_s), views, progress, most_s)
            several = unlike.plans()
            notes, broken = unlike.notes, broken or unlike.broken
            if not any(one.fits for one in several):
                left_s = max(0.0, until_s - time.perf_counter())
                several += unlike_pipelines(replace(request, time_limit_s=left_s))
            if plan is not None:
                several += [plan, best_order(plan, request.program, request.machine)]
            fitting = [one for one in several if one.fits]
            plan = min(fitting, key=lambda one: one.prediction.step_s, default=None)
            others = () if plan is None else which_lost(plan, several)
        return PipelineOutcome(
            plan=plan,
            alternatives=(*others, *search.alternatives()),
            tightest="" if plan is not None else search.tightest(),
            notes=(*search.notes, *notes),
            broken=None if plan is not None else broken,
        )


class _Search:
    """One mesh after the other; HiGHS solves the next one while plans of this one are simulated."""

    def __init__(
        self, request: PlanRequest, folding: Folding, views: Views | None, progress: Progress
    ) -> None:
        self._request = request
        self._limits = Limits(
            memory_limit_bytes=request.limit_bytes,
            level=request.level,
            deadline_s=time.perf_counter() + request.time_limit_s,
        )
        self._progress = progress
        self._stage = Stage(request.program, views)
        self._searches = self._of_meshes(build_skeleton(request.program, folding, request.pinning))
        self._open: list[MeshSearch] = []
        self.notes: tuple[str, ...] = ()
        self._begin(0)

    def free(self) -> list[Proposal]:
        """What the meshes' programmes find without regard to memory, with recomputation if need be.

        Recomputation is looked at only where the step without it is shorter than one that fits.
        """
        found: list[Proposal] = []
        for search in self._in_order():
            self._progress(f"mesh {search.mesh}, memory without a price")
            self._begin(self._searches.index(search))
            look = partial(search.recomputed, _least_s(found))
            in_time = self._in_time(search, found, look)
            found += search.proposals
            if not in_time:
                break
        return found

    def proposals(self, most_s: float = inf) -> list[Proposal]:
        """Search the meshes in turn, until time is up."""
        found: list[Proposal] = []
        for number, search in enumerate(self._in_order(), start=1):
            self._progress(f"mesh {search.mesh} ({number} of {len(self._searches)})")
            if number < len(self._searches) and len(self._open) == 1:
                self._begin(number)
            in_time = self._in_time(search, found, partial(search.search, most_s))
            found += search.proposals
            if not in_time:
                self._out_of_time(len(self._searches) - number + 1)
                break
            self._open.remove(search)
            search.close()
        return found

    def _in_order(self) -> list[MeshSearch]:
        """At the fast level the mesh whose programme promises most comes first."""
        if self._request.level is not Level.FAST or len(self._searches) == 1:
            return self._searches
        for number in range(1, len(self._searches)):
            self._begin(number)
        try:
            return sorted(self._searches, key=lambda search: search.least_s)
        except TimeoutError:
            return self._searches

    def close(self) -> None:
        """Stop what still runs."""
        for search in self._open:
            search.close()
        self._open.clear()

    def _of_meshes(self, skeleton: Skeleton) -> list[MeshSearch]:
        """A search for each mesh on which the pins can be kept.

        Raises:
            InfeasibleError: there is none; names the pins that collide.
        """
        request, pinning = self._request, skeleton.pinning
        meshes = (
            (request.mesh,)
            if request.mesh is not None
            else (
                *(degrees.mesh for degrees in request.in_proportion if not degrees.wide),
                *candidate_meshes(request.machine, request.level, batch_rows(request.program)),
            )
        )
        searches = [
            MeshSearch(skeleton, request.machine, mesh, self._limits, self._stage)
            for mesh in meshes
        ]
        if not pinning.values:
            return searches
        kept = [s for s in searches if stuck_unit(s.problem, pinning) is None]
        if not kept:
            raise collision([search.problem for search in searches], pinning)
        return kept

    def _begin(self, number: int) -> None:
        search = self._searches[number]
        if search not in self._open:
            search.start()
            self._open.append(search)

    def _in_time(
        self, search: MeshSearch, found: Sequence[Proposal], look: Callable[[], object]
    ) -> bool:
        """Look at a mesh; False if there was no time for that.

        At the fast level a mesh that promises less than what was found is passed over.
        """
        if time.perf_counter() > self._limits.deadline_s:
            return False
        best_s = _least_s(found)
        try:
            if self._request.level is Level.FAST and search.least_s > HOPELESS * best_s:
                return True
            look()
        except TimeoutError:
            return False
        return True

    def _out_of_time(self, missing: int) -> None:
        left = f"time limit: {missing} of {len(self._searches)} mesh shapes not searched to the end"
        self.notes = (left,)
        self._progress(left)


def _least_s(found: Sequence[Proposal]) -> float:
    """The shortest step of those that fit; infinite if none does [s]."""
    return min((p.prediction.step_s for p in found if p.fits), default=inf)
