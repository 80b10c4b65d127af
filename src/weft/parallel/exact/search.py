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
from dataclasses import dataclass, field
from functools import cached_property

from weft.machine.model import Machine
from weft.parallel.candidate import Candidate, assemble
from weft.parallel.copies import Decision, copies_for
from weft.parallel.estimate import slowest_device
from weft.parallel.exact.extract import recomputed, single_choice
from weft.parallel.exact.flow import FlowModel, Solution
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level
from weft.parallel.problem import build_problem
from weft.parallel.recompute import Expanded
from weft.parallel.reshard import Resharding
from weft.parallel.skeleton import Skeleton
from weft.parallel.strategies import StrategyTable
from weft.program.graph import Program

__all__ = ["Limits", "MeshSearch"]

STEEP = 100.0
"""First price, in units of the free plan's seconds per byte: memory then decides and time only
breaks ties. Derived."""
MOST_PRICES = 8
"""Prices tried on one mesh. Derived: five to six sufficed in all measured cases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a search has to respect."""

    memory_limit_bytes: float
    level: Level


@dataclass
class MeshSearch:
    """Flow programme of one program and mesh; remembers what it found and proved.

    Attributes:
        skeleton: units and links of the program.
        machine, mesh: where it runs.
        limits: what plans have to respect.
        recomputations: by name, the program with some forward operators repeated, cheapest first.
        candidates: everything that was simulated.
        bound_s: best lower bound proved so far [s].
    """

    skeleton: Skeleton
    machine: Machine
    mesh: Mesh
    limits: Limits
    recomputations: Mapping[str, Expanded] = field(default_factory=dict)
    candidates: list[Candidate] = field(default_factory=list, init=False)
    bound_s: float = field(default=0.0, init=False)

    @property
    def program(self) -> Program:
        """The program as captured."""
        return self.skeleton.program

    @cached_property
    def resharding(self) -> Resharding:
        """Hop tables of the mesh."""
        return Resharding(self.machine, self.mesh)

    @cached_property
    def model(self) -> FlowModel:
        """The flow programme."""
        table = StrategyTable(self.program, self.mesh, slowest_device(self.machine))
        return FlowModel(build_problem(self.skeleton, self.mesh, table, self.resharding))

    def at_price(self, price_s_per_byte: float) -> tuple[Candidate, Solution]:
        """The plan that is optimal at a price of memory, without recomputation."""
        solution = self.model.solve(price_s_per_byte)
        limit = self.limits.memory_limit_bytes
        self.bound_s = max(self.bound_s, solution.bound_s - price_s_per_byte * limit)
        decision = single_choice(self.model.problem, solution.states)
        plain = Expanded(self.program, ())
        return self._candidate("", plain, decision, solution), solution

    def recomputing(self, solution: Solution) -> Candidate | None:
        """The least recomputation with which a solution fits; the most if none does."""
        decision = single_choice(self.model.problem, solution.states)
        candidate = None
        for name, expanded in self.recomputations.items():
            again = recomputed(decision, self.program, expanded)
            candidate = self._candidate(f" {name} recomputation", expanded, again, solution)
            if candidate.fits:
                break
        return candidate

    def search(self) -> Candidate:
        """The fastest plan found whose simulated peak fits; the smallest if none does.

        At the fast level recomputation is tried only where no price makes a plan fit.
        """
        first, free = self.at_price(0.0)
        if not first.fits:
            fitting = self._raise_price(free)
            if fitting is None or self.limits.level is Level.BEST:
                self._recompute(free)
        return min(
            self.candidates,
            key=lambda c: (not c.fits, c.step_s if c.fits else c.peak_bytes),
        )

    def _raise_price(self, large: Solution) -> Solution | None:
        """Kelley's iteration between a solution that is too large and one that fits, if any."""
        candidate, small = self.at_price(self._steep(large))
        if not candidate.fits:
            return None
        for _ in range(MOST_PRICES):
            saved = large.num_bytes - small.num_bytes
            paid = small.objective_s - large.objective_s
            if saved <= 0 or paid <= 0:
                break
            candidate, solution = self.at_price(paid / saved)
            if solution.states in (small.states, large.states):
                break
            if candidate.fits:
                small = solution
            else:
                large = solution
        return small

    def _recompute(self, free: Solution) -> None:
        """The free plan with recomputation; if it still does not fit, the smallest plan too."""
        candidate = self.recomputing(free)
        if candidate is None or candidate.fits:
            return
        _, small = self.at_price(self._steep(free))
        candidate = self.recomputing(small)
        saved = free.num_bytes - small.num_bytes
        if candidate is not None and candidate.fits and saved > 0:
            _, middle = self.at_price((small.objective_s - free.objective_s) / saved)
            self.recomputing(middle)

    def _steep(self, free: Solution) -> float:
        return STEEP * free.objective_s / max(free.num_bytes, 1.0)

    def _candidate(
        self, suffix: str, expanded: Expanded, decision: Decision, solution: Solution
    ) -> Candidate:
        candidate = assemble(
            f"mesh {self.mesh}{suffix}",
            self.program,
            self.machine,
            self.mesh,
            decision.strategies,
            copies_for(expanded.program, decision, self.resharding),
            memory_limit_bytes=self.limits.memory_limit_bytes,
            recompute=expanded.chosen,
            level=self.limits.level,
            objective_s=solution.objective_s,
            bound_s=self.bound_s,
        )
        self.candidates.append(candidate)
        return candidate
