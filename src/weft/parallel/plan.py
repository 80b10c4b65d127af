"""The parallel plan: how one training step is split over a mesh, as data.

For every node of the program the plan holds a *strategy*: the sharding of each output and
of each operand as the operator reads it. Where a reader wants a value in another sharding
than it was made in, the plan holds a *copy*: the chain of single-axis collectives that
makes it, shared by all readers in the same phase. Nothing else is left to decide: lowering
is mechanical.

All nodes of most plans are at *home* on one mesh. A plan for unlike devices may have further
homes: meshes of the same ranks with other shares along the first axis. A node whose home gives a
rank nothing does not exist there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from weft.core.errors import InputError
from weft.parallel.placement import Mesh, Sharding
from weft.program.graph import Phase, Value

__all__ = [
    "Alternative",
    "Copy",
    "Hop",
    "Level",
    "ParallelPlan",
    "Prediction",
    "Strategy",
]


class Level(Enum):
    """How hard the planner looked."""

    FAST = "fast"
    BEST = "best"
    EXPERT = "expert"
    """Written by hand, not searched."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """Shardings of one node, at its home: `outputs[i]` as made, `operands[k]` as read."""

    outputs: tuple[Sharding, ...]
    operands: tuple[Sharding, ...]
    home: int = 0


@dataclass(frozen=True, slots=True)
class Hop:
    """One collective: mesh axis `axis` of a sharding changes to `placement`.

    With a `home`, the value moves to the devices of that home as well, along the first axis.
    """

    axis: int
    placement: int
    home: int = -1


@dataclass(frozen=True, slots=True)
class Copy:
    """A value in another sharding, made in one phase for readers of that phase or a later one.

    The hops start from `origin`, which is the sharding in which the value was made or the
    target of another copy of this or an earlier phase, and end in `target`. Copies of a value
    that pass through the same sharding in the same phase share the collectives up to there.
    A copy that is `kept` stays for later phases; others end with their phase. Origin and target
    each lie at a home.
    """

    value: Value
    phase: Phase
    origin: Sharding
    target: Sharding
    hops: tuple[Hop, ...]
    kept: bool = False
    origin_home: int = 0
    target_home: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the simulator says of a plan.

    Attributes:
        step_s: time of one step [s].
        compute_s: sum of the operators' times on one device [s].
        communication_s: sum of the collectives' times [s].
        exposed_s: communication that no computation hides [s].
        peak_bytes: most memory in use on one device [bytes].
        state_bytes: parameters, buffers and optimizer state on one device [bytes].
        objective_s: the solver's additive objective for this plan: computation and the
            communication that it expects to wait for [s].
        bound_s: lower bound of that objective over all plans of this mesh; 0 where unknown.
    """

    step_s: float
    compute_s: float
    communication_s: float
    exposed_s: float
    peak_bytes: float
    state_bytes: float
    objective_s: float = 0.0
    bound_s: float = 0.0

    @property
    def gap(self) -> float:
        """Relative distance of the objective from its bound; 0 where no bound is known."""
        # An optimum and its bound are sums of the same terms in another order.
        return max(0.0, self.objective_s / self.bound_s - 1.0) if self.bound_s > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A plan that was looked at and lost: what it would have cost."""

    name: str
    step_s: float
    peak_bytes: float
    fits: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ParallelPlan:
    """A decision how to split a training step.

    Attributes:
        program_name, program_digest: the program it is for.
        machine_name, machine_digest: the machine it is for.
        mesh: the device grid; home 0 of nodes.
        homes: further homes, from 1 on: meshes of the same shape with other shares along the
            first axis.
        strategies: one for each node of the program with `recompute` applied to it (see
            `weft.parallel.recompute`).
        copies: values that readers want in another sharding.
        recompute: forward nodes that the backward pass computes again instead of keeping.
        memory_limit_bytes: what the planner had to stay under on each device.
        prediction: what the simulator says.
        alternatives: what else was looked at, best first.
        planner, level: who decided and how hard it looked.
        search_s: time of the search [s].
        notes: lines for people, for example operators that were replicated for want of a rule.
    """

    program_name: str
    program_digest: str
    machine_name: str
    machine_digest: str
    mesh: Mesh
    strategies: tuple[Strategy, ...]
    copies: tuple[Copy, ...]
    recompute: tuple[int, ...] = ()
    memory_limit_bytes: float = 0.0
    prediction: Prediction
    alternatives: tuple[Alternative, ...] = ()
    planner: str = "exact"
    level: Level = Level.FAST
    search_s: float = 0.0
    notes: tuple[str, ...] = field(default=())
    homes: tuple[Mesh, ...] = ()

    def __post_init__(self) -> None:
        if not all(map(all, self.mesh.shares)):
            raise InputError(
                need="a part for every device of the plan's mesh",
                got=str(self.mesh),
                hint="devices without a part are those of further homes",
            )
        for home in self.homes:
            same_inside = home.shares[1:] == ((),) * (home.num_axes - 1) or home.is_even
            if home.shape != self.mesh.shape or not same_inside:
                raise InputError(
                    need=f"homes of the shape of the mesh {self.mesh}, with shares along the first "
                    "axis only",
                    got=str(home),
                    hint="plan again",
                )

    @property
    def is_even(self) -> bool:
        """True if all devices do the same work."""
        return self.mesh.is_even and not self.homes

    def mesh_of(self, home: int) -> Mesh:
        """The mesh of a home."""
        return self.homes[home - 1] if home else self.mesh
