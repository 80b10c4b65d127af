# pyright: standard
"""The learning planner: `planner="dqn"`.

It learns while it plans, from simulated steps of plans that it makes itself, and proposes the best
of them; experts' plans are simulated beside, as for every planner. Pipelines are cut by the policy
that was trained on random chains.

Source: Auto-MAP (Wang et al. 2020, arXiv 2007.04069); that mesh, variables and storage are decided
in one episode, for a reward by simulated time, is weft's own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from itertools import islice, product
from math import inf

from weft.parallel.candidate import Proposal, ranked
from weft.parallel.depth import Views
from weft.parallel.dqn.agent import Agent, AgentSettings, Episode
from weft.parallel.dqn.hybrid import STORED, Decided, HybridEnvironment, demonstration
from weft.parallel.dqn.pipelines import cut_pipelines
from weft.parallel.plan import Level, Prediction
from weft.parallel.planner import PipelineOutcome, Progress, Search
from weft.parallel.request import PlanRequest
from weft.program.fold import Folding

__all__ = ["DqnPlanner"]

EPISODES = {Level.FAST: 60, Level.BEST: 400}
"""Plans that are tried. Chosen: seconds for a model of a hundred nodes."""
SETTINGS = AgentSettings(
    explore=(1.0, 0.1, 300), learning_rate=1e-3, least=64, capacity=4000, returns=(0.0, 1.0)
)
PROPOSED = 4
"""Plans that are proposed, the best first."""


class DqnPlanner:
    """Auto-MAP's role: Q-learning over meshes, variables and storage."""

    name = "dqn"

    def start(
        self, request: PlanRequest, folding: Folding, views: Views | None, progress: Progress
    ) -> Search:
        """Play episodes; the best plans that came of them."""
        return _Search(request, folding, views, progress)

    def pipelines(
        self,
        request: PlanRequest,
        views: Views | None,
        progress: Progress,
        least_groups: int,
        most_s: float,
    ) -> PipelineOutcome:
        """The best of those that the policy cuts."""
        del views, least_groups  # it makes them whole, of two groups or more
        return cut_pipelines(request, progress, most_s)


class _Search:
    """Episodes, and what came of them."""

    def __init__(
        self, request: PlanRequest, folding: Folding, views: Views | None, progress: Progress
    ) -> None:
        self._request, self._progress = request, progress
        self._until_s = time.perf_counter() + request.time_limit_s
        self._environment = HybridEnvironment(request, folding, views)
        self._agent = Agent(self._environment, SETTINGS)
        self._stopped = False
        self.notes: tuple[str, ...] = ()

    def free(self) -> list[Proposal]:
        """The best plans, whether they fit or not."""
        return self.proposals()

    def proposals(self, most_s: float = inf) -> list[Proposal]:
        """Play until the episodes or the time are used up."""
        del most_s
        wanted = EPISODES[self._request.level]
        for episode in self._played(wanted):
            done = episode.number + 1
            self._progress(f"episode {done} of {wanted}: reward {episode.reward:.3f}")
        left = wanted - self._agent.episodes
        self.notes = (f"{left} episodes were not played for want of time",) * (left > 0)
        known = self._environment.known.items()
        return ranked(self._proposal(d, p) for d, p in known if p is not None)[:PROPOSED]

    def _played(self, wanted: int) -> Iterator[Episode]:
        """Some that are shown, then the agent's own."""
        shown = product(range(len(self._environment.meshes)), range(len(STORED)))
        for mesh, stored in islice(shown, self._agent.episodes, wanted // 2):
            episode = self._agent.watch(demonstration(mesh, stored), self._is_over)
            if episode is None:
                return
            yield episode
        yield from self._agent.run(wanted - self._agent.episodes, self._is_over)

    def close(self) -> None:
        """Play no more."""
        self._stopped = True

    def _is_over(self) -> bool:
        return self._stopped or (time.perf_counter() > self._until_s and self._agent.episodes > 0)

    def _proposal(self, decided: Decided, prediction: Prediction) -> Proposal:
        build = partial(self._environment.candidate, decided)
        return Proposal(decided.name, prediction, self._request.limit_bytes, build)
