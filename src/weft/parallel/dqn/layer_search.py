# pyright: standard
"""A search over what layers do: what prices promise, the agent's own episodes, single decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any

from weft.parallel.candidate import Proposal
from weft.parallel.depth import Views
from weft.parallel.dqn.agent import Agent, AgentSettings
from weft.parallel.dqn.environment import Observation
from weft.parallel.dqn.hybrid import STORED
from weft.parallel.dqn.layered import SPOT, STORAGE, Found, Layered, LayerEnvironment
from weft.parallel.plan import Level, Prediction
from weft.parallel.request import PlanRequest
from weft.parallel.wide import Way, Ways
from weft.program.fold import Folding

__all__ = ["LayerLesson", "LayerSearch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is looked at.

    Attributes:
        shown: spots that are looked at first, those that promise most.
        own: episodes of the agent's own at most.
        patience: of those in a row without a faster plan, after which it plays no more.
        single: single decisions about layers at a spot, those that cost least by price.
        revised: spots at which these are looked at, the best.
    """

    shown: int
    own: int
    patience: int
    single: int
    revised: int


EFFORT = {
    Level.FAST: Effort(shown=8, own=24, patience=8, single=24, revised=2),
    Level.BEST: Effort(shown=40, own=120, patience=40, single=100, revised=6),
}
"""Chosen: on 16 devices of three kinds the shortest step was at one of the first three spots, and
the first dozen of single decisions made it shorter."""
UNIFORM = Effort(shown=4, own=8, patience=4, single=12, revised=1)
"""On the fast level where devices are alike. Chosen: there is less to find, and fewer meshes."""
HOPELESS = 1.5
"""What a step should take by price over the shortest known, beyond which a spot is not looked at.
Derived: on 16 devices of three kinds steps took 0.7 to 1.4 times as long as priced."""
CLOSE = 1.1
"""Step over the shortest known up to which single decisions are looked at at a spot. Chosen: they
make steps shorter by a tenth where they do."""
DEAR = 0.3
"""What a single decision costs by price over the step, beyond which it is not looked at. Chosen:
prices err by less."""
SETTINGS = AgentSettings(
    explore=(0.5, 0.1, 150), learning_rate=1e-3, least=64, capacity=2000, returns=(0.0, 1.0)
)
FIRST_STORED = 1
"""Position in `STORED` of what is stored at first: optimizer state, which moves no more than to
reduce gradients does."""


@dataclass(frozen=True, slots=True)
class LayerLesson:
    """Takes a spot, what is cheapest there by price, and a stage of storage.

    Attributes:
        environment: what is decided in.
        spot: its number.
        stored: position in `STORED`.
    """

    environment: LayerEnvironment
    spot: int
    stored: int = FIRST_STORED

    def __call__(self, observation: Observation) -> int:
        """The choice."""
        kind = self.environment.kind
        return self.spot if kind == SPOT else self.stored if kind == STORAGE else 0


