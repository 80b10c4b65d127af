"""What the pieces of a program cost under one decision."""

from __future__ import annotations

from collections.abc import Set
from functools import cached_property

from weft.parallel.estimate import slowest_device
from weft.parallel.exact.conflict import stuck_unit
from weft.parallel.exact.extract import single_choice
from weft.parallel.exact.flow import FlowModel, Solution
from weft.parallel.greedy import greedy_axis
from weft.parallel.loop import Loop, varying_nodes
from weft.parallel.pinning import Pinning
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.slicing import Slicer
from weft.parallel.placement import Mesh, is_partial
from weft.parallel.plan import Level
from weft.parallel.problem import build_problem
from weft.parallel.reshard import Resharding
from weft.parallel.rules import Rule
from weft.parallel.skeleton import build_skeleton
from weft.parallel.strategies import StrategyTable
from weft.program.graph import Phase, Program, Role, Value

__all__ = ["Strategist", "batch_rules"]


class Strategist:
    """Decides placements for a program of one micro-batch on one mesh.

    Args:
        rows: the program.
        mesh: the grid of a group.
        loop: how often the program runs.
        batch_outside: whether the first axis cuts the batch of everything that repeats, so that
            only weights are left to decide on it.
        pinning: what is pinned in the program.
    """

    def __init__(
        self,
        rows: Rows,
        mesh: Mesh,
        loop: Loop,
        *,
        batch_outside: bool,
        pinning: Pinning,
    ) -> None:
        part, machine = rows.part, rows.machine
        self.part = part
        self.machine = machine
        self.mesh = mesh
        skeleton = build_skeleton(part, rows.folding, pinning, loop)
        self.resharding = Resharding(machine, mesh, skeleton.small_bytes)
        outer = batch_rules(part, mesh.shape[0], rows.crossing) if batch_outside else None
        device = slowest_device(machine)
        table = StrategyTable(
            part, mesh, device, skeleton.traffic, skeleton.book, outer, rows.crossing
        )
        self.problem = build_problem(skeleton, mesh, table, self.resharding, rows.crossing)
        self.pinning = pinning

    @property
    def stuck(self) -> str:
        """What the pins leave without a placement; empty if they can be kept."""
        unit = stuck_unit(self.problem, self.pinning) if self.pinning.values else None
        return "" if unit is None else self.problem.label(unit)

    @cached_property
    def model(self) -> FlowModel:
        """The flow programme."""
        return FlowModel(self.problem)

    def slicer(self, solution: Solution, limit_bytes: float, level: Level) -> Slicer:
        """What makes stages' plans of a solution."""
        return Slicer(
            self.part,
            single_choice(self.problem, solution.states),
            self.machine,
            self.mesh,
            self.resharding,
            limit_bytes,
            level,
        )


def batch_rules(part: Program, size: int, settled: Set[Value]) -> dict[int, Rule]:
    """What data parallelism does to what repeats, by node.

    Args:
        part: the program of one micro-batch.
        size: devices that share out its rows.
        settled: values that nobody may read before they are reduced.
    """
    pinned = {
        source.node: 0
        for source in part.inputs
        if source.role is Role.BATCH and part.nodes[source.node].outputs[0].shape
    }
    rules = greedy_axis(part, pinned, size)
    kept: dict[int, Rule] = {}
    free: set[int] = set()
    for number, varies in enumerate(varying_nodes(part)):
        node, rule = part.nodes[number], rules[number]
        # An update that scales each gradient before the sum decides with the rest of its cluster.
        if not varies or node.phase is Phase.UPDATE or node.op == "accumulate":
            continue
        summands = (
            value
            for value, place in zip(part.operands(number), rule.operands, strict=True)
            if is_partial(place)
        )
        if any(value in settled or value.node in free for value in summands):
            free.add(number)  # it finds a sum, and hands on what is none
        else:
            kept[number] = rule
    return kept
