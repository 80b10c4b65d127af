"""Learned planners against the exact one: plans of one stage, simulated operator by operator.

The exact planner proves a bound for the additive objective of a mesh: no plan on it has a smaller
one. It is solved on meshes with shares of the batch in proportion to speed too. Where its plan
meets the bound, that is an optimum to be measured by. Homes that differ from operator to operator
are in none of its programmes, so tree search may well find faster plans.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from benchmarks.job import program_of
from benchmarks.tag.models import RECIPES, sketch_of
from weft.core.errors import InfeasibleError
from weft.machine.model import Machine
from weft.machine.presets import preset
from weft.parallel.depth import views_of
from weft.parallel.mcts.topologies import PRESET, random_machine
from weft.parallel.plan import ParallelPlan
from weft.parallel.planning import plan
from weft.program.fold import fold
from weft.program.graph import Program

__all__ = ["LIMIT_S", "PROVEN", "Against", "against", "against_exact"]

LIMIT_S = 60.0
"""Time that a planner may search [s]. Chosen: the exact one takes 3 s for VGG-19 and half a minute
for the larger ones."""
DQN_S, DQN_NODES = 20.0, 2000
"""Time that `dqn` may search [s], and operators up to which it is asked. Chosen: in that time it
plays episodes enough on those, and hardly any on others."""
MACHINES, SEED = 1, 11
"""Random machines for each model, and their seed."""
PROVEN = 1e-3
"""Distance of the objective from its bound up to which it is an optimum. Chosen: both are sums of
some thousand terms, and integer programmes are solved to 1e-4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """What planners make of one model on one machine.

    Attributes:
        model, machine: which.
        operators: of the program; deep models have a few of their layers.
        exact_s: step of the exact planner's plan [s].
        gap: of its objective from the bound; None if none is known, as of experts' plans.
        learned_s: step of what a learned planner plans, by its name [s].
        without: learned planners that find no plan that fits.
        searched_s: how long each planner took, by its name [s].
    """

    model: str
    machine: str
    operators: int
    exact_s: float
    gap: float | None
    learned_s: dict[str, float]
    without: tuple[str, ...]
    searched_s: dict[str, float]

    @property
    def proven(self) -> bool:
        """Whether the exact planner's plan is an optimum of its programmes."""
        return self.gap is not None and self.gap <= PROVEN

    @property
    def worst(self) -> float:
        """The longest of the learned planners' steps over the exact one's."""
        return max(self.learned_s.values(), default=0.0) / self.exact_s


def against_exact(models: Sequence[str], machines: int) -> list[Against]:
    """Every model on the testbed, and on so many random machines of its own.

    Args:
        models: names of `RECIPES`.
        machines: random ones for each.
    """
    generator, found = np.random.default_rng(SEED), []
    for model in models:
        needs = float(sketch_of(model).group_bytes.sum())
        drawn = [random_machine(generator, needs) for _ in range(machines)]
        for machine in (preset(PRESET), *drawn):
            case = against(model, machine)
            found += [] if case is None else [case]
    return found


def against(model: str, machine: Machine) -> Against | None:
    """Plan one model on one machine with every planner; None if the exact one finds nothing."""
    program = _shortened(model)
    optimum = _planned(program, machine, "exact", LIMIT_S)
    if optimum is None:
        return None
    tried = {"mcts": _planned(program, machine, "mcts", LIMIT_S)}
    if machine.name == PRESET and len(program.nodes) <= DQN_NODES:
        tried["dqn"] = _planned(program, machine, "dqn", DQN_S)
    learned = {name: found for name, found in tried.items() if found is not None}
    bounded = optimum.prediction.bound_s > 0
    case = Against(
        model=model,
        machine=machine.name,
        operators=len(program.nodes),
        exact_s=optimum.prediction.step_s,
        gap=optimum.prediction.gap if bounded else None,
        learned_s={name: found.prediction.step_s for name, found in learned.items()},
        without=tuple(name for name in tried if name not in learned),
        searched_s={own.planner: own.search_s for own in (optimum, *learned.values())},
    )
    said = ", ".join(f"{name} {1e3 * s:.1f} ms" for name, s in case.learned_s.items())
    print(
        f"{model} on {machine.name}: exact {1e3 * case.exact_s:.1f} ms"
        f"{' (proven)' if case.proven else ''}, {said}; searched {case.searched_s}",
        file=sys.stderr,
        flush=True,
    )
    return case


def _planned(
    program: Program, machine: Machine, planner: str, most_s: float
) -> ParallelPlan | None:
    """A plan of one stage; None if none fits."""
    try:
        return plan(program, machine, planner=planner, max_stages=1, time_limit_s=most_s)
    except InfeasibleError:
        return None


@cache
def _shortened(model: str) -> Program:
    """A model's step; of a deep one with few of its layers, as planners predict it from."""
    program = program_of(RECIPES[model])
    views = views_of(program, fold(program))
    return program if views is None else views.short.program