class LayerSearch:
    """Episodes about layers, and what came of them.

    Args:
        request, folding, views: as those of any search.
    """

    def __init__(self, request: PlanRequest, folding: Folding, views: Views | None) -> None:
        uniform = request.machine.is_uniform and request.level is Level.FAST
        self._effort = UNIFORM if uniform else EFFORT[request.level]
        self._level = request.level
        self.environment = LayerEnvironment(request, folding, views)
        self._ended = False

    @property
    def best(self) -> Layered | None:
        """What is fastest of what fits."""
        own = self.environment
        fitting = [decided for decided in own.known if own.seconds(decided) < inf]
        return min(fitting, key=own.seconds, default=None)

    @property
    def least_s(self) -> float:
        """Its step; infinite if nothing fits [s]."""
        return inf if self.best is None else self.environment.seconds(self.best)

    def run(self, stop: Callable[[], bool]) -> Iterator[None]:
        """Search; yields after each plan that was looked at.

        Args:
            stop: asked before each plan whether to end.
        """
        if self._ended or stop() or not self.environment.spots:
            return
        agent = Agent(self.environment, SETTINGS)
        yield from self._shown(agent, stop)
        yield from self._revised(1, stop)
        yield from self._own(agent, stop)
        yield from self._revised(self._effort.revised, stop)
        self._ended = not stop()

    def state(self) -> dict[str, Any]:
        """What was predicted, and on which level that was all; on none if that is empty."""
        own = self.environment
        known = [
            (
                own.label(decided.spot),
                decided.stored,
                [[node, [way.value for way in ways]] for node, ways in decided.ways],
                None if found is None else (asdict(found.prediction), found.limit_bytes),
            )
            for decided, found in own.known.items()
        ]
        return {"known": known, "ended": self._level.value if self._ended else ""}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from there; plans at spots that there are no more are left out.

        What was all on the fast level is not on the best one.
        """
        own = self.environment
        known = state.get("known", ())
        numbers = {own.label(number): number for number in range(len(own.spots))} if known else {}
        self._ended = state.get("ended") in (self._level.value, Level.BEST.value)
        for label, stored, ways, figures in known:
            if label in numbers:
                named = tuple((node, tuple(map(Way, values))) for node, values in ways)
                found = None if figures is None else Found(Prediction(**figures[0]), figures[1])
                own.known[Layered(numbers[label], stored, named)] = found

    def proposals(self) -> list[Proposal]:
        """All that was predicted."""
        own = self.environment
        found = (own.proposal(decided) for decided in own.known)
        return [proposal for proposal in found if proposal is not None]

    def _shown(self, agent: Agent, stop: Callable[[], bool]) -> Iterator[None]:
        """Each spot as prices have it, while they promise something; more in parts where needed."""
        own = self.environment
        for spot in range(min(len(own.spots), self._effort.shown)):
            if own.expected_s[spot] > HOPELESS * self.least_s:
                return
            for stored in (FIRST_STORED, len(STORED) - 1):
                if agent.watch(LayerLesson(own, spot, stored), stop) is None:
                    return
                yield
                found = None if own.last is None else own.known[own.last]
                if found is None or found.fits:
                    break

    def _own(self, agent: Agent, stop: Callable[[], bool]) -> Iterator[None]:
        """The agent's own, for as long as it finds something."""
        least_s, waited = self.least_s, 0
        for _ in agent.run(self._effort.own, stop):
            yield
            waited = 0 if self.least_s < least_s else waited + 1
            least_s = self.least_s
            if waited >= self._effort.patience:
                return

    def _revised(self, count: int, stop: Callable[[], bool]) -> Iterator[None]:
        """Best plans of the best spots, each with one decision taken otherwise while it pays."""
        own = self.environment
        best: dict[int, Layered] = {}
        for decided in sorted(own.known, key=own.seconds):
            if own.seconds(decided) <= CLOSE * self.least_s:
                best.setdefault(decided.spot, decided)
        for decided in list(best.values())[:count]:
            yield from self._improved(decided, stop)

    def _improved(self, decided: Layered, stop: Callable[[], bool]) -> Iterator[None]:
        own = self.environment
        best_s = own.seconds(decided)
        for stored in STORED:
            if stop():
                return
            trial = replace(decided, stored=stored)
            yield from self._tried(trial)
            if own.seconds(trial) < best_s:
                decided, best_s = trial, own.seconds(trial)
        for kind, ways in self._single(decided, best_s):
            if stop():
                return
            bill = own.bill(decided.spot)
            trial = replace(
                decided, ways=bill.kept({**dict(decided.ways), **dict.fromkeys(kind, ways)})
            )
            yield from self._tried(trial)
            if own.seconds(trial) < best_s:
                decided, best_s = trial, own.seconds(trial)

    def _tried(self, trial: Layered) -> Iterator[None]:
        if trial not in self.environment.known:
            self.environment.predicted(trial)
            yield

    def _single(self, decided: Layered, step_s: float) -> list[tuple[tuple[int, ...], Ways]]:
        """Other ways of each kind, those first that cost least more by price."""
        own = self.environment
        bill, now = own.bill(decided.spot), dict(decided.ways)
        most = self._effort.single
        found = [
            (more_s, kind, ways)
            for kind in own.kinds
            for ways, more_s in bill.offers(kind, now)
            if more_s <= DEAR * step_s and ways != now.get(kind[0], bill.plain)
        ]
        return [(kind, ways) for _, kind, ways in sorted(found, key=lambda entry: entry[0])[:most]]
