"""A whole plan of one stage in one episode: the mesh, what each variable does, what is stored.

    mesh        how many devices share out the batch, and how many the variables
    variables   a group at a time, along the second axis (`weft.parallel.dqn.deciding`)
    storage     whether the first axis stores parameters and optimizer state in parts

What comes of it is a legal plan with a simulated time, as an expert's is: decisions pin inputs, and
everything else follows by the least movement. The reward is high where the step is short, and low,
by how much is missing, where the plan does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from weft.core.errors import InfeasibleError, InputError
from weft.parallel.candidate import Candidate
from weft.parallel.degrees import Degrees
from weft.parallel.depth import Shortened, Views
from weft.parallel.dqn.deciding import CUTS, PartitionEnvironment
from weft.parallel.dqn.environment import Numbers, Observation, Turn
from weft.parallel.experts import Desks
from weft.parallel.linkage import ReducedAxis
from weft.parallel.partition import Partition, whole_batch
from weft.parallel.placement import REPLICATED, Placement
from weft.parallel.plan import Prediction
from weft.parallel.propagate import AxisRules
from weft.parallel.request import PlanRequest
from weft.parallel.rows import batch_rows
from weft.program.fold import Folding
from weft.program.graph import Value

__all__ = ["STORED", "Decided", "HybridEnvironment", "demonstration"]

STORED = (0, 1, 3)
"""Stages of ZeRO that are chosen from. The second differs from the first in gradients only."""
MISFIT = 0.1
"""Most that a plan which does not fit is worth. Chosen: below any that fits."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What an episode decided.

    Attributes:
        data, variables: devices of the two axes.
        stored: stage of ZeRO along the first.
        placements: of inputs along the second, by node of the whole program; those that are cut.
    """

    data: int
    variables: int
    stored: int
    placements: tuple[tuple[int, Placement], ...]

    @property
    def name(self) -> str:
        """What people call the plan."""
        axes = [f"dp {self.data}"] * (self.data > 1) + [f"variables {self.variables}"] * (
            self.variables > 1
        )
        zero = f", ZeRO-{self.stored}" if self.stored and self.data > 1 else ""
        return f"dqn {' x '.join(axes) or '1'}{zero}, {len(self.placements)} inputs cut"


class HybridEnvironment:
    """Episodes of whole plans.

    Args:
        request: what to plan.
        folding: of its program.
        views: short versions to predict the whole from, if it is deep.
    """

    shared_width = 3 + PartitionEnvironment.shared_width
    choice_width = 6 + PartitionEnvironment.choice_width

    def __init__(self, request: PlanRequest, folding: Folding, views: Views | None) -> None:
        self._request, self._folding, self._views = request, folding, views
        self._desks = Desks(request.program, request.pinning, views)
        self.meshes = _meshes(request, batch_rows(request.program))
        self._partitions: dict[int, Partition | None] = {}
        self.known: dict[Decided, Prediction | None] = {}
        self._unit_s = 0.0
        self._mesh = (1, 1)
        self._inner: PartitionEnvironment | None = None
        self._placements: tuple[tuple[int, Placement], ...] = ()
        self._kind = 0

    def reset(self, generator: np.random.Generator) -> Observation:
        """Begin with the mesh."""
        del generator
        self._kind, self._inner, self._placements = 0, None, ()
        node = min(group.devices_per_node for group in self._request.machine.groups)
        rows = [
            [math.log2(data) / 10, math.log2(inner) / 10, inner == 1, data == 1, inner <= node, 0.0]
            for data, inner in self.meshes
        ]
        return self._padded(np.asarray(rows, dtype=np.float32), offset=0)

    def step(self, choice: int) -> Turn:
        """Decide."""
        if self._kind == 0:
            self._mesh = self.meshes[choice]
            self._inner = self._decisions()
            if self._inner is not None:
                self._kind = 1
                return Turn(0.0, self._of_variables(self._inner.reset(np.random.default_rng(0))))
            return self._storage()
        if self._kind == 1:
            assert self._inner is not None
            turn = self._inner.step(choice)
            if turn.observation is not None:
                return Turn(0.0, self._of_variables(turn.observation))
            self._placements = self._cut_inputs(self._inner)
            return self._storage()
        data, variables = self._mesh
        return Turn(self._worth(Decided(data, variables, STORED[choice], self._placements)), None)

    def _storage(self) -> Turn:
        self._kind = 2
        if self._mesh[0] == 1:  # nobody to store in parts with
            return Turn(self._worth(Decided(*self._mesh, 0, self._placements)), None)
        rows = np.eye(len(STORED), 6, dtype=np.float32)
        return Turn(0.0, self._padded(rows, offset=0))

    def _decisions(self) -> PartitionEnvironment | None:
        """Decisions along the second axis; none if it has one device or all is settled."""
        size = self._mesh[1]
        if size not in self._partitions:
            self._partitions[size] = self._partition(size) if size > 1 else None
        partition = self._partitions[size]
        return PartitionEnvironment(partition) if partition is not None else None

    def _partition(self, size: int) -> Partition | None:
        program = self._request.program
        axis = ReducedAxis(program, size)
        partition = Partition(axis, self._folding, whole_batch(program))
        return partition if partition.order else None

    def _cut_inputs(self, inner: PartitionEnvironment) -> tuple[tuple[int, Placement], ...]:
        """Where inputs that are cut lie, in all layers, optimizer state included."""
        settled = inner.partition.settled(inner.taken)
        inputs = (i.node for i in self._request.program.inputs)
        placed = ((node, settled.forced.get(Value(node), REPLICATED)) for node in inputs)
        return tuple((node, place) for node, place in placed if place >= 0)

    def _worth(self, decided: Decided) -> float:
        """The reward of a plan."""
        prediction = self.predicted(decided)
        if prediction is None:
            return 0.0
        limit = self._request.limit_bytes
        if prediction.peak_bytes > limit:
            return MISFIT * limit / prediction.peak_bytes
        self._unit_s = self._unit_s or prediction.step_s
        return MISFIT + (1 - MISFIT) / (1 + prediction.step_s / self._unit_s)

    def predicted(self, decided: Decided) -> Prediction | None:
        """What a plan would take; None if it cannot be."""
        if decided not in self.known:
            self.known[decided] = self._simulated(decided)
        return self.known[decided]

    def _simulated(self, decided: Decided) -> Prediction | None:
        try:
            if self._views is None:
                return self.candidate(decided).plan.prediction
            return self._views.predict(lambda view: self.candidate(decided, view).plan.prediction)
        except (InputError, InfeasibleError):
            return None

    def candidate(self, decided: Decided, view: Shortened | None = None) -> Candidate:
        """The plan, simulated.

        Args:
            decided: what it is.
            view: a short version of the program to make it for.

        Raises:
            InputError: sizes do not divide.
            InfeasibleError: it would not keep a pin.
        """
        desk = self._desks.whole if view is None else self._desks.of(view)
        axes: list[AxisRules] = []
        lasting = frozenset[Value]()
        if decided.data > 1 or decided.variables == 1:
            axes, lasting = desk.schemes.axes(Degrees(dp=decided.data, zero=decided.stored))
        if decided.variables > 1:
            placed = dict(decided.placements)
            if view is not None:
                placed = {n: placed[o] for n, o in enumerate(view.origin) if o in placed}
            axes = [*axes, desk.schemes.placed_axis(decided.variables, placed, axes)]
        machine, limit = self._request.machine, self._request.limit_bytes
        return desk.by_axes(decided.name, machine, axes, lasting, limit)

    def _of_variables(self, observation: Observation) -> Observation:
        padded = self._padded(observation.choices, offset=6)
        padded.shared[3:] = observation.shared
        return Observation(padded.shared, padded.choices, observation.allowed)

    def _padded(self, rows: Numbers, *, offset: int) -> Observation:
        """Choices of one kind among the columns of all kinds."""
        choices = np.zeros((len(rows), self.choice_width), dtype=np.float32)
        choices[:, offset : offset + rows.shape[1]] = rows
        shared = np.zeros(self.shared_width, dtype=np.float32)
        shared[self._kind] = 1.0
        return Observation(shared, choices, np.ones(len(rows), dtype=np.bool_))


def _meshes(request: PlanRequest, rows: int) -> list[tuple[int, int]]:
    """Devices that share out the batch, and devices that share out the variables."""
    total = request.machine.num_devices
    if request.mesh is not None:
        shape = request.mesh.shape
        return [(shape[0], math.prod(shape[1:]))]
    pairs = [(total // n, n) for n in range(1, total + 1) if total % n == 0]
    return [pair for pair in pairs if rows % pair[0] == 0] or pairs[-1:]


def demonstration(mesh: int, stored: int) -> Callable[[Observation], int]:
    """How somebody decides who cuts all variables that can be cut.

    Args:
        mesh: number of the mesh.
        stored: position in `STORED`.
    """

    def choose(observation: Observation) -> int:
        kind = int(observation.shared[:3].argmax())
        if kind != 1:
            return mesh if kind == 0 else stored
        cut = np.where(observation.allowed, observation.choices[:, 6 + CUTS], -1.0)
        return int(cut.argmax())

    return choose
