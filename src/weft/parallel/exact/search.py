"""Exact planning of one pipeline stage on one mesh: over memory prices and recomputation.

The flow programme gives the plan that is cheapest without regard to memory. If its simulated
peak does not fit, memory gets a price per byte, which is raised until a plan fits: the price is
the slope between the best solution known to fit and the best known not to (Kelley's cutting
planes in one dimension, each solve warm from the last). Where no price is enough, forward
operators are repeated in the backward pass, with the strategies of the operators they repeat.

The bound of a plan is the Lagrangian one, max over prices of (optimum - price * limit): no
plan of that mesh that keeps all activations within the limit has a smaller objective.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf

from weft.machine.model import Machine
from weft.parallel.bundle import MESSAGE_BYTES
from weft.parallel.candidate import Candidate, Proposal, assemble
from weft.parallel.copies import Decision, copies_for, recomputed
from weft.parallel.depth import Shortened
from weft.parallel.estimate import device_classes, slowest_device
from weft.parallel.exact.extract import mixed_choice, single_choice
from weft.parallel.exact.flow import FlowModel, Solution
from weft.parallel.exact.solver import Solver
from weft.parallel.exact.stage import Stage
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level, Prediction
from weft.parallel.problem import Problem, build_problem
from weft.parallel.reshard import Resharding
from weft.parallel.skeleton import Skeleton
from weft.parallel.strategies import StrategyTable
from weft.program.graph import Program

__all__ = ["Limits", "MeshSearch"]

DEAREST = 100.0
"""Dearest price, in units of the free plan's seconds per byte. Derived: at 100 memory decides and
time only breaks ties."""
PRICES = (0.1, DEAREST, 1.0, 0.01)
"""First prices in the same units, in order. Derived: where limits bind, 0.1 mostly suffices, and
its solve takes half as long as the dearest; at 0.01 only what is nearly free is given up."""
HIDDEN = 0.9
"""Share of weight gathers and gradient reductions that the first solve takes to be hidden, on a
machine that overlaps fully. Derived: not 1, or the programme would not care how much it moves."""
AGREES = 1.02
"""Simulated time over the objective up to which the share taken to be hidden was right. Derived:
the two differ by up to a hundredth where everything hides, by what a copy shares with another."""
MOST_PRICES = 8
"""Prices tried on one mesh. Derived: five to six sufficed in all measured cases."""
HOPELESS = 1.5
"""Share of the limit from which on the dearest price's peak tells that no price helps. Derived: it
was at most a fifth above the smallest of all prices in all measured cases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a search has to respect.

    Attributes:
        memory_limit_bytes: limit of one device [bytes].
        level: how hard to look.
        deadline_s: when to stop, on the clock of `time.perf_counter` [s].
    """

    memory_limit_bytes: float
    level: Level
    deadline_s: float = inf


@dataclass
class MeshSearch:
    """Flow programme of one program and mesh; remembers what it found and proved.

    Attributes:
        skeleton: units and links of the program.
        machine, mesh: where it runs.
        limits: what plans have to respect.
        stage: the programs to simulate.
        proposals: everything that was looked at.
    """

    skeleton: Skeleton
    machine: Machine
    mesh: Mesh
    limits: Limits
    stage: Stage
    proposals: list[Proposal] = field(default_factory=list, init=False)
    _bounds: dict[float, float] = field(default_factory=dict[float, float], init=False)
    _hidden: float = field(default=0.0, init=False)
    _most_s: float = field(default=inf, init=False)
    _proposed: dict[tuple[str, tuple[int, ...], float], Proposal] = field(
        default_factory=dict, init=False
    )

    @property
    def program(self) -> Program:
        """The program as captured."""
        return self.skeleton.program

    @cached_property
    def resharding(self) -> Resharding:
        """Hop tables of the mesh."""
        return Resharding(self.machine, self.mesh, min(self.skeleton.small_bytes, MESSAGE_BYTES))

    @cached_property
    def problem(self) -> Problem:
        """The planning problem of the mesh."""
        skeleton, device = self.skeleton, slowest_device(self.machine)
        table = StrategyTable(
            self.program,
            self.mesh,
            device,
            skeleton.traffic,
            skeleton.book,
            classes=() if self.mesh.is_even else device_classes((self.mesh,), self.machine),
        )
        return build_problem(self.skeleton, self.mesh, table, self.resharding)

    @cached_property
    def model(self) -> FlowModel:
        """The flow programme."""
        return FlowModel(self.problem)

    @cached_property
    def solver(self) -> Solver:
        """The programme, in its thread."""
        return Solver(self.model, self.limits.deadline_s)

    @property
    def _shares(self) -> tuple[float, ...]:
        """Shares of hideable communication that a programme may take to cost nothing, in order."""
        overlap = self.machine.overlap.value
        return (HIDDEN * overlap, 0.0) if overlap > 0 else (0.0,)

    def start(self) -> None:
        """Have the programme solved without regard to memory while others use the interpreter."""
        shares = self._shares if self.limits.level is Level.BEST else self._shares[:1]
        for hidden in shares:
            self.solver.ask(0.0, hidden)

    @property
    def least_s(self) -> float:
        """What the programme's optimum takes without regard to memory [s].

        Raises:
            TimeoutError: the deadline passed.
        """
        return self.solver.solution(0.0, self._shares[0]).objective_s

    def close(self) -> None:
        """Stop what still runs; the proposals stay."""
        self.solver.close()

    def at_price(self, price_s_per_byte: float, hidden: float = 0.0) -> tuple[Proposal, Solution]:
        """The plan that is optimal at a price of memory, without recomputation.

        Args:
            price_s_per_byte: what one byte of memory costs [s/byte].
            hidden: share of hideable communication that is taken to cost nothing.
        """
        solution = self._solution(price_s_per_byte, hidden)
        return self._propose("", solution), solution

    def _solution(self, price_s_per_byte: float, hidden: float) -> Solution:
        """The programme's, which says how fast a plan is at best that keeps within the limit."""
        solution = self.solver.solution(price_s_per_byte, hidden)
        bound_s = solution.bound_s - price_s_per_byte * self.limits.memory_limit_bytes
        self._bounds[hidden] = max(self._bounds.get(hidden, 0.0), bound_s)
        return solution

    def recomputing(self, solution: Solution) -> Proposal:
        """The least recomputation with which a solution fits; the most if none does."""
        cheap = self._propose("cheap", solution)
        return cheap if cheap.fits else self._propose("full", solution)

    def recomputed(self, most_s: float) -> None:
        """`free`, and the best of it with recomputation, if it does not fit and is fast enough.

        Args:
            most_s: a step that is of no interest [s].

        Raises:
            TimeoutError: the deadline passed; what was found until then is in `proposals`.
        """
        proposal, solution = min(self.free().values(), key=lambda found: found[0].rank)
        if not proposal.fits and proposal.prediction.step_s < most_s:
            self.recomputing(solution)

    def search(self, most_s: float = inf) -> Proposal:
        """The fastest plan found whose simulated peak fits; the smallest if none does.

        At the best level all of `free` make room where they have to, so that nothing is missed
        that the fast level finds. At the fast level recomputation is tried only where no price
        makes a plan fit.

        Args:
            most_s: a step that is of no interest, for which no room is made [s].

        Raises:
            TimeoutError: the deadline passed; what was found until then is in `proposals`.
        """
        found = self.free()
        best = min(found, key=lambda hidden: (found[hidden][0].rank, hidden))
        for hidden in found if self.limits.level is Level.BEST else (best,):
            proposal, solution = found[hidden]
            simulated_share = proposal.prediction.step_s / solution.objective_s
            self._hidden = hidden
            self._most_s = most_s / min(simulated_share, 1.0)
            if proposal.prediction.step_s <= most_s:
                self._make_room(proposal, solution)
        return min(self.proposals, key=lambda p: p.rank)

    def free(self) -> dict[float, tuple[Proposal, Solution]]:
        """Without regard to memory, the best plan by share of communication taken to be hidden.

        The programme takes most of what can hide to be hidden. Where the simulator hides less,
        it is solved again with all communication charged in full, and the simulator chooses; at
        the best level it always is.

        Raises:
            TimeoutError: the deadline passed; what was found until then is in `proposals`.
        """
        found: dict[float, tuple[Proposal, Solution]] = {}
        for hidden in self._shares:
            found[hidden] = proposal, solution = self.at_price(0.0, hidden)
            agrees = proposal.prediction.step_s <= AGREES * solution.objective_s
            if agrees and self.limits.level is not Level.BEST:
                break
        return found

    def _make_room(self, first: Proposal, free: Solution) -> None:
        """Where the free plan does not fit, raise the price of memory or recompute."""
        if first.fits:
            return
        fitting = self._raise_price(free)
        if fitting is None or self.limits.level is Level.BEST:
            self._recompute(free)

    def _raise_price(self, large: Solution) -> Solution | None:
        """Kelley's iteration between a solution that is too large and one that fits, if any."""
        small = self._first_fitting(large)
        if small is None:
            return None
        for _ in range(MOST_PRICES):
            saved = large.num_bytes - small.num_bytes
            paid = small.objective_s - large.objective_s
            if saved <= 0 or paid <= 0:
                break
            proposal, solution = self.at_price(paid / saved, self._hidden)
            if solution.states in (small.states, large.states):
                break
            if proposal.fits:
                small = solution
            else:
                large = solution
        if self.stage.views is None or self.limits.level is Level.BEST:
            self._mix(small, large)
        return small

    def _mix(self, small: Solution, large: Solution) -> None:
        """As many layers as fit follow the solution that is faster and too large, from the first.

        Layers of one kind share a strategy in the programme, so between two of its solutions
        there is room that only layers one by one can fill. The objective of a mix is that of
        the solution that fits, and the difference of the simulated sums of times.
        """
        layers = sorted(self.skeleton.folding.layers, key=lambda layer: (layer.stack, layer.index))
        whole = self._propose("", small)
        peaks = {0: whole.prediction.peak_bytes}
        peaks[len(layers)] = self._propose("", large).prediction.peak_bytes
        most, least = len(layers), 0
        while most - least > 1:
            middle = self._guess(least, most, peaks)
            nodes = frozenset(node for layer in layers[:middle] for node in layer.nodes)
            decision = mixed_choice(self.model.problem, small.states, large.states, nodes)
            candidate = self._assembled(self.stage.whole, "", decision)
            more_s = _sum_of_times(candidate.plan.prediction) - _sum_of_times(whole.prediction)
            candidate = _predicting(
                candidate,
                replace(candidate.plan.prediction, objective_s=small.objective_s + more_s),
            )
            name = f"mesh {self.mesh}, {middle} of {len(layers)} layers with more memory"
            proposal = self._finished(name, candidate, small.hidden)
            self.proposals.append(proposal)
            peaks[middle] = proposal.prediction.peak_bytes
            if proposal.fits:
                least = middle
            else:
                most = middle

    def _guess(self, least: int, most: int, peaks: Mapping[int, float]) -> int:
        """How many layers meet the limit if each adds as much memory as the next."""
        room = self.limits.memory_limit_bytes - peaks[least]
        rise = peaks[most] - peaks[least]
        share = room / rise if rise > 0 else 0.5
        return min(max(least + int(share * (most - least)), least + 1), most - 1)

    def _first_fitting(self, free: Solution) -> Solution | None:
        """A solution at some price that fits.

        Bytes of the programme leave out what is transient, so the dearest price need not give
        the smallest peak; where it does not fit, but is not far from it, lower ones may.
        """
        hopeless = HOPELESS * self.limits.memory_limit_bytes
        for ratio in PRICES:
            price = ratio * self._unit_price(free)
            self._solution(price, self._hidden)
            if self._bounds[self._hidden] > self._most_s:
                break
            proposal, solution = self.at_price(price, self._hidden)
            if proposal.fits:
                return solution
            if ratio == DEAREST and proposal.prediction.peak_bytes > hopeless:
                break
        return None

    def _recompute(self, free: Solution) -> None:
        """The free plan with recomputation; if it still does not fit, smaller ones too."""
        if self.recomputing(free).fits:
            return
        small = self._solution(DEAREST * self._unit_price(free), self._hidden)
        if small.objective_s > self._most_s:
            return
        self._propose("", small)
        saved = free.num_bytes - small.num_bytes
        if self.recomputing(small).fits and saved > 0:
            price = (small.objective_s - free.objective_s) / saved
            _, middle = self.at_price(price, self._hidden)
            self.recomputing(middle)

    def _unit_price(self, free: Solution) -> float:
        return free.objective_s / max(free.num_bytes, 1.0)

    def _propose(self, recomputation: str, solution: Solution) -> Proposal:
        """A solution with a recomputation: predicted from short versions, or built at once."""
        key = (recomputation, solution.states, solution.hidden)
        if key not in self._proposed:
            self._proposed[key] = self._made_proposal(recomputation, solution)
            self.proposals.append(self._proposed[key])
        return self._proposed[key]

    def _made_proposal(self, recomputation: str, solution: Solution) -> Proposal:
        def build(view: Shortened) -> Candidate:
            return self._built(view, recomputation, solution)

        limit = self.limits.memory_limit_bytes
        views = self.stage.views
        name = f"mesh {self.mesh}" + (f", {recomputation} recomputation" if recomputation else "")
        if views is None:
            return self._finished(name, build(self.stage.whole), solution.hidden)
        prediction = views.predict(lambda view: build(view).plan.prediction)
        return Proposal(
            name,
            prediction,
            limit,
            lambda: self._bounded(build(self.stage.whole), solution.hidden),
            recomputes=bool(recomputation),
        )

    def _finished(self, name: str, candidate: Candidate, hidden: float) -> Proposal:
        prediction, limit = candidate.plan.prediction, self.limits.memory_limit_bytes
        return Proposal(
            name,
            prediction,
            limit,
            lambda: self._bounded(candidate, hidden),
            recomputes=bool(candidate.plan.recompute),
        )

    def _bounded(self, candidate: Candidate, hidden: float) -> Candidate:
        """The candidate with what the whole search has proved of its programme."""
        bound_s = self._bounds[hidden]
        return _predicting(candidate, replace(candidate.plan.prediction, bound_s=bound_s))

    def _built(self, view: Shortened, recomputation: str, solution: Solution) -> Candidate:
        decision = single_choice(self.model.problem, solution.states, view.origin)
        return self._assembled(view, recomputation, decision, solution.objective_s)

    def _assembled(
        self, view: Shortened, recomputation: str, decision: Decision, objective_s: float = 0.0
    ) -> Candidate:
        expanded = self.stage.expanded(view, recomputation)
        if recomputation:
            decision = recomputed(decision, view.program, expanded)
        return assemble(
            f"mesh {self.mesh}",
            view.program,
            self.machine,
            self.mesh,
            decision.strategies,
            copies_for(expanded.program, decision, self.resharding),
            memory_limit_bytes=self.limits.memory_limit_bytes,
            recompute=expanded.chosen,
            expanded=expanded,
            level=self.limits.level,
            objective_s=objective_s,
        )


def _predicting(candidate: Candidate, prediction: Prediction) -> Candidate:
    return replace(candidate, plan=replace(candidate.plan, prediction=prediction))


def _sum_of_times(prediction: Prediction) -> float:
    return prediction.compute_s + prediction.communication_s
