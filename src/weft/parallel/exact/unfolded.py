"""The problem without folding, for choices that differ from layer to layer.

In a folded problem layers that are alike share their states, so between two neighbours of a curve
over memory there may be much room that only layers one by one can fill. Here each layer has units
of its own; states of the folded problem are theirs as well, and any mix of two choices has its
exact objective.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property

from weft.parallel.exact.flow import Solution
from weft.parallel.problem import Problem, build_problem
from weft.parallel.reshard import Resharding
from weft.parallel.skeleton import UnitSpec, build_skeleton
from weft.parallel.strategies import StrategyTable
from weft.program.fold import Folding

__all__ = ["Mix", "Unfolded", "unfolded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Layers that follow the larger of two solutions, from the first, and all else the smaller.

    Attributes:
        small, large: the two solutions.
        layers: how many follow the larger one.
        objective_s: of the mix [s].
        num_bytes: memory of the mix on one device [bytes].
    """

    small: Solution
    large: Solution
    layers: int
    objective_s: float
    num_bytes: float


@dataclass(frozen=True)
class Unfolded:
    """A problem whose layers decide each for itself.

    Attributes:
        problem: without folding.
        unit: for each of its units, the one of the folded problem that it does as.
        layer: for each of its units, its layer in order; -1 outside of all layers.
    """

    problem: Problem
    unit: tuple[int, ...]
    layer: tuple[int, ...]
    _mixes: dict[tuple[Solution, Solution, int], Mix] = field(
        default_factory=dict[tuple[Solution, Solution, int], Mix], repr=False, compare=False
    )

    @cached_property
    def num_layers(self) -> int:
        """Layers of all stacks."""
        return max(self.layer, default=-1) + 1

    def mix(self, small: Solution, large: Solution, layers: int) -> Mix:
        """The first layers follow the larger solution, all else the smaller; worked out once."""
        key = (small, large, layers)
        if key not in self._mixes:
            self._mixes[key] = self._mixed(*key)
        return self._mixes[key]

    def _mixed(self, small: Solution, large: Solution, layers: int) -> Mix:
        states = [
            (large if 0 <= layer < layers else small).states[unit]
            for unit, layer in zip(self.unit, self.layer, strict=True)
        ]
        return Mix(
            small=small,
            large=large,
            layers=layers,
            objective_s=self.problem.objective(states, small.hidden),
            num_bytes=self.problem.num_bytes(states),
        )


def unfolded(problem: Problem, table: StrategyTable, resharding: Resharding) -> Unfolded:
    """A problem without folding.

    Args:
        problem: folded.
        table: strategies of nodes.
        resharding: what it costs to move a tensor.
    """
    skeleton = problem.skeleton
    program, folding = skeleton.program, skeleton.folding
    count = len(program.nodes)
    alone = Folding(representative=tuple(range(count)), multiplicity=(1,) * count, layers=())
    flat = build_problem(
        build_skeleton(program, alone, skeleton.pinning), problem.mesh, table, resharding
    )
    number = {_key(unit.spec, alone): n for n, unit in enumerate(problem.units)}
    ordered = sorted(folding.layers, key=lambda layer: (layer.stack, layer.index))
    layer_of = {node: n for n, layer in enumerate(ordered) for node in layer.nodes}
    return Unfolded(
        flat,
        tuple(number[_key(unit.spec, folding)] for unit in flat.units),
        tuple(layer_of.get(_node(unit.spec), -1) for unit in flat.units),
    )


def _node(spec: UnitSpec) -> int:
    """A node that a unit decides, or the one whose value it is a version of; -1 for the sink."""
    if spec.nodes:
        return spec.nodes[0]
    return -1 if spec.value is None else spec.value.node


def _key(spec: UnitSpec, folding: Folding) -> Hashable:
    """What a unit decides, as the folding names it."""
    rep = folding.representative
    nodes = tuple(sorted(rep[node] for node in spec.nodes))
    value = None if spec.value is None else (rep[spec.value.node], spec.value.output)
    return (spec.kind, nodes, value, spec.phase, spec.first, spec.stays, spec.keeps)
