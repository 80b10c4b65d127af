"""One rank's share of a planned training step, ready to be called.

The state stays with the `Step`: each call replaces it by the next one. What a rank holds of a
tensor is an even, contiguous part, which DTensors describe to checkpoints and to users; the
arithmetic runs on the parts themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from weft.capture.batch import require_batch
from weft.capture.dtypes import type_of
from weft.core.errors import InputError
from weft.parallel.local import Collective, CollectiveKind, LocalInput, LocalProgram
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.placement import local_type, part_box
from weft.parallel.plan import ParallelPlan
from weft.program.graph import Input, Phase, Program, Role
from weft.program.types import TensorType
from weft.runtime.boxes import Boxes, storable
from weft.runtime.emit_collective import collective_module
from weft.runtime.place import Place
from weft.runtime.shard import alone_in_storage, dtensor_placements, shard_of
from weft.runtime.world import World

__all__ = ["Advance", "Deployed", "Deployment", "Step", "Trainable", "entry", "step_seed"]

Advance: TypeAlias = Callable[[list[Tensor | None]], tuple[Tensor, ...]]
"""Runs a step on the inputs in order. Returns the loss, then the next value of each update, or
nothing more if it wrote them over the old ones."""

_BATCH = "batch."


def step_seed(seed: int, step: int) -> int:
    """Seed of the random numbers of one step: a different one for each step and run.

    Args:
        seed: the workload's.
        step: number of the step, from 0.

    Returns:
        An integer of 63 bits: the seed above, the step below. What draws from it mixes both.

    Example:
        >>> step_seed(0, 7), step_seed(1, 0)
        (7, 4294967296)
    """
    return ((seed & 0x7FFFFFFF) << 32) | (step & 0xFFFFFFFF)


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What a step was made from; checkpoints and records name it.

    Attributes:
        program: with the plan's recomputation applied.
        plan: the decision.
        program_digest: of the program as captured.
        plan_digest: of what the plan decides.
        seed: the workload's.
    """

    program: Program
    plan: ParallelPlan | PipelinePlan
    program_digest: str
    plan_digest: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Deployment(Deployed):
    """What a `Step` was made from.

    Attributes:
        plan: the decision.
        local: what this rank executes.
        inputs: those of all ranks.
    """

    plan: ParallelPlan
    local: LocalProgram
    inputs: tuple[LocalInput, ...]


