"""Moving one tensor from one sharding to another: which collectives, at what cost.

A *hop* changes the placement on one mesh axis by one collective. A path of hops leads from
any sharding to any other that holds no pending reduction of its own. The planner lets a
unit flow along hops; the lowering follows the cheapest path; both use this table.

Where two axes cut the same dim the outer axis cuts first, so an axis may only start or stop
cutting a dim while no later axis cuts it; otherwise rows would have to be interleaved.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from weft.core.errors import VerifyError
from weft.cost.collective import collective_seconds
from weft.machine.model import Machine
from weft.machine.topology import Group, axis_group
from weft.parallel.bundle import JOINED, MESSAGE_BYTES, SMALL_BYTES
from weft.parallel.local import CollectiveKind
from weft.parallel.placement import (
    PARTIAL,
    PARTIAL_MAX,
    REPLICATED,
    Mesh,
    Placement,
    Sharding,
    divides,
    format_sharding,
    is_partial,
)
from weft.parallel.plan import Hop
from weft.program.types import TensorType

__all__ = ["HopTable", "Resharding", "hop_kind", "is_hop", "is_move"]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

SLICE_S = 0.5e-6
"""Price of keeping one's own part of a replica [s]. Derived: a tie-break well below any
operator's launch, so that plans do not slice and gather for nothing."""


def hop_kind(before: Placement, after: Placement) -> CollectiveKind:
    """Which collective turns one placement of an axis into another.

    Raises:
        VerifyError: there is none, for example into a pending reduction.
    """
    if before == REPLICATED and after >= 0:
        return CollectiveKind.SLICE
    if is_partial(before) and after == REPLICATED:
        return CollectiveKind.ALL_REDUCE
    if before == PARTIAL and after >= 0:
        return CollectiveKind.REDUCE_SCATTER
    if before >= 0 and after == REPLICATED:
        return CollectiveKind.ALL_GATHER
    if before >= 0 and after >= 0 and before != after:
        return CollectiveKind.ALL_TO_ALL
    raise VerifyError(
        need="a change of placement that one collective makes",
        got=f"{format_sharding((before,))} -> {format_sharding((after,))}",
    )


def is_hop(state: Sharding, axis: int, after: Placement) -> bool:
    """True if one collective moves the axis to `after`, and no later axis cuts a dim involved."""
    before, later = state[axis], state[axis + 1 :]
    if before == after or is_partial(after) or (before == PARTIAL_MAX and after >= 0):
        return False
    return not (before >= 0 and before in later) and not (after >= 0 and after in later)


def is_move(state: Sharding, hop: Hop) -> bool:
    """True if a value can move to another home so: along the first axis, where sums end."""
    before, later = state[0], state[1:]
    ends = hop.placement >= 0 or hop.placement == REPLICATED
    apart = before not in later and hop.placement not in later
    return hop.axis == 0 and ends and before != PARTIAL_MAX and (before < 0 or apart)


@dataclass(frozen=True)
class HopTable:
    """All shardings of one tensor type on one mesh, and all hops between them.

    Attributes:
        states: the shardings whose cut dims divide.
        source, target: for each hop, the index of the sharding it leaves and enters.
        seconds: cost of each hop [s].
        distance: cheapest cost between any two shardings, infinite where there is no way [s].
    """

    states: tuple[Sharding, ...]
    source: Ints
    target: Ints
    seconds: Floats
    distance: Floats
    following: Ints
    """First state after i on the cheapest way from i to j."""

    def useful_hops(self, made: Ints, read: Ints) -> Ints:
        """Numbers of the hops on the cheapest ways from any of `made` to any of `read`.

        One cheapest way for each pair is enough: more would only give the flow programme
        columns that tie.
        """
        key = (made.tobytes(), read.tobytes())
        found = self._useful.get(key)
        if found is None:
            found = self._useful[key] = self._on_ways(np.unique(made), np.unique(read))
        return found

    def _on_ways(self, made: Ints, read: Ints) -> Ints:
        number, following = self._number, self._following
        used: set[int] = set()
        for goal in map(int, read):
            seen = {goal}
            for start in made[self.reachable[made, goal]]:
                here = int(start)
                # From a sharding that was passed before, the rest of the way is known.
                while here not in seen:
                    seen.add(here)
                    step = following[here][goal]
                    used.add(number[here, step])
                    here = step
        return np.array(sorted(used), dtype=np.int64)

    @cached_property
    def _number(self) -> dict[tuple[int, int], int]:
        ends = zip(self.source, self.target, strict=True)
        return {(int(a), int(b)): number for number, (a, b) in enumerate(ends)}

    @cached_property
    def _following(self) -> list[list[int]]:
        steps: list[list[int]] = self.following.tolist()
        return steps

    @cached_property
    def reachable(self) -> npt.NDArray[np.bool_]:
        """Whether there is a way from one sharding to another."""
        return np.isfinite(self.distance)

    @cached_property
    def _useful(self) -> dict[tuple[bytes, bytes], Ints]:
        return {}

    @cached_property
    def index(self) -> dict[Sharding, int]:
        """Number of each sharding."""
        return {state: number for number, state in enumerate(self.states)}

    def path(self, before: Sharding, after: Sharding) -> tuple[Hop, ...]:
        """The hops of the cheapest way.

        Raises:
            VerifyError: there is no way.
        """
        here, goal = self.index[before], self.index[after]
        if not np.isfinite(self.distance[here, goal]):
            raise VerifyError(
                need="shardings that collectives can turn into each other",
                got=f"{format_sharding(before)} -> {format_sharding(after)}",
            )
        hops: list[Hop] = []
        while here != goal:
            step = int(self.following[here, goal])
            a, b = self.states[here], self.states[step]
            axis = next(k for k in range(len(a)) if a[k] != b[k])
            hops.append(Hop(axis, b[axis]))
            here = step
        return tuple(hops)


