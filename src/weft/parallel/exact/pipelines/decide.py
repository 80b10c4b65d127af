"""Placements of a micro-batch on a group's grid: by a programme, or by the classical schemes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from weft.parallel.copies import Decision
from weft.parallel.degrees import Degrees
from weft.parallel.exact.flow import Solution
from weft.parallel.exact.pipelines.configs import Config
from weft.parallel.exact.pipelines.found import Placing
from weft.parallel.exact.pipelines.measure import Rows, Strategist
from weft.parallel.exact.pipelines.slicing import Slicer
from weft.parallel.loop import Loop
from weft.parallel.plan import Level
from weft.parallel.propagate import combine
from weft.parallel.reshard import Resharding
from weft.parallel.schemes import Schemes

__all__ = ["Desk", "degrees_of"]


@dataclass(frozen=True)
class Desk:
    """Where placements are decided for one configuration.

    Attributes:
        rows: the program of one micro-batch.
        config: groups, grids, micro-batches.
        limit_bytes: limit of one device [bytes].
        level: how hard the search looks.
    """

    rows: Rows
    config: Config
    limit_bytes: float
    level: Level

    @cached_property
    def strategist(self) -> Strategist:
        """The flow programme."""
        config = self.config
        held = max(1, min(config.micro_batches, config.groups))
        return Strategist(
            self.rows,
            config.mesh,
            Loop(times=config.micro_batches, held=held),
            batch_outside=config.data > 1 and config.inner > 1,
        )

    def solution(self, placing: Placing) -> Solution:
        """The programme's solution."""
        return self.strategist.model.solve(placing.price_s_per_byte, placing.hidden)

    @cached_property
    def bound_s(self) -> float:
        """No plan of the configuration takes less [s].

        Every operator as fast as it can be on a group's grid, the groups never waiting, neither
        for communication nor for each other. What would be hidden of communication depends on
        the plan, so that none is charged.
        """
        units = self.strategist.model.problem.units
        return sum(float(unit.seconds.min()) for unit in units) / self.config.groups

    def slicer(self, placing: Placing) -> Slicer:
        """What makes stages' plans of the placements.

        Raises:
            InputError: the sizes of the program do not divide by the degrees.
        """
        if placing.degrees is None:
            return self.strategist.slicer(self.solution(placing), self.limit_bytes, self.level)
        axes, lasting = self.rows.schemes.axes(placing.degrees)
        mesh, machine = placing.degrees.mesh, self.rows.machine
        return Slicer(
            self.rows.part,
            Decision(combine(axes), {}, lasting),
            machine,
            mesh,
            Resharding(machine, mesh),
            self.limit_bytes,
            Level.EXPERT,
        )


def degrees_of(config: Config, schemes: Schemes) -> list[Degrees]:
    """What an engineer would try on the grid of a group, apart from recomputation."""
    data, inner = config.data, config.inner
    zeros = (1, 3) if data > 1 else (0,)
    sequences = (False, True) if inner > 1 and schemes.has_sequence else (False,)
    found = [Degrees(dp=data, tp=inner, zero=z, sp=sp) for z in zeros for sp in sequences]
    if inner > 1 and schemes.has_experts:
        found += [Degrees(dp=data * inner, ep=inner, zero=z) for z in (1, 3)]
    if inner > 1 and schemes.has_sequence:
        found += [Degrees(dp=data, cp=inner, zero=z) for z in (1, 3)]
    return found
