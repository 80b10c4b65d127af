"""What each kind of layer does, decided in one episode: where, how, and what is stored in parts.

    spot        a mesh over all devices, or over some of them (`weft.parallel.dqn.spots`)
    layers      one kind after the other, the heaviest first: along each axis it shares out rows,
                cuts its weights, or computes all rows (`weft.parallel.wide`)
    storage     whether parameters and optimizer state are stored in parts

Episodes about variables (`weft.parallel.dqn.hybrid`) know even meshes over all devices alone. Here
a choice is seen with its price; what nobody has decided about does what is cheapest by price, which
an agent has to do better than. What comes of an episode is simulated, and rewarded as there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from weft.core.errors import InfeasibleError, InputError
from weft.parallel.candidate import Candidate, Proposal
from weft.parallel.depth import Shortened, Views, undivided
from weft.parallel.dqn.bills import Bill, Kind
from weft.parallel.dqn.environment import Observation, Turn
from weft.parallel.dqn.hybrid import MISFIT, STORED
from weft.parallel.dqn.spots import Spot, computing_s, spots, written
from weft.parallel.experts import Desks
from weft.parallel.pipeline.expert import forward_seconds
from weft.parallel.plan import Prediction
from weft.parallel.request import PlanRequest
from weft.parallel.schemes import Schemes
from weft.parallel.wide import Layer, Way, Ways, alike
from weft.program.fold import Folding

__all__ = ["LAYERS", "SPOT", "STORAGE", "Found", "LayerEnvironment", "Layered"]

MOST_KINDS = 12
"""Kinds of layers that are decided about; others do what is cheapest. Chosen: there are hardly more
that matter."""
SPOT, LAYERS, STORAGE = range(3)
"""Kinds of choices, in order."""
LEAST_S = 1e-9
"""Time by which others are divided, at least [s]. Chosen: far below any step."""


@dataclass(frozen=True, slots=True)
class Layered:
    """What an episode decided.

    Attributes:
        spot: number of the spot.
        stored: stage of ZeRO along axes that cut evenly.
        ways: of layers, by the node of their weights, ascending.
    """

    spot: int
    stored: int
    ways: tuple[tuple[int, Ways], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What a plan would take.

    Attributes:
        prediction: of it.
        limit_bytes: memory of the device that has least room [bytes].
    """

    prediction: Prediction
    limit_bytes: float

    @property
    def fits(self) -> bool:
        """Whether it keeps to the memory that there is."""
        return self.prediction.peak_bytes <= self.limit_bytes