class Resharding:
    """Hop tables of one mesh on one machine, made on demand and kept.

    Args:
        machine, mesh: where tensors move.
        message_bytes: what small collectives that nothing waits for are joined to (`bundle`):
            in a table of such moves each has its share of a message's time.
    """

    def __init__(
        self, machine: Machine, mesh: Mesh, message_bytes: float = float(MESSAGE_BYTES)
    ) -> None:
        self.mesh = mesh
        self._message_bytes = message_bytes
        self._groups: tuple[Group, ...] = tuple(
            axis_group(machine, mesh.shape, axis) for axis in range(mesh.num_axes)
        )
        self._tables: dict[tuple[TensorType, bool, bool], HopTable] = {}

    def table(self, tensor: TensorType, *, maximum: bool = False, joined: bool = False) -> HopTable:
        """Hop table of a tensor type.

        Args:
            tensor: the whole tensor.
            maximum: whether it knows Pmax as well as P.
            joined: whether small collectives travel in messages with others.
        """
        key = (tensor, maximum, joined)
        found = self._tables.get(key)
        if found is None:
            found = self._tables[key] = self._build(tensor, maximum=maximum, joined=joined)
        return found

    def hop_seconds(
        self,
        tensor: TensorType,
        state: Sharding,
        axis: int,
        after: Placement,
        *,
        joined: bool = False,
    ) -> float:
        """Cost of one hop from `state`, alone or as its share of a message [s]."""
        kind = hop_kind(state[axis], after)
        if kind is CollectiveKind.SLICE:
            return SLICE_S
        payload = float(tensor.num_bytes)
        for other, placement in enumerate(state):
            if placement >= 0 and other != axis:
                payload /= self.mesh.shape[other]
        message = payload
        if joined and kind in JOINED and payload <= SMALL_BYTES:
            message = max(payload, self._message_bytes)
        return collective_seconds(kind.value, message, self._groups[axis]) * payload / message

    def _build(self, tensor: TensorType, *, maximum: bool, joined: bool) -> HopTable:
        dims = [d for d, size in enumerate(tensor.shape) if size > 1]
        partial = (PARTIAL, PARTIAL_MAX) if maximum else (PARTIAL,)
        choices = (REPLICATED, *partial, *dims)
        states = tuple(
            state
            for state in itertools.product(choices, repeat=self.mesh.num_axes)
            if divides(self.mesh, state, tensor.shape)
        )
        index = {state: number for number, state in enumerate(states)}
        hops: list[tuple[int, int, float]] = []
        for number, state in enumerate(states):
            for axis in range(self.mesh.num_axes):
                for after in (REPLICATED, *dims):
                    if not is_hop(state, axis, after):
                        continue
                    reached = index.get((*state[:axis], after, *state[axis + 1 :]))
                    if reached is not None:
                        seconds = self.hop_seconds(tensor, state, axis, after, joined=joined)
                        hops.append((number, reached, seconds))
        return _closed(states, hops)


def _closed(states: tuple[Sharding, ...], hops: list[tuple[int, int, float]]) -> HopTable:
    """Floyd-Warshall over the hops."""
    size = len(states)
    distance = np.full((size, size), np.inf)
    np.fill_diagonal(distance, 0.0)
    following = np.tile(np.arange(size), (size, 1))
    for a, b, seconds in hops:
        distance[a, b] = seconds
    for middle in range(size):
        through = distance[:, middle : middle + 1] + distance[middle : middle + 1, :]
        better = through < distance - 1e-15
        distance = np.where(better, through, distance)
        following = np.where(better, following[:, middle : middle + 1], following)
    table = np.array(hops, dtype=np.float64).reshape(-1, 3)
    return HopTable(
        states=states,
        source=table[:, 0].astype(np.int64),
        target=table[:, 1].astype(np.int64),
        seconds=table[:, 2],
        distance=distance,
        following=following,
    )
