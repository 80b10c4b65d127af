"""A finished plan with its simulated step: what planners compare.

Searched plans and hand-written ones pass through here, so that all are lowered and
simulated in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace

from weft.cost.timeline import Timeline
from weft.machine.model import Machine
from weft.parallel.estimate import estimate
from weft.parallel.placement import Mesh
from weft.parallel.plan import Alternative, Copy, Level, ParallelPlan, Prediction, Strategy
from weft.parallel.recompute import Expanded, expand
from weft.parallel.spmd import lower_expanded
from weft.program.graph import Program

__all__ = [
    "Candidate",
    "Proposal",
    "alternatives",
    "assemble",
    "best_of",
    "ranked",
    "simulate_plan",
    "unpriced",
]

_UNKNOWN = Prediction(
    step_s=0.0, compute_s=0.0, communication_s=0.0, exposed_s=0.0, peak_bytes=0.0, state_bytes=0.0
)


@dataclass(frozen=True)
class Candidate:
    """A plan under its name, with its timeline."""

    name: str
    plan: ParallelPlan
    timeline: Timeline

    @property
    def step_s(self) -> float:
        """Simulated step time [s]."""
        return self.plan.prediction.step_s

    @property
    def peak_bytes(self) -> float:
        """Simulated peak memory of one device [bytes]."""
        return self.plan.prediction.peak_bytes

    @property
    def fits(self) -> bool:
        """True if the peak stays under the plan's limit."""
        return self.peak_bytes <= self.plan.memory_limit_bytes


def assemble(
    name: str,
    program: Program,
    machine: Machine,
    mesh: Mesh,
    strategies: Sequence[Strategy],
    copies: Sequence[Copy],
    *,
    memory_limit_bytes: float,
    recompute: tuple[int, ...] = (),
    expanded: Expanded | None = None,
    level: Level = Level.FAST,
    objective_s: float = 0.0,
    homes: tuple[Mesh, ...] = (),
) -> Candidate:
    """Make a plan of a decision and simulate it.

    Args:
        name: what people call the plan.
        program: as captured.
        machine, mesh: where it runs.
        strategies: one for each node of the program with `recompute` applied.
        copies: what readers need in other shardings.
        memory_limit_bytes: limit of one device; where it is the smallest device's memory, a device
            that has more may use that [bytes].
        recompute: forward nodes that run again in the backward pass.
        expanded: the program with `recompute` applied, if the caller has it.
        level: how it was found.
        objective_s: of the solver, if there was one [s].
        homes: further homes of nodes, from 1 on.
    """
    plan = unpriced(
        program,
        machine,
        mesh,
        strategies,
        copies,
        memory_limit_bytes=memory_limit_bytes,
        recompute=recompute,
        level=level,
        homes=homes,
    )
    timeline, prediction = simulate_plan(plan, program, machine, expanded)
    smallest = min(group.device.memory_bytes.value for group in machine.groups)
    own = timeline.capacity_bytes if memory_limit_bytes >= smallest else 0.0
    prediction = replace(prediction, objective_s=objective_s)
    plan = replace(plan, prediction=prediction, memory_limit_bytes=own or memory_limit_bytes)
    return Candidate(name, plan, timeline)


def unpriced(
    program: Program,
    machine: Machine,
    mesh: Mesh,
    strategies: Sequence[Strategy],
    copies: Sequence[Copy],
    *,
    memory_limit_bytes: float,
    recompute: tuple[int, ...],
    level: Level,
    homes: tuple[Mesh, ...] = (),
) -> ParallelPlan:
    """The plan of a decision, its prediction still to come; see `assemble` for the arguments."""
    return ParallelPlan(
        program_name=program.name,
        program_digest=program.digest,
        machine_name=machine.name,
        machine_digest=machine.digest,
        mesh=mesh,
        strategies=tuple(strategies),
        copies=tuple(copies),
        recompute=recompute,
        memory_limit_bytes=memory_limit_bytes,
        prediction=_UNKNOWN,
        level=level,
        homes=homes,
    )


