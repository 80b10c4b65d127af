"""Tree search over tensor parallelism: on which mesh, and what each kind of layer does along it.

Homes of groups share out rows alone (`weft.parallel.homes`). This search is about what they cannot
express: the first step chooses a mesh, along which the batch is shared out evenly or in proportion
to speed; the next steps decide for one kind of layer after the other, heaviest first, whether it
shares out rows along an axis too, or cuts its weights, or computes all rows everywhere
(`weft.parallel.wide`). Layers that are alike are decided about together. What nobody has decided
about yet does what is cheapest by price, and prices are the prior.

A leaf is a plan that is lowered and simulated operator by operator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TypeAlias

import numpy as np

from weft.core.errors import InfeasibleError, InputError
from weft.machine.model import Machine
from weft.parallel.candidate import Candidate
from weft.parallel.degrees import Degrees
from weft.parallel.experts import Desk
from weft.parallel.mcts.search import Tree, value_of
from weft.parallel.mcts.sketch import Floats
from weft.parallel.way_prices import MOST_KINDS, Prices, cheapest
from weft.parallel.wide import Ways, alike, possible

__all__ = ["CutSearch", "CutState"]

_SHARP = 0.05
"""Share of the best step so far by which a way has to cost more for its prior to fall e-fold.
Chosen."""
_UNIFORM = 0.1
"""Share of the prior that all ways have alike, so that none is ruled out. Chosen."""

Done: TypeAlias = tuple[tuple[int, Ways], ...]
"""What layers do, by the node of their weights, ascending, but for `plain_ways`."""


@dataclass(frozen=True, slots=True)
class CutState:
    """What is decided: a mesh, by number, -1 while it is open; and what kinds of layers do."""

    mesh: int = -1
    ways: tuple[Ways, ...] = ()


class CutSearch:
    """Searches one step on one machine; it can go on after it was stopped.

    Args:
        desk: of the step.
        machine: where it runs.
        meshes: degrees with `wide` among which to choose.
        memory_limit_bytes: of one device [bytes].
        baseline_s: time of a plan that there is already [s]; if inf, that of the first that fits.
    """

    def __init__(
        self,
        desk: Desk,
        machine: Machine,
        meshes: Sequence[Degrees],
        *,
        memory_limit_bytes: float,
        baseline_s: float,
    ) -> None:
        self._desk, self._machine = desk, machine
        self._limit, self._baseline_s = memory_limit_bytes, baseline_s
        self._layers = desk.schemes.layers
        self.meshes = tuple(meshes)
        self.kinds = alike(desk.program, self._layers)[:MOST_KINDS]
        runs = desk.schemes.runs
        self._cheapest = [cheapest(runs, machine, own.mesh) for own in self.meshes]
        self._prices = [Prices(runs, machine, own.mesh) for own in self.meshes]
        self._known: dict[tuple[int, Done], Candidate | None] = {}
        self._root = Tree(CutState())

    def run(self, simulations: int, stop: Callable[[], bool] = lambda: False) -> list[Candidate]:
        """Simulate so many plans that were not seen before, or until somebody says stop.

        Args:
            simulations: how many at most.
            stop: asked before each of them.

        Returns:
            All plans so far, the best first.
        """
        most = len(self._known) + simulations
        while self._root.is_open and len(self._known) < most and not stop():
            self._root.play(self._visit)
        plans = [plan for plan in self._known.values() if plan is not None]
        return sorted(plans, key=lambda own: (not own.fits, own.step_s))

    def _visit(self, leaf: Tree[CutState]) -> float:
        value = self._value(leaf.state)
        if leaf.children is None:
            leaf.expand(*self._following(leaf.state))
        return value

    def _following(self, state: CutState) -> tuple[tuple[CutState, ...], Floats]:
        """States after one more step, with their priors."""
        if state.mesh < 0:
            costs = [
                prices.total(found)
                for prices, found in zip(self._prices, self._cheapest, strict=True)
            ]
            return tuple(CutState(k) for k in range(len(costs))), self._prior(costs)
        if len(state.ways) == len(self.kinds):
            return (), np.zeros(0)
        kind, mesh = self.kinds[len(state.ways)], self.meshes[state.mesh].mesh
        ways = possible(self._desk.program, self._layers[kind[0]], mesh)
        prices, others = self._prices[state.mesh], dict(self.done(state))
        costs = [prices.total(others | dict.fromkeys(kind, own)) for own in ways]
        steps = tuple(CutState(state.mesh, (*state.ways, own)) for own in ways)
        return steps, self._prior(costs)

    def _prior(self, costs: Sequence[float]) -> Floats:
        """What is cheap by price is promising."""
        if not costs:
            return np.zeros(0)
        over = np.asarray(costs) - min(costs)
        shares = np.exp(-over / (_SHARP * self._baseline_s))
        return (1.0 - _UNIFORM) * shares / shares.sum() + _UNIFORM / len(costs)

    def done(self, state: CutState) -> Done:
        """What layers do."""
        found = dict(self._cheapest[state.mesh])
        for kind, ways in zip(self.kinds, state.ways, strict=False):
            found |= dict.fromkeys(kind, ways)
        return tuple(
            (node, ways)
            for node, ways in sorted(found.items(), key=lambda item: item[0])
            if ways != self._prices[state.mesh].plain
        )

    def _value(self, state: CutState) -> float:
        """As in the search over homes: 0 for the baseline, -1 for what is no plan."""
        if state.mesh < 0:
            return 0.0
        key = (state.mesh, self.done(state))
        if key not in self._known:
            self._known[key] = self._simulated(*key)
        plan = self._known[key]
        if plan is not None and plan.fits:
            self._baseline_s = self._baseline_s if isfinite(self._baseline_s) else plan.step_s
        return -1.0 if plan is None else value_of(plan, self._baseline_s)

    def _simulated(self, mesh: int, done: Done) -> Candidate | None:
        if not done:
            return None  # data parallel, which experts look at
        degrees = self.meshes[mesh]
        try:
            return self._desk.candidate(self._machine, degrees, self._limit, dict(done))
        except (InputError, InfeasibleError):
            return None
