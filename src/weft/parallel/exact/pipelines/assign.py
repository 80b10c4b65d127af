"""Which stage each block of a program is in, on the graph: an integer programme.

Blocks are runs of operators that stay together; what one makes flows to others. A stage is any set
of blocks from which nothing flows to an earlier one. A step takes about

    (micro-batches - 1) * round + sum of all stages and of what crosses between them

where a round, from one micro-batch to the next, is as long as

- the longest stage, or the longest that what one micro-batch sends over a boundary takes;
- what a micro-batch takes from a stage on to the last and back, transfers included, over the
  micro-batches that are under way there: a stage waits for the oldest of them.

With free transfers that is what `partition` minimises over runs of one order. As there, a block
follows one of several options of recomputation, and each stage has to fit.

    min  (m - 1) T + sum seconds[b,o] z[b,s,o] + sum crossing[f,k] c[f,k]
    s.t. sum_o z[b,s,o] = y[b,s] - y[b,s-1]         y[b,s]: block b is in stage s or before
         y[v,s] <= y[u,s]                           for u -> v
         y[u,k] - y[v,k] <= c[f,k]                  flow f crosses boundary k, u is before, v after
         sum seconds z[.,s,.] <= T, and so on       rounds, memory, a block in every stage

`c` is continuous, so that a value that many blocks read is paid for once at each boundary that it
is relayed over.

Source: stages by an integer programme on the graph as in TePDist, the open form of Rhino (arXiv
2302.08141); there bytes are least and stages even to 8 %. Times, rounds, memory and recomputation
are weft's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite

import highspy
import numpy as np

from weft.parallel.pipeline.estimate import StageCost

__all__ = ["Assignment", "Flow", "StageProblem", "assign"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What one block sends to others in each micro-batch.

    Attributes:
        pairs: blocks between which it flows, the one that has to be in the earlier stage first: who
            makes it and who reads it, in the backward pass the other way round.
        seconds: how long it takes over each boundary between stages that it crosses [s].
        backward: whether it is a gradient, which follows where its blocks are and asks for
            nothing.
    """

    pairs: tuple[tuple[int, int], ...]
    seconds: tuple[float, ...]
    backward: bool = False

    def crosses(self, boundary: int, stages: Sequence[int]) -> bool:
        """Whether it crosses from a stage to the next one, or back."""
        return any(stages[u] <= boundary < stages[v] for u, v in self.pairs)


@dataclass(frozen=True, kw_only=True)
class StageProblem:
    """Blocks to be dealt out to stages.

    Attributes:
        by_option: cost of each block, by option of recomputation.
        flows: what flows between blocks.
        in_flight: of each stage, micro-batches whose activations are kept at once.
        limit_bytes: of each stage [bytes].
        micro_batches: parts of the batch.
    """

    by_option: Sequence[Sequence[StageCost]]
    flows: Sequence[Flow]
    in_flight: Sequence[float]
    limit_bytes: Sequence[float]
    micro_batches: int

    @property
    def num_blocks(self) -> int:
        """Blocks."""
        return len(self.by_option[0])

    @property
    def num_stages(self) -> int:
        """Stages."""
        return len(self.in_flight)

    @property
    def edges(self) -> list[tuple[int, int]]:
        """Blocks of which the first has to be in the stage of the second or before it."""
        return sorted({pair for flow in self.flows if not flow.backward for pair in flow.pairs})

    def step_s(self, stages: Sequence[int], options: Sequence[int]) -> float:
        """Time of all micro-batches; infinite where the stages are not allowed [s].

        That is where a value flows back, a stage is empty, or one does not fit.

        Args:
            stages: of each block.
            options: of recomputation, of each block.
        """
        members = [[b for b, own in enumerate(stages) if own == s] for s in range(self.num_stages)]
        if any(stages[u] > stages[v] for u, v in self.edges) or not all(members):
            return inf
        if not all(self._fits(stage, of, options) for stage, of in enumerate(members)):
            return inf
        busy = [sum(self.by_option[options[b]][b].time.busy_s for b in of) for of in members]
        lines = [
            [
                sum(f.seconds[k] for f in self.flows if f.backward == way and f.crosses(k, stages))
                for k in range(self.num_stages - 1)
            ]
            for way in (False, True)
        ]
        rounds = [
            (sum(busy[s:]) + sum(sum(line[s:]) for line in lines)) / under_way
            for s, under_way in self.waiting_stages()
        ]
        longest = max((*busy, *lines[0], *lines[1], *rounds))
        return (self.micro_batches - 1) * longest + sum(busy) + sum(map(sum, lines))

    def waiting_stages(self) -> list[tuple[int, float]]:
        """Stages that wait for a micro-batch to come back, with how many are under way."""
        each = enumerate(self.in_flight)
        return [(stage, under_way) for stage, under_way in each if under_way < self.micro_batches]

    def _fits(self, stage: int, members: Sequence[int], options: Sequence[int]) -> bool:
        costs = [self.by_option[options[b]][b] for b in members]
        fixed = sum(c.lasting_bytes + c.sums_bytes for c in costs)
        running = self.in_flight[stage] * sum(c.time.kept_bytes for c in costs)
        running += max(c.transient_bytes for c in costs)
        finishing = max(c.finish_bytes - c.sums_bytes for c in costs)
        return fixed + max(running, finishing) <= self.limit_bytes[stage] * (1 + TOLERANCE)