def simulate_plan(
    plan: ParallelPlan, program: Program, machine: Machine, expanded: Expanded | None = None
) -> tuple[Timeline, Prediction]:
    """Lower a plan and simulate one step of it on a machine.

    Args:
        plan: made for the program.
        program: as captured.
        machine: where it runs.
        expanded: the program with the plan's recomputation applied, if the caller has it.
    """
    if expanded is None:
        expanded = expand(program, plan.recompute)
    local = lower_expanded(expanded.program, plan)
    return estimate(local, expanded.program, machine, expanded.traffic)


@dataclass(frozen=True)
class Proposal:
    """A plan that is known by what it would cost; it is made only if it is wanted.

    Attributes:
        name: what people call it.
        prediction: of the whole program, simulated or extrapolated from short ones.
        memory_limit_bytes: limit of one device [bytes].
        build: makes and simulates it.
        recomputes: whether some of the forward pass runs twice.
        idles: whether devices have nothing to do while others work.
    """

    name: str
    prediction: Prediction
    memory_limit_bytes: float
    build: Callable[[], Candidate]
    recomputes: bool = False
    idles: bool = False

    @property
    def fits(self) -> bool:
        """True if the peak stays under the limit."""
        return self.prediction.peak_bytes <= self.memory_limit_bytes

    @classmethod
    def of(cls, candidate: Candidate) -> Proposal:
        """A plan that is made already."""
        plan = candidate.plan
        return cls(
            candidate.name,
            plan.prediction,
            plan.memory_limit_bytes,
            lambda: candidate,
            idles=any(not all(map(all, home.shares)) for home in plan.homes),
        )

    @property
    def rank(self) -> tuple[bool, float]:
        """Order of preference: what fits by time, then what does not by size."""
        cost = self.prediction.step_s if self.fits else self.prediction.peak_bytes
        return (not self.fits, cost)


def best_of(proposals: Sequence[Proposal], baselines: Set[str] = frozenset()) -> Candidate:
    """The fastest that fits, built, with the best of each other name; else the smallest.

    What is said of a deep program is extrapolated from short versions, which hide more behind the
    work than the whole does, or less. So others are built until nothing is said to be faster than
    the best of those that are, and no baseline to be nearly as fast.

    Args:
        proposals: of plans.
        baselines: names of those than which the best must not be slower.
    """
    order = ranked(proposals)
    chosen, best = 0, order[0].build()
    for number, proposal in enumerate(order[1:], start=1):
        known_s = best.step_s * (NEARLY if proposal.name in baselines else 1.0)
        if not proposal.fits or (best.fits and proposal.prediction.step_s >= NEARLY * best.step_s):
            break
        if best.fits and proposal.prediction.step_s >= known_s:
            continue
        other = proposal.build()
        if other.fits and (not best.fits or other.step_s < best.step_s):
            chosen, best = number, other
    others = alternatives([p for p in order if p.name != order[chosen].name])
    return replace(best, plan=replace(best.plan, alternatives=others))


NEARLY = 1.03
"""What is said of a plan over a step that it may turn out to be faster than. Derived: of fifteen
experts' plans of transformers of 16 to 24 layers over 25 Gbit/s none turned out more than 1.6 %
faster than said."""


def ranked(proposals: Iterable[Proposal]) -> list[Proposal]:
    """Proposals, best first."""
    return sorted(proposals, key=lambda proposal: proposal.rank)


def alternatives(order: Sequence[Proposal]) -> tuple[Alternative, ...]:
    """The best proposal of each name, not built.

    Args:
        order: best first.
    """
    best: dict[str, Proposal] = {}
    for proposal in order:
        best.setdefault(proposal.name, proposal)
    return tuple(
        Alternative(
            name=p.name,
            step_s=p.prediction.step_s,
            peak_bytes=p.prediction.peak_bytes,
            fits=p.fits,
        )
        for p in best.values()
    )
