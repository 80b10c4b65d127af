"""The planning problem as a linear programme in flow form.

Every unit spreads one unit of weight over its states. Along every edge one unit flows from
the sharding in which the tail makes the tensor to the one in which the head reads it; the
arcs of the flow are single collectives on single mesh axes. An edge so needs as many columns
as there are collectives between its shardings, where a table of state pairs would need the
product of the two sides.

    min  sum_u seconds[u,s] y[u,s] + sum_e count[e] hop_s[a] f[e,a]  (+ price * bytes[u,s] y[u,s])
    s.t. sum_s y[u,s] = 1                                              for each unit u
         made into p + flow into p = read from p + flow out of p       for each edge e, sharding p

The programme's optimum is a lower bound for every plan of the mesh. It has been integral in
all cases but those in which solutions tie; where it is not, branch and bound decides y
(`branch`). Solved by HiGHS (Huangfu and Hall, Math. Prog. Comp. 2018).
"""

from __future__ import annotations

from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import highspy
import numpy as np
import numpy.typing as npt

from weft.core.errors import InfeasibleError
from weft.parallel.exact.branch import Branching, undecided_units
from weft.parallel.kept import Mask, allowed_states
from weft.parallel.problem import Edge, Problem
from weft.parallel.reshard import Floats, Ints

Narrow: TypeAlias = npt.NDArray[np.int32]

