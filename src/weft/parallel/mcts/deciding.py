"""From a program and a machine to a decision: groups, sketch, search, and where nodes live then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from weft.machine.model import Machine
from weft.parallel.homes import Homes
from weft.parallel.mcts.cluster import cluster_of, kinds_of
from weft.parallel.mcts.decision import homes
from weft.parallel.mcts.groups import MOST_GROUPS, Grouping, grouped
from weft.parallel.mcts.options import EXTENDED, Method, Options
from weft.parallel.mcts.search import Found, Prior, Search, uniform
from weft.parallel.mcts.simulate import Simulator
from weft.parallel.mcts.sketch import Sketch
from weft.parallel.mcts.sketching import sketched
from weft.program.graph import Program

__all__ = ["Decided", "decide"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision with what it was taken on.

    Attributes:
        grouping: which nodes were decided about together.
        sketch: what was simulated.
        found: what the search found.
        homes: where every node lives, for the best decisions; what was found comes first.
    """

    grouping: Grouping
    sketch: Sketch
    found: Found
    homes: tuple[Homes, ...]


def decide(
    program: Program,
    machine: Machine,
    *,
    simulations: int = 500,
    refinements: int = 1500,
    prior: Prior = uniform,
    methods: Sequence[Method] = EXTENDED,
    most_groups: int = MOST_GROUPS,
    count: int = 1,
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> Decided:
    """Decide who computes how many rows of each group, and how gradients meet.

    Args:
        program: the step.
        machine: where it is to run; every device of it may take part.
        simulations: of the tree search.
        refinements: simulations afterwards, changing one group at a time.
        prior: what the tree search expects of choices.
        methods: that may be chosen.
        most_groups: that are decided about.
        count: of decisions at most, which differ in what counts.
        seed: of the partition into groups; the rest has no chance in it.
        stop: asked before each simulation; what was best so far comes out.

    Raises:
        InputError: the batch has fewer than two rows, a device has no rate for the products of the
            step, or METIS is needed and missing.
        RuleError: no rule covers an operator.
    """
    devices = kinds_of(machine)
    grouping = grouped(program, devices, most=most_groups, seed=seed)
    sketch = sketched(grouping, devices)
    cluster = cluster_of(machine, devices)
    simulator = Simulator(sketch, cluster)
    search = Search(simulator, Options(sketch, cluster, methods), prior)
    search.run(simulations, stop)
    found = search.refine(refinements, stop)
    return Decided(
        grouping=grouping,
        sketch=sketch,
        found=found,
        homes=tuple(
            homes(decision, grouping, sketch, outcome.factored, simulator.cut(decision))
            for decision, outcome in search.best(count)
        ),
    )
