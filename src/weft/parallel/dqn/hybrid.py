"""A whole plan of one stage in one episode: the mesh, what each variable does, what is stored.

    mesh        how many devices share out the batch, and how many the variables
    rows        whether the second axis shares out the batch as well, as small products may want
    variables   a group at a time, along the second axis (`weft.parallel.dqn.deciding`)
    storage     whether the first axis stores parameters and optimizer state in parts

What comes of it is a legal plan with a simulated time, as an expert's is: decisions pin inputs, and
everything else follows by the least movement. The reward is high where the step is short, and low,
by how much is missing, where the plan does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from weft.core.divisors import divisors
from weft.core.errors import InfeasibleError, InputError
from weft.parallel.candidate import Candidate
from weft.parallel.degrees import Degrees
from weft.parallel.depth import Shortened, Views, undivided
from weft.parallel.dqn.deciding import CUTS, PartitionEnvironment
from weft.parallel.dqn.environment import Numbers, Observation, Turn
from weft.parallel.dqn.sight import Effect, Sight
from weft.parallel.experts import Desks
from weft.parallel.linkage import Decision, ReducedAxis
from weft.parallel.partition import Partition, whole_batch
from weft.parallel.placement import REPLICATED, Mesh, Placement
from weft.parallel.plan import Prediction
from weft.parallel.propagate import AxisRules
from weft.parallel.request import PlanRequest
from weft.parallel.rows import batch_rows
from weft.parallel.weights import parameters_led_to
from weft.program.fold import Folding, fold
from weft.program.graph import Phase, Program, Role, Value
from weft.program.operators import Kind, operator

__all__ = ["STORED", "Decided", "HybridEnvironment", "Lesson", "lessons"]

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


MESH, ROWS, VARIABLES, STORAGE = range(4)
"""Kinds of choices, in order."""


class HybridEnvironment:
    """Episodes of whole plans.

    Args:
        request: what to plan.
        folding: of its program.
        views: short versions to predict the whole from, if it is deep.
        moves: whether decisions are offered that make data move along the second axis. There are
            many more of them.

    Attributes:
        meshes: that are chosen from.
        batch: inputs that are entries of the batch.
        known: what was predicted; None for what cannot be.
        unit_s: a step that is worth halfway between one that does not fit and none at all; that of
            the first plan that fits, unless it was set [s].
        kind: of what is chosen next.
    """

    shared_width = 6 + Sight.shared_width + PartitionEnvironment.shared_width
    choice_width = (
        Sight.mesh_width
        + 1
        + Sight.storage_width
        + Sight.variables_width
        + PartitionEnvironment.choice_width
    )

    def __init__(
        self, request: PlanRequest, folding: Folding, views: Views | None, *, moves: bool = False
    ) -> None:
        self._request, self._folding, self._views, self._moves = request, folding, views, moves
        self._desks = Desks(request.program, request.pinning, views)
        self._sight = Sight(request)
        self.batch = frozenset(i.node for i in request.program.inputs if i.role is Role.BATCH)
        self.meshes = _meshes(request, batch_rows(request.program))
        self._kept_bytes = max(
            1.0,
            sum(
                float(request.program.nodes[i.node].outputs[0].num_bytes)
                for i in request.program.inputs
                if i.role.is_persistent
            ),
        )
        self._view = undivided(request.program) if views is None else views.short
        self._partitions: dict[int, Partition | None] = {}
        self._gradients: dict[int, dict[int, int]] = {}
        self.known: dict[Decided, Prediction | None] = {}
        self.unit_s = 0.0
        self._mesh = (1, 1)
        self._inner: PartitionEnvironment | None = None
        self._rows: tuple[tuple[int, Placement], ...] = ()
        self._placements: tuple[tuple[int, Placement], ...] = ()
        self.kind = MESH

    @property
    def offered(self) -> tuple[Decision, ...]:
        """What each of the choices means, where variables are decided about."""
        made = () if self._inner is None else self._inner.offered
        origin = self._view.origin
        return tuple(replace(d, variable=Value(origin[d.variable.node])) for d in made)

    def reset(self, generator: np.random.Generator) -> Observation:
        """Begin with the mesh."""
        del generator
        self.kind, self._inner, self._rows, self._placements = MESH, None, (), ()
        return self._padded([self._sight.mesh(*pair) for pair in self.meshes], offset=0)

    def step(self, choice: int) -> Turn:
        """Decide."""
        if self.kind == MESH:
            self._mesh = self.meshes[choice]
            if self._mesh[1] > 1 and self._shared_rows():
                self.kind = ROWS
                return Turn(0.0, self._padded([[0.0], [1.0]], offset=Sight.mesh_width))
            return self._variables()
        if self.kind == ROWS:
            self._rows = self._shared_rows() if choice else ()
            return self._variables()
        if self.kind == VARIABLES:
            assert self._inner is not None
            turn = self._inner.step(choice)
            if turn.observation is not None:
                return Turn(0.0, self._of_variables(turn.observation))
            self._placements = self._cut_inputs(self._inner)
            return self._storage()
        return self._end(STORED[choice])

    def _shared_rows(self) -> tuple[tuple[int, Placement], ...]:
        """The batch cut along the second axis as well; nothing if its rows do not divide."""
        program, devices = self._request.program, math.prod(self._mesh)
        rows = [(n, s) for n in self.batch if (s := program.nodes[n].outputs[0].shape) and s[0] > 1]
        return tuple((n, 0) for n, _ in rows) if all(s[0] % devices == 0 for _, s in rows) else ()

    def _variables(self) -> Turn:
        self._inner = self._decisions()
        if self._inner is None:
            return self._storage()
        self.kind = VARIABLES
        return Turn(0.0, self._of_variables(self._inner.reset(np.random.default_rng(0))))

    def _storage(self) -> Turn:
        self.kind = STORAGE
        if self._mesh[0] == 1:  # nobody to store in parts with
            return self._end(0)
        rows = [self._sight.storage(place, *self._mesh) for place in range(len(STORED))]
        return Turn(0.0, self._padded(rows, offset=Sight.mesh_width + 1))

    def _end(self, stored: int) -> Turn:
        placements = tuple(sorted({*self._placements, *self._rows}))
        return Turn(self.worth(Decided(*self._mesh, stored, placements)), None)

    def _decisions(self) -> PartitionEnvironment | None:
        """Decisions along the second axis; none if it has one device or all is settled."""
        size = self._mesh[1]
        if size not in self._partitions:
            self._partitions[size] = self._partition(size) if size > 1 else None
        partition = self._partitions[size]
        return PartitionEnvironment(partition, moves=self._moves) if partition is not None else None

    def _partition(self, size: int) -> Partition | None:
        view = self._view
        axis = ReducedAxis(view.program, size)
        partition = Partition(axis, self._alike, whole_batch(view.program), view.times)
        return partition if partition.order else None

    @cached_property
    def _alike(self) -> Folding:
        """Layers that are alike, of the program whose variables are decided about."""
        own = self._request.pinning.through(self._view.origin, self._view.program)
        return fold(self._view.program, own.marks) if self._view.gaps else self._folding

    def _cut_inputs(self, inner: PartitionEnvironment) -> tuple[tuple[int, Placement], ...]:
        """Where inputs that are cut lie, in all layers, optimizer state included."""
        forced = inner.partition.settled(inner.taken).forced
        number = {node: short for short, node in enumerate(self._view.origin)}
        like = self._folding.representative
        nodes = (i.node for i in self._request.program.inputs)
        placed = ((n, forced.get(Value(number[like[n]]), REPLICATED)) for n in nodes)
        return tuple((node, place) for node, place in placed if place >= 0)

    def worth(self, decided: Decided) -> float:
        """The reward of a plan."""
        prediction = self.predicted(decided)
        if prediction is None:
            return 0.0
        if not self.fits(prediction):
            return MISFIT * self._request.limit_bytes / prediction.peak_bytes
        self.unit_s = self.unit_s or prediction.step_s
        return MISFIT + (1 - MISFIT) / (1 + prediction.step_s / self.unit_s)

    def fits(self, prediction: Prediction) -> bool:
        """Whether a plan keeps to the memory that there is."""
        return prediction.peak_bytes <= self._request.limit_bytes

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
            placed = _dividing(desk.program, placed, decided.variables, axes)
            placed |= self._small_products(desk.program, placed)
            axes = [*axes, desk.schemes.placed_axis(decided.variables, placed, axes)]
        machine, limit = self._request.machine, self._request.limit_bytes
        return desk.by_axes(decided.name, machine, axes, lasting, limit)

    def _small_products(
        self, program: Program, placed: Mapping[int, Placement]
    ) -> dict[int, Placement]:
        """Gradients that are made where they end up, since what they are made of is smaller."""
        found = self._gradients.get(id(program))  # the desks keep their programs
        if found is None:
            found = self._gradients[id(program)] = _gradient_products(program)
        return {node: placed[w] for node, w in found.items() if placed.get(w, REPLICATED) >= 0}

    def _of_variables(self, observation: Observation) -> Observation:
        inner = self._inner
        assert inner is not None
        effects = [self._effect(inner, new) for new in inner.forced]
        seen = [self._sight.variables(effect, self._mesh[1]) for effect in effects]
        both = np.concatenate([np.asarray(seen, dtype=np.float32), observation.choices], 1)
        padded = self._padded(both, offset=self.choice_width - both.shape[1])
        padded.shared[-PartitionEnvironment.shared_width :] = observation.shared
        return Observation(padded.shared, padded.choices, observation.allowed)

    def _effect(self, inner: PartitionEnvironment, new: Mapping[Value, Placement]) -> Effect:
        part = inner.partition
        cut = [value for value, place in new.items() if place >= 0]
        sizes = [part.sizes[value.node] for value in cut if value.node in part.sizes]
        reduced = inner.reduced(new)
        return Effect(
            nodes=[self._view.origin[value.node] for value in cut],
            reduced_bytes=sum(map(part.axis.num_bytes, reduced)),
            num_reduced=len(reduced),
            cut_bytes=sum(sizes),
            times=part.weight(new, cut=True) / max(len(sizes), 1),
        )

    def _padded(self, rows: Numbers | list[list[float]], *, offset: int) -> Observation:
        """Choices of one kind among the columns of all kinds."""
        own = np.asarray(rows, dtype=np.float32)
        choices = np.zeros((len(own), self.choice_width), dtype=np.float32)
        choices[:, offset : offset + own.shape[1]] = own
        shared = np.zeros(self.shared_width, dtype=np.float32)
        shared[self.kind] = 1.0
        shared[4] = bool(self._rows)
        shared[5] = self._cut_share()
        shared[6 : 6 + Sight.shared_width] = self._sight.shared()
        return Observation(shared, choices, np.ones(len(own), dtype=np.bool_))

    def _cut_share(self) -> float:
        """Share of what is kept from step to step that is cut along the second axis."""
        nodes = self._request.program.nodes
        cut = (node for node, _ in self._placements)
        return sum(float(nodes[node].outputs[0].num_bytes) for node in cut) / self._kept_bytes


def _dividing(
    program: Program, placed: Mapping[int, Placement], size: int, outer: Sequence[AxisRules]
) -> dict[int, Placement]:
    """The placements of inputs whose dims divide once more, after storage has cut some of them."""

    def divides(node: int, place: Placement) -> bool:
        earlier = (axis.size for axis in outer if axis.rules[node].outputs[0] == place)
        parts = size * math.prod(earlier)
        return program.nodes[node].outputs[0].shape[place] % parts == 0

    return {node: place for node, place in placed.items() if divides(node, place)}


def _gradient_products(program: Program) -> dict[int, int]:
    """Products that are gradients of weights larger than both of their operands, with the weight.

    Where the batch is cut, each device makes summands of them. To reduce these moves the gradient,
    to make a part of it moves the operands.
    """
    nodes, found = program.nodes, dict[int, int]()
    for number, weight in enumerate(parameters_led_to(program)):
        this = nodes[number]
        if this.phase is not Phase.BACKWARD or operator(this.op).kind is not Kind.CONTRACT:
            continue
        if weight < 0 or this.outputs[0].shape != nodes[weight].outputs[0].shape:
            continue
        read = sum(program.type_of(value).num_bytes for value in program.operands(number))
        if len(this.outputs) == 1 and read < this.outputs[0].num_bytes:
            found[number] = weight
    return found


def _meshes(request: PlanRequest, rows: int) -> list[tuple[int, int]]:
    """Devices that share out the batch, and devices that share out the variables."""
    total = request.machine.num_devices
    if request.mesh is not None:
        return _pairs_of(request.mesh)
    pairs = [(total // n, n) for n in divisors(total)]
    return [pair for pair in pairs if rows % pair[0] == 0] or pairs[-1:]


def _pairs_of(mesh: Mesh) -> list[tuple[int, int]]:
    """What the axes of a mesh that somebody asks for can do."""
    if mesh.num_axes > 2:
        raise InputError(
            need="a mesh of one or two axes, of which the agent decides",
            got=f"mesh {mesh}",
            hint="plan it with planner='exact'",
        )
    first, second = (*mesh.shape, 1)[:2]
    if mesh.num_axes == 2 or first == 1:
        return [(first, second)]
    return [(first, 1), (1, first)]


@dataclass(frozen=True, slots=True)
class Lesson:
    """How somebody decides who cuts all variables that can be cut.

    Attributes:
        mesh: number of the mesh.
        stored: position in `STORED`.
        rows: whether the second axis shares out the batch as well.
    """

    mesh: int
    stored: int = 0
    rows: bool = False

    def __call__(self, observation: Observation) -> int:
        """The choice."""
        kind = int(observation.shared[:4].argmax())
        if kind != VARIABLES:
            return (self.mesh, int(self.rows), 0, self.stored)[kind]
        columns = observation.choices[:, -PartitionEnvironment.choice_width :]
        return int(np.where(observation.allowed, columns[:, CUTS], -1.0).argmax())


def lessons(environment: HybridEnvironment) -> Iterator[Lesson]:
    """Every mesh with each way to share out the batch and to store, all variables cut."""
    for number, (data, variables) in enumerate(environment.meshes):
        for rows in (False, True)[: 1 + (variables > 1)]:
            for stored in range(len(STORED) if data > 1 else 1):
                yield Lesson(number, stored, rows)
