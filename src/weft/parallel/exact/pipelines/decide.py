"""Placements of a micro-batch on a group's grid: by a programme, or by the classical schemes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from weft.core.errors import InfeasibleError
from weft.parallel.degrees import Degrees
from weft.parallel.exact.flow import Solution
from weft.parallel.exact.pipelines.configs import Config
from weft.parallel.exact.pipelines.found import Placing
from weft.parallel.exact.pipelines.measure import Strategist
from weft.parallel.loop import Loop
from weft.parallel.pipeline.estimate import StageCost
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.piece_costs import piece_costs
from weft.parallel.pipeline.slicing import Slicer
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level
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
    _costs: dict[tuple[Placing, str], list[StageCost]] = field(
        default_factory=dict[tuple[Placing, str], "list[StageCost]"], repr=False, compare=False
    )
    _of_pieces: dict[Mesh, dict[object, StageCost]] = field(
        default_factory=dict[Mesh, "dict[object, StageCost]"], repr=False, compare=False
    )
    _solutions: dict[tuple[float, float], Solution] = field(
        default_factory=dict[tuple[float, float], Solution], repr=False, compare=False
    )

    def costs(self, placing: Placing, recomputation: str) -> list[StageCost]:
        """Cost of each piece of the whole program, worked out once.

        Args:
            placing: which placements.
            recomputation: one of `weft.parallel.recompute.RECOMPUTATIONS`.

        Raises:
            InputError, InfeasibleError: as `slicer` does.
        """
        key = (placing, recomputation)
        if key not in self._costs:
            slicer = self.slicer(placing)
            known = self._of_pieces.setdefault(slicer.mesh, {})
            self._costs[key] = piece_costs(
                self.rows, slicer.plan, recomputation, self.rows.machine, known
            )
        return self._costs[key]

    @cached_property
    def strategist(self) -> Strategist:
        """The flow programme; where pins ask for it, the batch is not cut outside.

        Raises:
            InfeasibleError: the pins cannot be kept on the grid.
        """
        config, pinning = self.config, self.rows.pinning
        loop = Loop(
            times=config.micro_batches, held=max(1, min(config.micro_batches, config.groups))
        )
        stuck = ""
        for outside in (True, False) if config.data > 1 and config.inner > 1 else (False,):
            found = Strategist(self.rows, config.mesh, loop, batch_outside=outside, pinning=pinning)
            stuck = found.stuck
            if not stuck:
                return found
        raise InfeasibleError(
            need=f"placements that keep {pinning.text}",
            got=f"none left for {stuck} in {config}",
            hint="drop or change a pin",
            constraint="pins",
        )

    def solution(self, placing: Placing) -> Solution:
        """The programme's solution, worked out once."""
        key = (placing.price_s_per_byte, placing.hidden)
        if key not in self._solutions:
            self._solutions[key] = self.strategist.model.solve(*key)
        return self._solutions[key]

    @cached_property
    def bound_s(self) -> float:
        """No plan of the configuration takes less, on the whole program [s]."""
        grids = [self.config.mesh] * self.config.groups
        return self.rows.bound_s(grids, self.config.micro_batches)

    def slicer(self, placing: Placing) -> Slicer:
        """What makes stages' plans of the placements.

        Raises:
            InputError: the sizes of the program do not divide by the degrees.
            InfeasibleError: the pins are not kept.
        """
        if placing.degrees is None:
            return self.strategist.slicer(self.solution(placing), self.limit_bytes, self.level)
        return Slicer.by_degrees(self.rows, placing.degrees, self.limit_bytes)


def degrees_of(config: Config, schemes: Schemes) -> list[Degrees]:
    """What an engineer would try on the grid of a group, apart from recomputation."""
    data, inner = config.data, config.inner
    zeros = (1, 3) if data > 1 else (0,)
    sequences = (False, True) if inner > 1 and schemes.has_sequence else (False,)
    found = [Degrees(dp=data, tp=inner, zero=z, sp=sp) for z in zeros for sp in sequences]
    if inner > 1 and schemes.num_experts % inner == 0 and schemes.num_experts > 0:
        found += [Degrees(dp=data * inner, ep=inner, zero=z) for z in (1, 3)]
    if inner > 1 and schemes.has_sequence:
        found += [Degrees(dp=data, cp=inner, zero=z) for z in (1, 3)]
    return found
