# pyright: standard
"""A search under way: what layers do; lessons, the trained policy's ways, the agent's own.

Episodes about layers (`weft.parallel.dqn.layer_search`) come first, since prices lead them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path

from weft.core.units import format_seconds
from weft.parallel.candidate import Proposal, ranked
from weft.parallel.depth import Views
from weft.parallel.dqn.agent import Agent, AgentSettings, Episode
from weft.parallel.dqn.environment import Observation
from weft.parallel.dqn.following import WAYS, Follower, plan_network, ways
from weft.parallel.dqn.hybrid import Decided, HybridEnvironment, lessons
from weft.parallel.dqn.layer_search import LayerSearch
from weft.parallel.dqn.saved import load_search, save_search
from weft.parallel.dqn.second_stage import groups_of, revised
from weft.parallel.dqn.warm import Imitation, as_proposal, readings, require_same_program
from weft.parallel.plan import Level, ParallelPlan, Prediction
from weft.parallel.planner import Progress
from weft.parallel.request import PlanRequest
from weft.program.fold import Folding

__all__ = ["EPISODES", "SETTINGS", "Asked", "EpisodeSearch"]

EPISODES = {Level.FAST: 60, Level.BEST: 400}
"""Plans that are tried. Chosen: seconds for a model of a hundred nodes."""
PATIENCE = {Level.FAST: 12, Level.BEST: 100}
"""The agent's own episodes in a row without a faster plan, after which the rest are not played,
unless a number was asked for. Chosen: a fifth and a quarter of all."""
SETTINGS = AgentSettings(
    explore=(1.0, 0.1, 300), learning_rate=1e-3, least=64, capacity=4000, returns=(0.0, 1.0)
)
FEW_GROUPS = 40
"""Groups of variables up to which the second stage looks at all placements on the fast level too.
Chosen: as many predictions as there are episodes; of more it only takes back cuts."""
PROPOSED = 4
"""Plans that are proposed of each sort, the best first."""
LAYERS_SHARE, OF_UNIFORM = 0.6, 0.2
"""Share of the time after which no more layers are looked at, and where devices are alike. Chosen:
episodes about layers find more where devices are unlike, those of variables where they are not."""
FAR = 1.5
"""Step of the best plan of variables over that of the best plan of layers, beyond which no more are
looked at once the trained policy has been followed, unless a number of episodes was asked for.
Chosen: lessons and the agent have made a tenth of it up, not a third."""
SAVED_EVERY_S = 10.0
"""Time between two writes of a search's file. Chosen: as much as one can bear to lose [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of the agent, beside what is asked of any planner.

    Attributes:
        warm_start: a plan to begin with, of the same program.
        state: a file that the search goes on from if it is there, and is written to.
        episodes: how many are played; those of the level if None, none but the trained policy's
            ways if 0.
        stop: asked after each choice whether to end with the best plan so far.
    """

    warm_start: ParallelPlan | None = None
    state: Path | None = None
    episodes: int | None = None
    stop: Callable[[], bool] = lambda: False


class EpisodeSearch:
    """Episodes, and what came of them.

    Args:
        request, folding, views, progress: as those of any search.
        asked: of the agent.

    Raises:
        MismatchError: the plan to begin with, or the file, is of another question.
        FileError: the file is damaged.
    """

    def __init__(
        self,
        request: PlanRequest,
        folding: Folding,
        views: Views | None,
        progress: Progress,
        asked: Asked,
    ) -> None:
        self._request, self._folding, self._progress = request, folding, progress
        self._asked = asked
        self._until_s = time.perf_counter() + request.time_limit_s
        share = OF_UNIFORM if request.machine.is_uniform else LAYERS_SHARE
        self._layers_until_s = time.perf_counter() + share * request.time_limit_s
        self._environment = HybridEnvironment(request, folding, views)
        self._layers = LayerSearch(request, folding, views)
        self._agent = Agent(self._environment, SETTINGS)
        self._stopped = self._idle = False
        self._saved_s = time.perf_counter()
        self.notes: tuple[str, ...] = ()
        if asked.warm_start is not None:
            require_same_program(asked.warm_start, request.program)
        if asked.state is not None:
            load_search(asked.state, request, self._agent, self._environment, self._layers)

    def free(self) -> list[Proposal]:
        """The best plans, whether they fit or not."""
        return self.proposals()

    def proposals(self, most_s: float = inf) -> list[Proposal]:
        """Play until the episodes or the time are used up, then look at single decisions."""
        del most_s
        shown = self._shown()
        wanted = len(shown)
        if self._asked.episodes != 0:
            wanted = max(wanted, self._asked.episodes or EPISODES[self._request.level])
        for _ in self._played(shown, wanted):
            self._progress(f"episode {self._agent.episodes} of {wanted}: {self._best()}")
            self._save_now_and_then()
        left = 0 if self._idle else max(0, wanted - self._agent.episodes)
        why = "since the search was stopped" if self._asked.stop() else "for want of time"
        self.notes = (f"{left} episodes were not played {why}",) * (left > 0)
        self._revise()
        self._save()
        return self._ranked()

    def look_at_layers(self) -> None:
        """Decide what layers do, unless only the trained policy is asked, which knows none."""
        if self._asked.episodes == 0:
            return

        def is_over() -> bool:
            late = time.perf_counter() > self._layers_until_s
            return self._stopped or late or self._asked.stop()

        for number, _ in enumerate(self._layers.run(is_over), start=1):
            least_s = self._layers.least_s
            said = f"best step {format_seconds(least_s)}" if least_s < inf else "nothing fits yet"
            self._progress(f"layers, plan {number}: {said}")
            self._save_now_and_then()

    def close(self) -> None:
        """Play no more."""
        self._stopped = True

    def _shown(self) -> list[Callable[[Observation], int]]:
        """The plan to begin with, the trained policy's ways, then lessons, of half the episodes."""
        own = self._environment
        network = plan_network()
        shown: list[Callable[[Observation], int]] = [
            Imitation(own, decided) for decided in self._begun_with()
        ]
        shown += [Follower(network, way) for way in ways(own, network)]
        if self._asked.episodes == 0:
            return shown
        half = (self._asked.episodes or EPISODES[self._request.level]) // 2
        return [*shown, *islice(lessons(own), max(0, half - len(shown)))]

    def _begun_with(self) -> list[Decided]:
        """What the plan to begin with decides, if the meshes are any that are decided about."""
        plan, own = self._asked.warm_start, self._environment
        found = [] if plan is None else list(readings(plan, self._request.program))
        found = [one for one in found if (one.data, one.variables) in own.meshes]
        for decided in found:
            own.predicted(decided)  # as it is; an episode may not offer all of it
        return found

    def _played(self, shown: list[Callable[[Observation], int]], wanted: int) -> Iterator[Episode]:
        """Some that are shown, then the agent's own."""
        for choose in shown[self._agent.episodes :]:
            episode = self._agent.watch(choose, self._is_over)
            if episode is None:
                return
            yield episode
            if self._asked.episodes is None and self._is_far():
                self._idle = True
                return
        patience = wanted if self._asked.episodes else PATIENCE[self._request.level]
        least_s, waited = self._least_s, 0
        for episode in self._agent.run(wanted - self._agent.episodes, self._is_over):
            yield episode
            waited = 0 if self._least_s < least_s else waited + 1
            least_s = self._least_s
            if waited >= patience:
                self._idle = True
                return

    def _is_far(self) -> bool:
        """Whether variables are decided about in vain."""
        followed = len(self._begun_with()) + WAYS
        return self._agent.episodes >= followed and self._least_s > FAR * self._layers.least_s

    def _revise(self) -> None:
        """The second stage, from the best plan that cuts variables."""
        cutting = {d: s for d, s in self._fitting().items() if d.variables > 1}
        if not cutting or self._is_over():
            return
        best = min(cutting, key=cutting.__getitem__)
        groups = groups_of(self._request.program, self._folding)
        only_undo = self._request.level is Level.FAST and len(groups) > FEW_GROUPS
        for _ in revised(self._environment, best, groups, only_undo=only_undo, stop=self._is_over):
            self._progress(f"single decisions: {self._best()}")

    def _fitting(self) -> dict[Decided, float]:
        """Steps of what fits [s]."""
        known = self._environment.known.items()
        return {d: p.step_s for d, p in known if p is not None and self._environment.fits(p)}

    @property
    def _least_s(self) -> float:
        """The shortest step of what fits; infinite if nothing does [s]."""
        return min(self._fitting().values(), default=inf)

    def _best(self) -> str:
        fits = self._least_s < inf
        return f"best step {format_seconds(self._least_s)}" if fits else "nothing fits yet"

    def _ranked(self) -> list[Proposal]:
        known = self._environment.known.items()
        found = ranked(self._proposal(d, p) for d, p in known if p is not None)[:PROPOSED]
        found += ranked(self._layers.proposals())[:PROPOSED]
        plan = self._asked.warm_start
        begun = None if plan is None else as_proposal(plan, self._request)
        return ranked(found if begun is None else [*found, begun])

    def _proposal(self, decided: Decided, prediction: Prediction) -> Proposal:
        build = partial(self._environment.candidate, decided)
        return Proposal(decided.name, prediction, self._request.limit_bytes, build)

    def _is_over(self) -> bool:
        late = time.perf_counter() > self._until_s or self._asked.stop()
        return self._stopped or (late and self._agent.episodes > 0)

    def _save_now_and_then(self) -> None:
        if time.perf_counter() > self._saved_s + SAVED_EVERY_S:
            self._save()

    def _save(self) -> None:
        if self._asked.state is not None:
            save_search(
                self._asked.state, self._request, self._agent, self._environment, self._layers
            )
            self._saved_s = time.perf_counter()