TOLERANCE = 1e-6
"""Share of its limit by which a stage may be larger. Derived: ten times HiGHS' tolerance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A stage and an option of recomputation for each block.

    Attributes:
        stages, options: of each block.
        step_s: time of all micro-batches [s].
        bound_s: no assignment takes less [s].
    """

    stages: tuple[int, ...]
    options: tuple[int, ...]
    step_s: float
    bound_s: float


def assign(
    problem: StageProblem,
    start: tuple[Sequence[int], Sequence[int]] | None = None,
    time_limit_s: float = inf,
    gap: float = 0.0,
) -> Assignment | None:
    """The best assignment, or the best one found in time, no worse than the one to start from.

    Args:
        problem: blocks, flows, memory.
        start: stages and options of the blocks.
        time_limit_s: how long HiGHS may work [s].
        gap: relative distance from the bound at which it may stop.

    Returns:
        The assignment; none if nothing fits, or nothing was found in time.
    """
    programme = _Programme(problem)
    found = [start] if start is not None and problem.step_s(*start) < inf else []
    solved, bound_s = programme.solve(found[0] if found else None, time_limit_s, gap)
    found += [solved] if solved is not None else []
    best = min(found, key=lambda of: problem.step_s(*of), default=None)
    if best is None or (step_s := problem.step_s(*best)) == inf:
        return None
    stages, options = map(tuple, best)
    return Assignment(stages=stages, options=options, step_s=step_s, bound_s=min(bound_s, step_s))


SCALE = 1e3
"""The programme counts in thousandths of the least stage there can be: HiGHS' tolerances are
absolute."""