class Trainable(Protocol):
    """A step that can be trained and kept in checkpoints.

    Attributes:
        number: how many steps have been done.
        built_whole: why this rank built the whole first state and not its part; empty if it
            did not.
    """

    number: int
    built_whole: str

    @property
    def deployment(self) -> Deployed:
        """What it was made from."""
        ...

    @property
    def world(self) -> World:
        """The ranks it runs on."""
        ...

    @property
    def place(self) -> Place:
        """Where this rank stands among those that it computes with."""
        ...

    @property
    def waited(self) -> float | None:
        """Share of the last step's schedule in which this rank did nothing; None without stages."""
        ...

    @property
    def exposed_s(self) -> float | None:
        """Time of the last step in which this rank only communicated [s]; None without stages."""
        ...

    def __call__(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Do one step on the global batch; the loss is the same on every rank."""
        ...

    def state(self) -> dict[str, Tensor]:
        """This rank's part of the state by name, as DTensors."""
        ...

    def stored(self) -> dict[str, Tensor]:
        """The same memory as checkpoints hold it: in the model's shapes."""
        ...


class Step:
    """A training step on this rank: `loss = step(batch)`.

    Attributes:
        deployment: what it was made from.
        world: the ranks it runs on.
        place: where this rank stands in the mesh.
        number: how many steps have been done; the next one's random numbers follow from it.
        built_whole: why this rank built the whole first state and not its part; empty if it
            did not.
    """

    def __init__(
        self,
        *,
        deployment: Deployment,
        world: World,
        place: Place,
        devices: DeviceMesh | None,
        advance: Advance,
        in_place: bool,
        state: dict[str, Tensor],
        built_whole: str = "",
    ) -> None:
        self.built_whole = built_whole
        self.deployment = deployment
        self.world = world
        self.place = place
        self.number = 0
        self._devices = devices
        self._advance = advance
        self._in_place = in_place
        self._state = state
        self._shardings = {i.name: i.sharding for i in deployment.local.inputs}
        self._homes = {i.name: place.at(i.home) for i in deployment.local.inputs}
        self._updated = dict.fromkeys(name for name, _ in deployment.local.updates)

    def __call__(self, batch: Mapping[str, Tensor], *, is_local: bool = False) -> Tensor:
        """Do one step.

        Args:
            batch: the global batch by key, of which this rank takes its part; with `is_local`,
                the part itself.
            is_local: whether `batch` is this rank's part already.

        Returns:
            The loss of the whole batch, the same on every rank [scalar].

        Raises:
            InputError: an entry is missing, is no dense tensor, or has another type than the
                captured one.
        """
        inputs = self._inputs(self._own_part(batch, is_local=is_local))
        with torch.no_grad():
            loss, *values = self._advance(inputs)
        self._state.update(zip(self._updated, map(alone_in_storage, values), strict=bool(values)))
        self.number += 1
        return loss

    @property
    def waited(self) -> None:
        """There are no stages to wait for."""
        return None

    @property
    def exposed_s(self) -> None:
        """One module does the whole step; its waits are not counted."""
        return None

    def parameters(self) -> dict[str, Tensor]:
        """Trainable parameters by name, as DTensors; plain tensors in a world of one rank.

        What some ranks alone cut among them is no DTensor, but `weft.runtime.boxes.Boxes`.
        A fused one has the shape that the program holds: [3,D,D] for a model's [3D,D].
        """
        return self._named(lambda i: i.role is Role.PARAMETER)

    def state(self) -> dict[str, Tensor]:
        """Parameters, buffers and optimizer state by name, as DTensors; shapes as `parameters`.

        They share memory with the step's own parts until the next call.
        """
        return self._named(lambda i: i.role.is_persistent)

    def stored(self) -> dict[str, Tensor]:
        """As `state`, in the model's shapes, for checkpoints to write and to read into."""
        program, state = self.deployment.program, self.state()
        return {
            name: storable(tensor, program, name, self._shardings[name], self._homes[name])
            for name, tensor in state.items()
        }

    def full_state(self) -> dict[str, Tensor]:
        """The whole state by name in the model's shapes, gathered on every rank.

        For tests and small models.
        """
        program = self.deployment.program
        return {
            i.name: self._gathered(i.name).reshape(program.model_type(i).shape)
            for i in program.inputs
            if i.role.is_persistent
        }

    def _gathered(self, name: str) -> Tensor:
        """A whole tensor of the state; the axis that cut last is put together first."""
        tensor = self._state.get(name)
        for axis, placement in reversed(tuple(enumerate(self._shardings.get(name, ())))):
            even = placement >= 0 and self._homes[name].mesh.cuts_evenly(axis)
            if even and self._devices is not None and tensor is not None:
                tensor = self._joined(tensor, placement, axis)
        whole = self._brought(name, tensor)
        return whole.clone()

    def _brought(self, name: str, tensor: Tensor | None) -> Tensor:
        """A tensor that some ranks hold, whole or in unlike parts along the first axis, on all."""
        source = next(i for i in self.deployment.inputs if i.name == name)
        home, placement = self.place.at(source.home), max(source.sharding[0], -1)
        is_everywhere = len(home.mesh.members(0)) == home.mesh.shape[0]
        if is_everywhere and (placement < 0 or home.mesh.cuts_evenly(0)):
            assert tensor is not None
            return tensor
        program = self.deployment.program
        whole = program.nodes[program.input_by_name[name].node].outputs[0]
        move = Collective(
            kind=CollectiveKind.MOVE,
            axis=0,
            source_dim=placement,
            source=0,
            target=0,
            node=0,
            phase=Phase.UPDATE,
        )
        held = whole if tensor is None else type_of(tensor)
        module = collective_module(move, held, whole, home, leads_to=self.place.at(0).mesh)
        return module(torch.empty(0) if tensor is None else tensor)

    def _joined(self, tensor: Tensor, dim: int, axis: int) -> Tensor:
        """The parts of a tensor that ranks along a mesh axis hold, put together."""
        held = type_of(tensor)
        shape = list(held.shape)
        shape[dim] *= self.place.mesh.shape[axis]
        gather = Collective(
            kind=CollectiveKind.ALL_GATHER,
            axis=axis,
            source_dim=dim,
            source=0,
            target=0,
            node=0,
            phase=Phase.UPDATE,
        )
        whole = TensorType(held.dtype, tuple(shape))
        return collective_module(gather, held, whole, self.place)(tensor)

    def _named(self, wanted: Callable[[Input], bool]) -> dict[str, Tensor]:
        inputs = self.deployment.program.inputs
        return {i.name: self._as_dtensor(i) for i in inputs if wanted(i) and i.name in self._state}

    def _as_dtensor(self, source: Input) -> Tensor:
        local = self._state[source.name]
        if self._devices is None:
            return local
        sharding, place = self._shardings[source.name], self._homes[source.name]
        if any(p >= 0 and not place.mesh.cuts_evenly(axis) for axis, p in enumerate(sharding)):
            whole = self.deployment.program.nodes[source.node].outputs[0].shape
            box = part_box(place.mesh, sharding, place.coordinate, whole)
            return Boxes(local, whole, {torch.Size(start for start, _ in box): local})
        placements = dtensor_placements(self._shardings[source.name])
        return DTensor.from_local(local, self._devices, placements, run_check=False)

    def _inputs(self, batch: dict[str, Tensor]) -> list[Tensor | None]:
        """Inputs in order. What the step replaces is given away, so that it can be freed."""
        inputs: list[Tensor | None] = []
        for source in self.deployment.local.inputs:
            role = self.deployment.program.input_by_name[source.name].role
            if role is Role.SEED:
                seed = step_seed(self.deployment.seed, self.number)
                inputs.append(torch.tensor(seed, dtype=torch.int64, device=self.place.device))
            elif role is Role.BATCH:
                inputs.append(batch[source.name])
            elif source.name in self._updated and not self._in_place:
                inputs.append(self._state.pop(source.name))
            else:
                inputs.append(self._state[source.name])
        return inputs

    def _own_part(self, batch: Mapping[str, Tensor], *, is_local: bool) -> dict[str, Tensor]:
        program, part = self.deployment.program, dict[str, Tensor]()
        batch = require_batch(batch, self.number)
        for source in program.inputs:
            if source.role is not Role.BATCH or source.name not in self._shardings:
                continue
            key = source.name.removeprefix(_BATCH)
            sharding, whole = self._shardings[source.name], program.nodes[source.node].outputs[0]
            mesh, at = self._homes[source.name].mesh, self.place.coordinate
            tensor = entry(batch, key, local_type(mesh, sharding, whole, at) if is_local else whole)
            if not is_local:
                tensor = shard_of(tensor, mesh, sharding, at)
            part[source.name] = tensor.to(self.place.device).contiguous()
        return part


def entry(batch: Mapping[str, Tensor], key: str, expected: TensorType) -> Tensor:
    """An entry of a batch, checked against the type that was captured.

    Raises:
        InputError: it is missing, or of another type.
    """
    tensor = batch.get(key)
    if tensor is None:
        raise InputError(
            need=f"a batch entry {key!r} of type {expected}",
            got=f"entries {', '.join(map(repr, batch)) or 'none'}",
            hint="every batch has the entries of the one that was captured",
        )
    if type_of(tensor) != expected:
        raise InputError(
            need=f"batch entry {key!r} of type {expected}",
            got=str(type_of(tensor)),
            hint="all steps have the shapes that were captured; drop or pad a last short batch, "
            "or plan again for the new shape",
        )
    return tensor