class LayerEnvironment:
    """Episodes about layers.

    Args:
        request: what to plan.
        folding: of its program.
        views: short versions to predict the whole from, if it is deep; layers are decided about in
            the shortest, and those that are alike do the same.

    Attributes:
        known: what was predicted; None for what cannot be.
        unit_s: a step that is worth halfway between one that does not fit and none at all; that of
            the first plan that fits [s].
        kind: of what is chosen next.
        taken: what layers do so far, by the node of their weights.
        last: what the last episode decided.
    """

    spot_width, way_width, storage_width = 8, 2 * len(Way) + 2, 3
    shared_width = 6
    choice_width = spot_width + way_width + storage_width

    def __init__(self, request: PlanRequest, folding: Folding, views: Views | None) -> None:
        self._request, self._folding, self._views = request, folding, views
        self._desks = Desks(request.program, request.pinning, views)
        self._view = undivided(request.program) if views is None else views.short
        self.known: dict[Layered, Found | None] = {}
        self.unit_s = 0.0
        self.kind, self.taken = SPOT, dict[int, Ways]()
        self.last: Layered | None = None
        self._spot = 0
        self._left: list[Kind] = []
        self._offered: list[Ways] = []

    @cached_property
    def spots(self) -> list[Spot]:
        """What is chosen from, shortest first by price; none if there is nothing to decide."""
        return [spot for spot, _, _ in self._expected]

    @cached_property
    def expected_s(self) -> list[float]:
        """What the step should take at each of them by price [s]."""
        return [seconds for _, _, seconds in self._expected]

    @cached_property
    def kinds(self) -> list[Kind]:
        """Kinds of layers that are decided about, the heaviest first."""
        return alike(self._view.program, self._schemes.layers)[:MOST_KINDS]

    @property
    def layers(self) -> Mapping[int, Layer]:
        """All layers that are decided about, by the node of their weights."""
        return self._schemes.layers

    @cached_property
    def _schemes(self) -> Schemes:
        """Of the program that layers are decided about in."""
        return (self._desks.whole if self._views is None else self._desks.of(self._view)).schemes

    @cached_property
    def _expected(self) -> list[tuple[Spot, Bill, float]]:
        request, schemes, times = self._request, self._schemes, self._view.times
        if request.machine.num_devices == 1 or not schemes.layers:
            return []
        short_s, whole_s = dict[str, float](), dict[str, float]()
        for group in request.machine.groups:
            seconds = forward_seconds(schemes.program, range(len(times)), group.device)
            short_s[group.device.name] = sum(seconds)
            whole_s[group.device.name] = sum(s * n for s, n in zip(seconds, times, strict=True))
        deeper = max(whole_s.values()) / max(*short_s.values(), LEAST_S)
        found: list[tuple[Spot, Bill, float]] = []
        for spot in spots(request, schemes, whole_s):
            bill = Bill(schemes.runs, spot)
            found.append((spot, bill, computing_s(spot, whole_s) + deeper * bill.alone_s))
        return sorted(found, key=lambda entry: entry[2])

    def bill(self, spot: int) -> Bill:
        """Prices at a spot."""
        return self._expected[spot][1]

    def reset(self, generator: np.random.Generator) -> Observation:
        """Begin with the spot."""
        del generator
        self.kind, self.taken = SPOT, {}
        best_s = max(self.expected_s[0], LEAST_S)
        rows = [
            self._of_spot(spot, expected_s / best_s)
            for spot, expected_s in zip(self.spots, self.expected_s, strict=True)
        ]
        return self._padded(rows, offset=0)

    def step(self, choice: int) -> Turn:
        """Decide."""
        if self.kind == STORAGE:
            ways = self.bill(self._spot).kept(self.taken)
            self.last = Layered(self._spot, STORED[choice], ways)
            return Turn(self.worth(self.last), None)
        if self.kind == SPOT:
            self._spot, self.kind = choice, LAYERS
            self.taken, self._left = dict(self.bill(choice).best), list(self.kinds)
        else:
            self.taken |= dict.fromkeys(self._left.pop(0), self._offered[choice])
        return Turn(0.0, self._next())

    def _next(self) -> Observation:
        """The next kind of layers that can do several things, or storage."""
        unit_s = max(self.expected_s[self._spot], LEAST_S)
        while self._left:
            offers = self.bill(self._spot).offers(self._left[0], self.taken)
            if len(offers) > 1:
                self._offered = [ways for ways, _ in offers]
                rows = [self._of_ways(ways, more_s / unit_s) for ways, more_s in offers]
                return self._padded(rows, offset=self.spot_width)
            self._left.pop(0)
        self.kind = STORAGE
        places = range(len(STORED))
        rows = [[float(own == place) for place in places] for own in places]
        return self._padded(rows, offset=self.spot_width + self.way_width)

    def worth(self, decided: Layered) -> float:
        """The reward of a plan."""
        found = self.predicted(decided)
        if found is None:
            return 0.0
        if not found.fits:
            return MISFIT * found.limit_bytes / found.prediction.peak_bytes
        self.unit_s = self.unit_s or found.prediction.step_s
        return MISFIT + (1 - MISFIT) / (1 + found.prediction.step_s / self.unit_s)

    def predicted(self, decided: Layered) -> Found | None:
        """What a plan would take; None if it cannot be."""
        if decided not in self.known:
            try:
                self.known[decided] = self._simulated(decided)
            except (InputError, InfeasibleError):
                self.known[decided] = None
        return self.known[decided]

    def seconds(self, decided: Layered) -> float:
        """The step of a plan; infinite if it does not fit [s]."""
        found = self.predicted(decided)
        return found.prediction.step_s if found is not None and found.fits else math.inf

    def _simulated(self, decided: Layered) -> Found:
        limits: list[float] = []

        def simulated(view: Shortened | None) -> Prediction:
            plan = self.candidate(decided, view).plan
            limits.append(plan.memory_limit_bytes)
            return plan.prediction

        views = self._views
        prediction = simulated(None) if views is None else views.predict(simulated)
        return Found(prediction, min(limits))

    def label(self, spot: int) -> str:
        """What people call a spot: its mesh, and which devices are busy if others are not."""
        own = self.spots[spot]
        some = f" on ranks {own.ranks}" if own.places else ""
        return f"{own.degrees.mesh}{some}"

    def name(self, decided: Layered) -> str:
        """What people call a plan."""
        zero = f", ZeRO-{decided.stored}" if decided.stored else ""
        return f"dqn {self.label(decided.spot)}{zero}, {len(decided.ways)} layers otherwise"

    def candidate(self, decided: Layered, view: Shortened | None = None) -> Candidate:
        """The plan, simulated.

        Args:
            decided: what it is.
            view: a short version of the program to make it for.

        Raises:
            InputError: sizes do not divide.
            InfeasibleError: it would not keep a pin.
        """
        desk = self._desks.whole if view is None else self._desks.of(view)
        ways = dict(decided.ways)
        if self._views is not None:
            number = {node: short for short, node in enumerate(self._view.origin)}
            like, origin = self._folding.representative, undivided(self._request.program).origin
            every = enumerate(origin if view is None else view.origin)
            short = {node: number.get(like[whole], -1) for node, whole in every}
            ways = {node: ways[own] for node, own in short.items() if own in ways}
        spot = self.spots[decided.spot]
        return written(self.name(decided), desk, self._request, spot, decided.stored, ways)

    def proposal(self, decided: Layered) -> Proposal | None:
        """A plan that was predicted; None if it cannot be."""
        found = self.known[decided]
        if found is None:
            return None
        return Proposal(
            self.name(decided),
            found.prediction,
            found.limit_bytes,
            partial(self.candidate, decided),
            idles=bool(self.spots[decided.spot].places),
        )

    def _of_spot(self, spot: Spot, expected: float) -> list[float]:
        degrees = spot.degrees
        return [
            math.log10(max(expected, LEAST_S)),
            math.log2(degrees.dp) / 10,
            math.log2(degrees.tp) / 10,
            degrees.num_devices / self._request.machine.num_devices,
            bool(degrees.shares),
            degrees.dp == 1,
            spot.machine.num_nodes == 1,
            spot.machine.is_uniform,
        ]

    def _of_ways(self, ways: Ways, more: float) -> list[float]:
        *outer, inner = ways
        along = [float(own is way) for own in ((*outer, None)[0], inner) for way in Way]
        return [*along, min(more, 4.0) / 4, more == 0.0]

    def _padded(self, rows: list[list[float]], *, offset: int) -> Observation:
        """Choices of one kind among the columns of all kinds."""
        own = np.asarray(rows, dtype=np.float32)
        choices = np.zeros((len(own), self.choice_width), dtype=np.float32)
        choices[:, offset : offset + own.shape[1]] = own
        shared = np.zeros(self.shared_width, dtype=np.float32)
        shared[self.kind] = 1.0
        if self.kind != SPOT:
            shared[3] = math.log10(self.expected_s[self._spot] / max(self.expected_s[0], LEAST_S))
            shared[4] = len(self._left) / max(len(self.kinds), 1)
            shared[5] = self._spot == 0
        return Observation(shared, choices, np.ones(len(own), dtype=np.bool_))