class _Programme:
    """The integer programme of one problem; lives only inside `assign`."""

    def __init__(self, problem: StageProblem) -> None:
        self._problem = problem
        self._stages, self._blocks = problem.num_stages, problem.num_blocks
        self._options = len(problem.by_option)
        self._boundaries = self._stages - 1
        least = sum(
            min(costs[b].time.busy_s for costs in problem.by_option) for b in range(self._blocks)
        )
        self._scale = SCALE * self._stages / least if least > 0 else 1.0
        self._rows: list[tuple[Mapping[int, float], float, float]] = []
        self._place = self._blocks * self._boundaries
        self._crossing = self._place + self._blocks * self._stages * self._options
        self._round = self._crossing + len(problem.flows) * self._boundaries
        self._transient = self._round + 1
        self._finish = self._transient + self._stages
        self._columns = self._finish + self._stages
        self._say_where()
        self._say_rounds()
        self._say_memory()

    # Columns.

    def _before(self, block: int, stage: int) -> int:
        """Whether a block is in a stage or before it; for all stages but the last."""
        return block * self._boundaries + stage

    def _in(self, block: int, stage: int, option: int) -> int:
        return self._place + (block * self._stages + stage) * self._options + option

    def _crosses(self, flow: int, boundary: int) -> int:
        return self._crossing + flow * self._boundaries + boundary

    # Rows.

    def _row(self, entries: Iterable[tuple[int, float]], low: float, high: float) -> None:
        row: dict[int, float] = {}
        for column, value in entries:
            row[column] = row.get(column, 0.0) + value
        self._rows.append((row, low, high))

    def _say_where(self) -> None:
        """One stage and option for each block, stages in order, none empty."""
        for b in range(self._blocks):
            for s in range(self._stages):
                row = [(self._in(b, s, o), 1.0) for o in range(self._options)]
                if s < self._boundaries:
                    row.append((self._before(b, s), -1.0))
                if s > 0:
                    row.append((self._before(b, s - 1), 1.0))
                last = float(s == self._boundaries)
                self._row(row, last, last)
        edges = self._problem.edges
        for k in range(self._boundaries):
            for u, v in edges:
                self._row([(self._before(u, k), 1.0), (self._before(v, k), -1.0)], 0.0, inf)
            for number, flow in enumerate(self._problem.flows):
                for u, v in flow.pairs:
                    row = [(self._before(u, k), 1.0), (self._before(v, k), -1.0)]
                    self._row([*row, (self._crosses(number, k), -1.0)], -inf, 0.0)
        for s in range(self._stages):
            each = [(self._in(b, s, o), 1.0) for b in range(self._blocks) for o in self._ways]
            self._row(each, 1.0, inf)

    @property
    def _ways(self) -> range:
        return range(self._options)

    def _busy(self, stage: int, share: float = 1.0) -> list[tuple[int, float]]:
        return [
            (self._in(b, stage, o), share * self._scale * costs[b].time.busy_s)
            for o, costs in enumerate(self._problem.by_option)
            for b in range(self._blocks)
        ]

    def _sent(
        self, boundary: int, ways: Iterable[bool], share: float = 1.0
    ) -> list[tuple[int, float]]:
        return [
            (self._crosses(number, boundary), share * self._scale * flow.seconds[boundary])
            for number, flow in enumerate(self._problem.flows)
            if flow.backward in ways
        ]

    def _say_rounds(self) -> None:
        """No stage, no boundary and no way to the last stage and back takes longer than a round."""
        shorter = (self._round, -1.0)
        for s in range(self._stages):
            self._row([*self._busy(s), shorter], -inf, 0.0)
        for k in range(self._boundaries):
            for way in (False, True):
                self._row([*self._sent(k, (way,)), shorter], -inf, 0.0)
        for s, under_way in self._problem.waiting_stages():
            row = [entry for t in range(s, self._stages) for entry in self._busy(t)]
            row += [e for k in range(s, self._boundaries) for e in self._sent(k, (False, True))]
            self._row([*row, (self._round, -under_way)], -inf, 0.0)

    def _say_memory(self) -> None:
        """Stages fit while micro-batches are under way and while the step is finished."""
        for s, limit in enumerate(self._problem.limit_bytes):
            if not isfinite(limit):
                continue
            running: list[tuple[int, float]] = [(self._transient + s, 1.0)]
            finishing: list[tuple[int, float]] = [(self._finish + s, 1.0)]
            for o, costs in enumerate(self._problem.by_option):
                for b, cost in enumerate(costs):
                    own = self._in(b, s, o)
                    fixed = (cost.lasting_bytes + cost.sums_bytes) / limit
                    kept = self._problem.in_flight[s] * cost.time.kept_bytes / limit
                    running.append((own, fixed + kept))
                    finishing.append((own, fixed))
                    most = (
                        (self._transient, cost.transient_bytes),
                        (self._finish, cost.finish_bytes - cost.sums_bytes),
                    )
                    for column, num_bytes in most:
                        if num_bytes > 0:
                            self._row([(own, num_bytes / limit), (column + s, -1.0)], -inf, 0.0)
            self._row(running, -inf, 1.0)
            self._row(finishing, -inf, 1.0)

    # Solving.

    def solve(
        self, start: tuple[Sequence[int], Sequence[int]] | None, time_limit_s: float, gap: float
    ) -> tuple[tuple[list[int], list[int]] | None, float]:
        """Stages and options, none if there are none, and the bound [s]."""
        highs = highspy.Highs()
        highs.setOptionValue("output_flag", False)
        highs.setOptionValue("threads", 1)
        highs.setOptionValue("mip_rel_gap", gap)
        highs.setOptionValue("time_limit", time_limit_s)
        highs.passModel(self._model())
        if start is not None:
            columns, values = self._given(*start)
            highs.setSolution(len(columns), columns, values)
        highs.run()
        info = highs.getInfo()
        if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            return None, inf
        chosen = np.array(highs.getSolution().col_value)[self._place : self._crossing]
        chosen = chosen.reshape(self._blocks, self._stages * self._options).argmax(axis=1)
        stages, options = np.divmod(chosen, self._options)
        return (stages.tolist(), options.tolist()), info.mip_dual_bound / self._scale

    def _given(
        self, stages: Sequence[int], options: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        before = [
            (self._before(b, k), float(stages[b] <= k))
            for b in range(self._blocks)
            for k in range(self._boundaries)
        ]
        inside = [
            (self._in(b, s, o), float((stages[b], options[b]) == (s, o)))
            for b in range(self._blocks)
            for s in range(self._stages)
            for o in self._ways
        ]
        columns, values = zip(*before, *inside, strict=True)
        return np.array(columns, dtype=np.int32), np.array(values)

    def _model(self) -> highspy.HighsLp:
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = self._columns, len(self._rows)
        cost = np.zeros(self._columns)
        cost[self._round] = self._problem.micro_batches - 1
        entries = [entry for s in range(self._stages) for entry in self._busy(s)]
        entries += [e for k in range(self._boundaries) for e in self._sent(k, (False, True))]
        for column, value in entries:
            cost[column] += value
        upper = np.ones(self._columns)
        upper[self._round :] = highspy.kHighsInf
        model.col_cost_, model.col_lower_, model.col_upper_ = cost, np.zeros(self._columns), upper
        model.row_lower_ = np.array([low for _, low, _ in self._rows])
        model.row_upper_ = np.array([high for _, _, high in self._rows])
        starts = [0]
        for row, _, _ in self._rows:
            starts.append(starts[-1] + len(row))
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = np.array(starts, dtype=np.int32)
        model.a_matrix_.index_ = np.array([c for row, _, _ in self._rows for c in row], np.int32)
        model.a_matrix_.value_ = np.array([v for row, _, _ in self._rows for v in row.values()])
        whole = highspy.HighsVarType.kInteger
        free = highspy.HighsVarType.kContinuous
        integers = self._crossing if self._options > 1 else self._place
        model.integrality_ = [whole] * integers + [free] * (self._columns - integers)
        return model
