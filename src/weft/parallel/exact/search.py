"""Exact planning of one pipeline stage: over mesh shapes, memory prices and recomputation.

For each mesh the flow programme gives the plan that is cheapest without regard to memory. If
its simulated peak does not fit, memory gets a price per byte, which is raised until the plan
fits: the price is the slope between the best plan known to fit and the best known not to
(Kelley's cutting planes in one dimension, each solve warm from the last). The same is tried
with cheap and with full recomputation. Candidates are compared in the simulator.

The bound of a plan is the Lagrangian one, max over prices of (optimum - price * limit): no
plan of that mesh and recomputation within the limit has a smaller objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from weft.machine.model import Machine
from weft.parallel.candidate import Candidate, assemble
from weft.parallel.copies import copies_for
from weft.parallel.estimate import slowest_device
from weft.parallel.exact.extract import single_choice
from weft.parallel.exact.flow import FlowModel, Solution
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level
from weft.parallel.problem import build_problem
from weft.parallel.recompute import with_recompute
from weft.parallel.reshard import Resharding
from weft.parallel.skeleton import Skeleton, build_skeleton
from weft.parallel.strategies import StrategyTable
from weft.program.fold import fold
from weft.program.graph import Program

__all__ = ["Limits", "MeshSearch", "search_mesh"]

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
    """Flow programme of one program, recomputation and mesh; remembers the bound it has proved."""

    program: Program
    machine: Machine
    mesh: Mesh
    limits: Limits
    recompute: tuple[int, ...] = ()
    label: str = ""
    skeleton: Skeleton | None = None
    bound_s: float = field(default=0.0, init=False)

    @cached_property
    def expanded(self) -> Program:
        """The program with recomputation applied."""
        return with_recompute(self.program, self.recompute)

    @cached_property
    def resharding(self) -> Resharding:
        """Hop tables of the mesh."""
        return Resharding(self.machine, self.mesh)

    @cached_property
    def model(self) -> FlowModel:
        """The flow programme."""
        program = self.expanded
        skeleton = self.skeleton or build_skeleton(program, fold(program))
        table = StrategyTable(program, self.mesh, slowest_device(self.machine))
        return FlowModel(build_problem(skeleton, self.mesh, table, self.resharding))

    def at_price(self, price_s_per_byte: float) -> tuple[Candidate, Solution]:
        """The plan that is optimal at a price of memory."""
        solution = self.model.solve(price_s_per_byte)
        limit = self.limits.memory_limit_bytes
        self.bound_s = max(self.bound_s, solution.bound_s - price_s_per_byte * limit)
        decision = single_choice(self.model.problem, solution.states)
        candidate = assemble(
            f"{self.label}{self.mesh}",
            self.program,
            self.machine,
            self.mesh,
            decision.strategies,
            copies_for(self.expanded, decision, self.resharding),
            memory_limit_bytes=limit,
            recompute=self.recompute,
            level=self.limits.level,
            objective_s=solution.objective_s,
            bound_s=self.bound_s,
        )
        return candidate, solution

    def within_limit(self) -> tuple[Candidate, bool]:
        """The fastest plan found whose simulated peak fits, and whether memory was in the way.

        If none fits, the smallest one is returned.
        """
        best, large = self.at_price(0.0)
        if best.fits:
            return best, False
        best, small = self.at_price(STEEP * large.objective_s / max(large.num_bytes, 1.0))
        if not best.fits:
            return best, True
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
                best = min(best, candidate, key=lambda c: c.step_s)
            else:
                large = solution
        return best, True


def search_mesh(
    program: Program,
    machine: Machine,
    mesh: Mesh,
    limits: Limits,
    skeleton: Skeleton,
    recomputations: Callable[[], dict[str, tuple[int, ...]]],
) -> list[Candidate]:
    """Candidates of one mesh: the best without recomputation and, if memory binds, with it."""
    plain = MeshSearch(program, machine, mesh, limits, skeleton=skeleton)
    first, memory_binds = plain.within_limit()
    candidates = [first]
    if memory_binds:
        for name, nodes in recomputations().items():
            label = f"{name} recomputation, "
            other = MeshSearch(program, machine, mesh, limits, recompute=nodes, label=label)
            candidates.append(other.within_limit()[0])
    return candidates
