# pyright: standard
"""The learning planner: `planner="dqn"`.

It learns while it plans, from simulated steps of plans that it makes itself, and proposes the best
of them; experts' plans are simulated beside, as for every planner. Pipelines are cut by the policy
that was trained on random chains.

Source: Auto-MAP (Wang et al. 2020, arXiv 2007.04069); that mesh, variables and storage are decided
in one episode, for a reward by simulated time, is weft's own, and so are episodes about layers and
the devices that are left idle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from weft.core.errors import InputError
from weft.parallel.depth import Views
from weft.parallel.dqn.pipelines import cut_pipelines
from weft.parallel.dqn.search import EPISODES, SETTINGS, Asked, EpisodeSearch
from weft.parallel.outcome import PipelineOutcome
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.plan import ParallelPlan
from weft.parallel.planner import Progress, Search
from weft.parallel.request import PlanRequest
from weft.program.fold import Folding

__all__ = ["EPISODES", "SETTINGS", "DqnPlanner"]


class DqnPlanner:
    """Auto-MAP's role: Q-learning over devices, meshes, layers, variables and storage.

    Args:
        warm_start: a plan of one stage to begin with, whoever made it; what is found is not slower.
        state: a file that the search goes on from if it is there, and is written to meanwhile.
        episodes: how many are played; those of the level if None. With 0 nothing is learnt: what
            the trained policy plans is simulated.
        stop: asked after each choice whether to end with the best plan so far.

    Raises:
        InputError: the plan to begin with is a pipeline, or fewer than 0 episodes.
    """

    name = "dqn"

    def __init__(
        self,
        *,
        warm_start: ParallelPlan | PipelinePlan | None = None,
        state: str | Path | None = None,
        episodes: int | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        if isinstance(warm_start, PipelinePlan) or (episodes is not None and episodes < 0):
            raise InputError(
                need="a plan of one stage to begin with, and no fewer than 0 episodes",
                got=f"{episodes} episodes"
                if warm_start is None
                else f"{type(warm_start).__name__}, {episodes} episodes",
                hint="plan with max_stages=1 (--one-stage) for a plan to begin with",
            )
        self._asked = Asked(
            warm_start=warm_start,
            state=None if state is None else Path(state),
            episodes=episodes,
            stop=stop,
        )
        self._question: tuple[str, str] | None = None

    def start(
        self, request: PlanRequest, folding: Folding, views: Views | None, progress: Progress
    ) -> Search:
        """Play episodes about layers; those about variables follow when proposals are wanted."""
        question = (request.program.digest, request.machine.digest)
        self._question = self._question or question
        asked = self._asked
        if question != self._question:  # would a larger machine do?
            asked = replace(asked, warm_start=None, state=None)
        search = EpisodeSearch(request, folding, views, progress, asked)
        search.look_at_layers()
        return search

    def pipelines(
        self,
        request: PlanRequest,
        views: Views | None,
        progress: Progress,
        least_groups: int,
        most_s: float,
    ) -> PipelineOutcome:
        """The best of those that the policy cuts."""
        del least_groups  # it makes two groups or more
        if self._asked.stop():
            return PipelineOutcome(notes=("pipelines were not looked at: the search was stopped",))
        return cut_pipelines(request, views, progress, most_s, self._asked.stop)
