"""The planner for unlike devices: `planner="mcts"`.

Operators are decided about in groups: on which devices, with how many rows each, and how gradients
meet. A tree search whose prior was trained on random pairs of models and machines looks for the
best in a coarse simulation; the best of what it finds become plans, which are simulated operator by
operator beside the experts' plans, as every planner's. Two more trees follow: over layers that are
cut along a mesh, and over pipelines.

Source: TAG (Zhang et al. 2023, arXiv 2302.06126); shares of the batch in proportion, factors chosen
with the rest, and pipelines are weft's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf

from weft.core.errors import InputError
from weft.parallel.candidate import Candidate, Proposal
from weft.parallel.depth import Views
from weft.parallel.experts import Desk, wide_grid
from weft.parallel.homes import Homes, plan_by_homes
from weft.parallel.mcts.cutting import CutSearch
from weft.parallel.mcts.deciding import Decided, decide
from weft.parallel.mcts.pipelines import found_pipelines
from weft.parallel.mcts.search import Prior
from weft.parallel.outcome import PipelineOutcome, outcome_of
from weft.parallel.pipeline.unlike import unlike_pipelines
from weft.parallel.plan import Level
from weft.parallel.planner import Progress, Search
from weft.parallel.request import PlanRequest
from weft.parallel.schemes import Schemes
from weft.program.fold import Folding

__all__ = ["SIMULATIONS", "MctsPlanner"]

SIMULATIONS = {Level.FAST: (200, 1000), Level.BEST: (1000, 5000)}
"""Of the tree search and of its refinement. Derived: one takes 1 to 3 ms for 40 groups on 16
devices, so that a search takes seconds, or tens of them."""
PLANS = {Level.FAST: 4, Level.BEST: 8}
"""Decisions that are simulated operator by operator. Chosen: of a step of some thousand operators
each takes seconds, as the search does; the first of them was mostly the best."""
MOST_DEVICES = 64
"""Devices that a tree search decides about. Derived: a simulation holds a figure for each pair of
devices and group, and those of 512 devices take gigabytes."""
LEAVES = {Level.FAST: 16, Level.BEST: 64}
"""Plans with cut layers that are simulated operator by operator. Chosen: as for `PLANS`; the first
of each mesh is what pays by price."""
ONE_STAGE, HOMES = 0.8, 0.7
"""Share of the time limit after which no more plans of one stage are looked at where there may be
pipelines, and share of that after which the search over homes ends. Chosen."""
NAME = "groups of operators by tree search"


class MctsPlanner:
    """TAG's role: tree search over homes of groups of operators, layers to cut, and pipelines.

    Args:
        prior: what the search over homes expects of choices; that of the shipped network if None,
            which needs the extra `mcts`.
        simulations: of the search over homes and of its refinement; those of the level if None.
        seed: of the partition into groups.
        stop: asked before each simulation whether to end with the best plan so far.

    Raises:
        InputError: fewer than 0 simulations.
    """

    name = "mcts"

    def __init__(
        self,
        *,
        prior: Prior | None = None,
        simulations: tuple[int, int] | None = None,
        seed: int = 0,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        if simulations is not None and min(simulations) < 0:
            raise InputError(
                need="no fewer than 0 simulations, of the search and of its refinement",
                got=f"{simulations[0]} and {simulations[1]}",
                hint="leave them out to run as many as the level has",
            )
        self._prior = prior
        self._simulations = simulations
        self._seed = seed
        self._stop = stop

    def start(
        self, request: PlanRequest, folding: Folding, views: Views | None, progress: Progress
    ) -> Search:
        """Search for homes; the plan that came of it."""
        del folding, views  # groups are of the whole program
        simulations = self._simulations or SIMULATIONS.get(request.level, SIMULATIONS[Level.FAST])
        find = partial(
            decide,
            request.program,
            request.machine,
            simulations=simulations[0],
            refinements=simulations[1],
            count=PLANS.get(request.level, PLANS[Level.FAST]),
            seed=self._seed,
        )
        return _Search(request, progress, find, self._prior, self._stop)

    def pipelines(
        self,
        request: PlanRequest,
        views: Views | None,
        progress: Progress,
        least_groups: int,
        most_s: float,
    ) -> PipelineOutcome:
        """The best of a tree search and of those with a stage for each kind of device."""
        if self._stop():
            return PipelineOutcome(notes=("pipelines were not looked at: the search was stopped",))
        until_s = time.perf_counter() + request.time_limit_s

        def over() -> bool:
            return self._stop() or time.perf_counter() > until_s

        progress("tree search over pipelines")
        notes: list[str] = []
        found, broken = found_pipelines(request, views, least_groups, most_s, over)
        if over():
            notes.append("the tree search over pipelines was stopped; others were not looked at")
        if not request.machine.is_uniform:
            progress("simulating pipelines over unlike devices")
            left_s = max(0.0, until_s - time.perf_counter())
            found += unlike_pipelines(replace(request, time_limit_s=left_s))
        outcome = outcome_of(found, most_s, tuple(notes))
        return outcome if found else replace(outcome, broken=broken)


class _Search:
    """Runs when it is first asked."""

    def __init__(
        self,
        request: PlanRequest,
        progress: Progress,
        find: Callable[..., Decided],
        prior: Prior | None,
        stop: Callable[[], bool],
    ) -> None:
        self._request = request
        self._progress = progress
        self._find = find
        self._prior = prior
        self._asked_to_stop = stop
        self._began_s = time.perf_counter()
        self._share = 1.0 if request.max_stages == 1 else ONE_STAGE
        self._found: list[Proposal] | None = None
        self.notes: tuple[str, ...] = ()

    def free(self) -> list[Proposal]:
        """All that is found: memory is part of the search."""
        return self.proposals()

    def proposals(self, most_s: float = inf) -> list[Proposal]:
        """The best of the plans of what the search decided."""
        del most_s
        if self._found is None:
            self._found = self._searched()
        return self._found

    def close(self) -> None:
        """Nothing runs in the background."""

    def _searched(self) -> list[Proposal]:
        if self._request.machine.num_devices == 1 or self._request.mesh is not None:
            return []
        found = self._by_homes()
        best_s = min((own.step_s for own in found if own.fits), default=inf)
        found += self._by_cuts(best_s)
        if self._stop():
            self._note("the tree search was stopped; this is the best until then")
        return [Proposal.of(own) for own in found]

    def _by_homes(self) -> list[Candidate]:
        """The best plan whose groups live on some of the devices each; none if there is none."""
        request = self._request
        if request.machine.num_devices > MOST_DEVICES:
            self._note(f"tree search over homes looks at up to {MOST_DEVICES} devices")
            return []
        if request.pinning.values:
            self._note("tree search over homes does not look at pins")
            return []
        self._progress("tree search over groups of operators")
        try:
            decided = self._find(prior=self._prior or _shipped_prior(), stop=self._stops(HOMES))
            return [self._planned(decided)]
        except InputError as error:
            self._note(f"tree search found no homes: {error.need}; {error.got}")
            return []

    def _by_cuts(self, best_s: float) -> list[Candidate]:
        """The best plan whose wide layers are cut; none if there is none."""
        request = self._request
        self._progress("tree search over layers to cut")
        search = CutSearch(
            Desk(request.program, request.pinning),
            request.machine,
            wide_grid(request),
            memory_limit_bytes=request.limit_bytes,
            baseline_s=best_s,
        )
        found = search.run(LEAVES.get(request.level, LEAVES[Level.FAST]), self._stop)
        named = (replace(own, name=f"{own.name} by tree search") for own in found[:1])
        return [self._of_level(own) for own in named]

    def _note(self, line: str) -> None:
        self.notes = (*self.notes, line)

    def _of_level(self, candidate: Candidate) -> Candidate:
        return replace(candidate, plan=replace(candidate.plan, level=self._request.level))

    def _planned(self, decided: Decided) -> Candidate:
        """The best of the decisions once they are plans; of the first, if there is no time."""
        schemes = Schemes(self._request.program)
        found: list[Candidate] = []
        for homes in decided.homes:
            if found and self._stop():
                break
            found.append(self._of(homes, schemes))
        best = min(found, key=lambda candidate: (not candidate.fits, candidate.step_s))
        return self._of_level(best)

    def _of(self, homes: Homes, schemes: Schemes) -> Candidate:
        return plan_by_homes(
            NAME,
            self._request.program,
            self._request.machine,
            homes,
            memory_limit_bytes=self._request.limit_bytes,
            schemes=schemes,
        )

    def _stop(self) -> bool:
        return self._stops(1.0)()

    def _stops(self, share: float) -> Callable[[], bool]:
        """Whether to stop by now, if so much of the time for one stage is to be used."""
        until_s = self._began_s + share * self._share * self._request.time_limit_s
        return lambda: self._asked_to_stop() or time.perf_counter() > until_s


def _shipped_prior() -> Prior:
    from weft.parallel.mcts.prior import LearnedPrior  # which loads torch

    return LearnedPrior()
