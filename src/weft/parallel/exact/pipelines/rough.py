"""Rough costs of pieces: from programmes on one mesh axis, one for each number of rows and devices.

They order configurations of groups, data parallelism and micro-batches before any is worked out.
"""

from __future__ import annotations

from collections.abc import Sequence

from weft.parallel.depth import Shortened
from weft.parallel.exact.pipelines.configs import Config
from weft.parallel.exact.pipelines.evaluate import fully_sharded, state_sharded
from weft.parallel.exact.pipelines.measure import Strategist
from weft.parallel.loop import Loop
from weft.parallel.pinning import Pinning
from weft.parallel.pipeline.estimate import StageCost
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.piece_costs import piece_costs
from weft.parallel.placement import Mesh
from weft.parallel.request import PlanRequest

__all__ = ["Rough"]

TYPICAL_ROUNDS = 8
"""Micro-batches for which rough costs are worked out. Derived: the number only decides what is
gathered once a step."""


class Rough:
    """Rough costs of the pieces of a program; each is worked out once.

    Args:
        request: what to plan.
        view: the program, short if the whole one is deep.
        batch: rows of the batch.
        hidden: share of hideable communication that is taken to cost nothing, on a machine that
            overlaps fully.
    """

    def __init__(self, request: PlanRequest, view: Shortened, batch: int, hidden: float) -> None:
        self._request = request
        self._machine = request.machine
        self._view = view
        self._batch = batch
        self._hidden = hidden
        self._rows: dict[int, Rows] = {}
        self._tables: dict[tuple[int, int], list[list[StageCost]] | None] = {}

    @property
    def smallest_count(self) -> int:
        """The fewest micro-batches that the batch divides into."""
        return next((n for n in range(2, self._batch + 1) if self._batch % n == 0), 2)

    def rows_of(self, count: int) -> Rows:
        """The program with so many micro-batches."""
        if count not in self._rows:
            self._rows[count] = Rows.of(self._request, self._view, count)
        return self._rows[count]

    def table(self, inner: int, rows: int) -> list[list[StageCost]] | None:
        """Costs of all pieces of the whole program, by option of recomputation.

        Args:
            inner: devices that share a row.
            rows: of a micro-batch on one part of a group.

        Returns:
            The costs; none if the batch has no two such micro-batches.
        """
        key = (inner, rows)
        if key not in self._tables:
            self._tables[key] = self._measured(inner, rows)
        return self._tables[key]

    def _measured(self, inner: int, rows: int) -> list[list[StageCost]] | None:
        count = self._batch // rows
        if count < 2:
            return None
        of = self.rows_of(count)
        loop = Loop(times=TYPICAL_ROUNDS, held=1)
        strategist = Strategist(of, Mesh((inner,)), loop, batch_outside=False, pinning=Pinning())
        solution = strategist.model.solve(0.0, self._hidden * self._machine.overlap.value)
        slicer = strategist.slicer(solution, self._request.limit_bytes, self._request.level)
        nothing, full = (
            piece_costs(of, slicer.plan, option, self._machine) for option in ("", "full")
        )
        return [nothing, full, full]

    def spread(
        self, table: Sequence[Sequence[StageCost]], config: Config
    ) -> list[Sequence[Sequence[StageCost]]]:
        """The costs with state, or weights as well, shared out over a group's parts."""
        if config.data == 1:
            return [table]
        found: list[Sequence[Sequence[StageCost]]] = []
        for shared in (state_sharded, fully_sharded):
            known: dict[int, StageCost] = {}
            for costs in table:
                for cost in costs:
                    if id(cost) not in known:
                        known[id(cost)] = shared(cost, self._machine, config)
            found.append([[known[id(cost)] for cost in costs] for costs in table])
        return found

    def of_grid(self, config: Config) -> list[Sequence[Sequence[StageCost]]]:
        """Costs on a grid; none where pieces are not those of the micro-batch."""
        if config.rows == 0 or self._batch // config.rows < 2:
            return []
        other = self.rows_of(self._batch // config.rows)
        if other.pieces != self.rows_of(config.micro_batches).pieces:
            return []
        table = self.table(config.inner, config.rows)
        return [] if table is None else self.spread(table, config)