__all__ = ["FlowModel", "Solution", "consistent_states", "settle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """States chosen for all units, what they cost, and the bound.

    Attributes:
        states: chosen state of each unit.
        objective_s: cost of the chosen states, without the memory price and without what was
            taken to be hidden [s].
        bound_s: lower bound of cost plus price times memory over all choices [s].
        num_bytes: memory of the chosen states [bytes].
        fractional: units that the linear programme left undecided.
        hidden: share of hideable communication that was taken to cost nothing [0 to 1].
    """

    states: tuple[int, ...]
    objective_s: float
    bound_s: float
    num_bytes: float
    fractional: int
    hidden: float


def consistent_states(problem: Problem) -> list[Ints]:
    """States of each unit that its pins allow and that have a partner on every edge.

    Raises:
        InfeasibleError: a unit is left without a state.
    """
    alive = allowed_states(problem, problem.skeleton.pinning)
    empty = settle(problem, alive)
    if empty is not None:
        raise InfeasibleError(
            need="a strategy that its neighbours can be converted to",
            got=f"none left for {problem.label(empty)} on mesh {problem.mesh}",
            hint="choose sizes with more common factors, or another mesh",
            constraint="divisibility",
        )
    return [np.flatnonzero(states) for states in alive]


def settle(problem: Problem, alive: list[Mask]) -> int | None:
    """Drop states without a partner on some edge, to a fix-point.

    Args:
        problem: units and edges.
        alive: states of each unit, changed in place.

    Returns:
        A unit that is left without a state, if there is one.
    """
    around: list[list[Edge]] = [[] for _ in problem.units]
    for edge in problem.edges:
        around[edge.tail].append(edge)
        around[edge.head].append(edge)
    queue = list(range(len(problem.units)))
    for unit in queue:
        if not alive[unit].any():
            return unit
    while queue:
        unit = queue.pop()
        for edge in around[unit]:
            other = edge.head if unit == edge.tail else edge.tail
            if other == unit:
                continue
            reachable = edge.table.reachable
            if other == edge.head:
                made = _marked(edge.made[alive[unit]], len(reachable))
                from_here = np.any(reachable[made], axis=0)
                keep = alive[other] & from_here[edge.read]
            else:
                read = _marked(edge.read[alive[unit]], len(reachable))
                to_here = np.any(reachable[:, read], axis=1)
                keep = alive[other] & to_here[edge.made]
            if keep.sum() < alive[other].sum():
                alive[other] = keep
                if not keep.any():
                    return other
                queue.append(other)
    return None


def _marked(numbers: Ints, size: int) -> npt.NDArray[np.bool_]:
    """Which numbers below `size` occur."""
    marked = np.zeros(size, dtype=bool)
    marked[numbers] = True
    return marked


class FlowModel:
    """The linear programme of one problem, kept in HiGHS for warm starts at other prices."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._alive = consistent_states(problem)
        self._offset = np.concatenate([[0], np.cumsum([len(a) for a in self._alive])]).astype(int)
        self._weights = int(self._offset[-1])
        self._seconds = self._per_state([unit.seconds for unit in problem.units])
        self._bytes = self._per_state([unit.num_bytes for unit in problem.units])
        self._highs = self._build()
        self._stopped = False

    @property
    def num_columns(self) -> int:
        """Columns of the programme."""
        return int(self._highs.getNumCol())

    @property
    def num_rows(self) -> int:
        """Rows of the programme."""
        return int(self._highs.getNumRow())

    def solve(
        self,
        price_s_per_byte: float = 0.0,
        hidden: float = 0.0,
    ) -> Solution:
        """Optimum at a memory price; later calls start from the last basis.

        Args:
            price_s_per_byte: what one byte of memory costs [s/byte].
            hidden: share of hideable communication that is taken to cost nothing [0 to 1].

        Returns:
            The solution; its objective and bound leave out what is taken to be hidden.
        """
        self._set_costs(price_s_per_byte, hidden)
        self._perturb(PRICED_PERTURBATION if price_s_per_byte else 1.0)
        self._run()
        if not self._is_optimal:
            # Unperturbed, what HiGHS gave up on takes it a moment; where not, its usual way does.
            self._highs.clearSolver()
            self._perturb(0.0)
            self._run_for(SLICE_OF_TIME_S)
        if not self._is_optimal:
            self._highs.clearSolver()
            self._perturb(1.0)
            self._run()
        self._require_optimal()
        bound = self._highs.getInfo().objective_function_value / SCALE
        weights = np.array(self._highs.getSolution().col_value)[: self._weights]
        fractional = len(undecided_units(weights, self._spans))
        if fractional:
            branching = Branching(self._highs, self._run, self._spans, self._costs, weights)
            weights, bound = branching.weights, branching.bound / SCALE
        states = tuple(
            int(alive[int(np.argmax(weights[a:b]))])
            for alive, (a, b) in zip(self._alive, self._spans, strict=True)
        )
        return Solution(
            states=states,
            objective_s=self.problem.objective(states, hidden),
            bound_s=bound,
            num_bytes=self.problem.num_bytes(states),
            fractional=fractional,
            hidden=hidden,
        )

    def stop(self) -> None:
        """Have a solve in another thread end soon, and later ones at once."""
        self._stopped = True

    @property
    def _is_optimal(self) -> bool:
        return self._highs.getModelStatus() == highspy.HighsModelStatus.kOptimal

    def _run(self) -> None:
        """Let HiGHS work, a slice of time after the other, each from where the last one ended.

        Its own callback would ask for the interpreter's lock thousands of times a second, and
        wait for it behind whoever computes. Each slice is twice as long as the last: HiGHS loses
        its perturbation between them, and one that needs longer than a slice might never end.

        Raises:
            CancelledError: somebody called `stop`.
        """
        seconds = SLICE_OF_TIME_S
        self._run_for(seconds)
        while self._highs.getModelStatus() == highspy.HighsModelStatus.kTimeLimit:
            seconds *= 2.0
            self._run_for(seconds)

    def _run_for(self, seconds: float) -> None:
        if self._stopped:
            raise CancelledError
        self._highs.setOptionValue("time_limit", self._highs.getRunTime() + seconds)
        self._highs.run()

    def _set_costs(self, price_s_per_byte: float, hidden: float) -> None:
        weights = (self._seconds + price_s_per_byte * self._bytes) * SCALE
        hops = self._hop_seconds * (1.0 - hidden * self._hideable) * SCALE
        self._costs = np.concatenate([weights, hops])
        columns = np.arange(len(self._costs), dtype=np.int32)
        self._highs.changeColsCost(len(columns), columns, self._costs)

    def _perturb(self, multiplier: float) -> None:
        self._highs.setOptionValue("dual_simplex_cost_perturbation_multiplier", multiplier)

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        return [(int(a), int(b)) for a, b in zip(self._offset, self._offset[1:], strict=False)]

    def _per_state(self, per_unit: list[Floats]) -> Floats:
        return np.concatenate([v[a] for v, a in zip(per_unit, self._alive, strict=True)])

    def _require_optimal(self) -> None:
        if not self._is_optimal:
            status = self._highs.modelStatusToString(self._highs.getModelStatus())
            raise InfeasibleError(
                need="an optimum of the planning programme",
                got=f"HiGHS says {status}",
                hint="this should not happen after the consistency check; report the program",
            )

    def _build(self) -> highspy.Highs:
        rows = _Rows(self.problem, self._alive, self._offset)
        self._hop_seconds = np.concatenate([np.zeros(0), *rows.hop_seconds])
        self._hideable = np.concatenate([np.zeros(0), *rows.hideable])
        highs = highspy.Highs()
        highs.setOptionValue("output_flag", False)
        highs.setOptionValue("threads", 1)
        # Presolve costs more here than it saves, and would throw the basis away between prices.
        highs.setOptionValue("presolve", "off")
        model = highspy.HighsLp()
        cost = np.concatenate([self._seconds, self._hop_seconds]) * SCALE
        model.num_col_ = len(cost)
        model.num_row_ = rows.count
        model.col_cost_ = cost
        model.col_lower_ = np.zeros(len(cost))
        model.col_upper_ = np.full(len(cost), highspy.kHighsInf)
        model.row_lower_ = model.row_upper_ = rows.right_hand_side()
        start, index, value = rows.by_row()
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_, model.a_matrix_.index_, model.a_matrix_.value_ = start, index, value
        highs.passModel(model)
        return highs


SLICE_OF_TIME_S = 2.0
"""How long HiGHS works before it first looks whether it is still wanted [s]. Derived: most solves
take less; slices of 0.5 s cost 5 % on the 8-layer programme, of 0.1 s 90 %."""

PRICED_PERTURBATION = 0.01
"""Share of HiGHS' usual perturbation of costs where memory has a price. Derived: the usual one is
in proportion to the largest cost, which is then that of memory, and hides what time costs; undoing
it took up to 70 s where a hundredth takes 1 s. Without any, HiGHS stalled on two programmes."""

SCALE = 1e6
"""The programme counts microseconds: HiGHS' tolerances are absolute."""


class _Rows:
    """Collects the rows of the programme; lives only while it is built."""

    def __init__(self, problem: Problem, alive: list[Ints], offset: Ints) -> None:
        self.count = len(problem.units)
        self.hop_seconds: list[Floats] = []
        self.hideable: list[Floats] = []
        self._columns = int(offset[-1])
        self._row: list[Ints] = []
        self._column: list[Ints] = []
        self._value: list[Floats] = []
        for unit, states in enumerate(alive):
            self._put(np.full(len(states), unit), offset[unit] + np.arange(len(states)), 1.0)
        for edge in problem.edges:
            self._add(edge, alive, offset)
        self._units = len(problem.units)

    def _put(self, row: Ints, column: Ints, value: float) -> None:
        self._row.append(row)
        self._column.append(column)
        self._value.append(np.full(len(row), value))

    def _add(self, edge: Edge, alive: list[Ints], offset: Ints) -> None:
        """Conservation at each sharding that lies on some way from the tail to the head."""
        made, read = edge.made[alive[edge.tail]], edge.read[alive[edge.head]]
        table = edge.table
        hops = table.useful_hops(made, read)
        ends = np.concatenate([made, read, table.source[hops], table.target[hops]])
        used = np.flatnonzero(_marked(ends, len(table.states)))
        row = np.full(len(table.states), -1)
        row[used] = self.count + np.arange(len(used))
        self.count += len(used)
        column = self._columns + np.arange(len(hops))
        self._columns += len(hops)
        self.hop_seconds.append(table.seconds[hops] * edge.count)
        self.hideable.append(np.full(len(hops), float(edge.hideable)))
        self._put(row[made], offset[edge.tail] + np.arange(len(made)), 1.0)
        self._put(row[read], offset[edge.head] + np.arange(len(read)), -1.0)
        self._put(row[table.source[hops]], column, -1.0)
        self._put(row[table.target[hops]], column, 1.0)

    def right_hand_side(self) -> Floats:
        side = np.zeros(self.count)
        side[: self._units] = 1.0
        return side

    def by_row(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], Floats]:
        """Matrix in compressed rows, entries of one cell added up."""
        row, column = np.concatenate(self._row), np.concatenate(self._column)
        value = np.concatenate(self._value)
        key = row * np.int64(self._columns) + column
        cells, where = np.unique(key, return_inverse=True)
        summed: Floats = np.bincount(where, weights=value, minlength=len(cells)).astype(np.float64)
        filled = summed != 0.0
        cells, summed = cells[filled], summed[filled]
        counts = np.bincount((cells // self._columns).astype(int), minlength=self.count)
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        return start, (cells % self._columns).astype(np.int32), np.asarray(summed, dtype=np.float64)
