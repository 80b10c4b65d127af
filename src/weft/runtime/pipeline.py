"""One rank's share of a step that runs as a pipeline.

Around the schedule, which torch.distributed.pipelining carries out, a step has what runs once: the
setup and the totals of the batch before it, reductions and the update after it. What stages
send each other there goes in the order of the parcels' numbers, which all ranks share, so
that nobody waits for somebody who waits.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from weft.capture import Workload, capture
from weft.capture.batch import require_batch
from weft.core.errors import MismatchError
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.pipeline.segments import Part
from weft.parallel.pipeline.serialize import pipeline_digest
from weft.parallel.pipeline.stages import Parcel
from weft.parallel.placement import part_box
from weft.parallel.validate import require_program
from weft.program.graph import Phase, Program, Role
from weft.runtime.ahead import Tell, compile_stages, silent
from weft.runtime.boxes import storable
from weft.runtime.clock import Clock
from weft.runtime.grids import grid_devices
from weft.runtime.inductor import Compiler
from weft.runtime.own_state import StateSource, own_state, state_of_workload
from weft.runtime.place import Layout
from weft.runtime.post import Box, Post
from weft.runtime.shard import dtensor_placements, shard_of
from weft.runtime.stage import StageRun, inputs_of_each
from weft.runtime.step import Deployed, entry, step_seed
from weft.runtime.torch_schedule import Handlers, Schedule
from weft.runtime.world import World, gather_objects, join, place_in, require_agreement

__all__ = ["PipelineStep", "deploy_pipeline"]

_BATCH = "batch."
_ONCE = -1
"""Micro-batch of what is sent once a step, in tags."""


def deploy_pipeline(
    plan: PipelinePlan,
    workload: Workload,
    *,
    compile: Compiler | None = None,  # noqa: A002 - the word that torch uses for it
    world: World | None = None,
    program: Program | None = None,
    tell: Tell = silent,
) -> PipelineStep:
    """This rank's share of a pipelined training step, with the workload's initial state.

    Args:
        plan: made for the workload's program and as many devices as there are ranks.
        workload: what to train.
        compile: who compiles the parts of each stage, if anybody, see `deploy`.
        world: the ranks; those that torchrun started if left out.
        program: the captured workload, if it is at hand.
        tell: told on rank 0 what is being compiled.

    Raises:
        MismatchError: the plan was made for another program or another number of devices.
        VerifyError: the plan does not compute what the program does.
        RunError: the compiler failed on this rank, or another rank failed meanwhile.
    """
    world = join() if world is None else world
    captured = capture(workload) if program is None else program
    require_program(plan, captured)
    if plan.num_devices != world.size:
        raise MismatchError(
            need=f"{plan.num_devices} ranks: {plan.groups_in_words}",
            got=f"{world.size} ranks",
            hint=f"start it with torchrun --nproc-per-node {plan.num_devices}",
        )
    deployment = Deployed(
        program=captured,
        plan=plan,
        program_digest=captured.digest,
        plan_digest=pipeline_digest(plan),
        seed=workload.seed,
    )
    require_agreement(world, "program", deployment.program_digest)
    require_agreement(world, "plan", deployment.plan_digest)
    source = state_of_workload(workload)
    step = PipelineStep(deployment, plan, world, source, compiled=compile is not None)
    if compile is not None:
        step.compile(compile, tell)
    return step


class PipelineStep:
    """A training step as a pipeline, on this rank: `loss = step(batch)`.

    Attributes:
        deployment: what it was made from.
        plan: the decision.
        world: the ranks it runs on.
        place: where this rank stands in its group, on the grid of the group's first stage.
        number: how many steps have been done.
        built_whole: why this rank built the whole first state and not its part; empty if it
            did not.
    """

    def __init__(
        self,
        deployment: Deployed,
        plan: PipelinePlan,
        world: World,
        source: StateSource,
        *,
        compiled: bool,
    ) -> None:
        self._compiled = compiled
        self.deployment = deployment
        self.plan = plan
        self.world = world
        self.number = 0
        self._program = deployment.program
        staged = StagedProgram(self._program, plan.micro_batches, plan.cut)
        self._group = plan.group_of(world.rank)
        self._devices = grid_devices(world, plan)
        own = plan.stages_of(self._group)
        first = plan.ranks_of(self._group).start
        self._places = {
            number: place_in(world, mesh, self._devices.get(mesh), first)
            for number in own
            for mesh in (plan.plans[number].mesh,)
        }
        self.place = self._places[self._group]
        self._clock = Clock()
        self._post = Post(plan, staged, world.rank, world.device)
        segments = {number: staged.segments(number, plan.plans[number]) for number in own}
        replaced = Counter(n for found in segments.values() for n, _ in found.local.updates)
        shared = frozenset(name for name, count in replaced.items() if count > 1)
        self._stages = {
            number: StageRun(
                staged.stages[number],
                plan.plans[number],
                segments[number],
                self._places[number],
                self._clock,
                compiled=compiled,
                shared=shared,
            )
            for number in own
        }
        self._own_inputs = {number: inputs_of_each(run) for number, run in self._stages.items()}
        self._layouts = {
            source.name: Layout(source.sharding, self._places[number])
            for number, run in self._stages.items()
            for source in run.segments.local.inputs
            if run.stage.program.input_by_name[source.name].role.is_persistent
        }
        self._state, self.built_whole = own_state(source, self._program, self._layouts)
        self._updated = tuple(replaced)
        self._boxes: dict[tuple[str, int], Box] = {}
        self._outbox: dict[tuple[str, int], Tensor] = {}
        self._sending: list[dist.Work] = []
        self._busy_s = self._schedule_s = 0.0
        self._parts: list[dict[str, Tensor]] = []
        handlers = {number: self._handlers(run) for number, run in self._stages.items()}
        self._schedule = Schedule(
            plan.orders, self._group, plan.num_stages, plan.micro_batches, handlers
        )

    def compile(self, compiler: Compiler, tell: Tell) -> None:
        """Compile the parts of this rank's stages; all ranks do so before the first step.

        Args:
            compiler: who compiles them.
            tell: told on rank 0 what is being compiled.

        Raises:
            RunError: the compiler failed on this rank, or another rank failed meanwhile.
        """
        compile_stages(self._stages, self.world, compiler, tell)

    def __call__(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Do one step.

        Args:
            batch: the global batch by key.

        Returns:
            The loss of the whole batch, the same on every rank [scalar].

        Raises:
            InputError: an entry is missing, is no dense tensor, or has another type than the
                captured one.
        """
        self._clock.waited_s = 0.0
        with torch.no_grad():
            self._parts = self._split(require_batch(batch, self.number))
            for run in self._stages.values():
                run.begin(self._held(run))
            # From here on only the stages hold what they replace, and can free it.
            for name in self._updated:
                self._state.pop(name, None)
            self._once(Part.SETUP)
            self._survey()
            self._once(Part.SETTLE)
            self._busy_s, start = 0.0, time.perf_counter()
            self._schedule.run()
            self._schedule_s = time.perf_counter() - start
            # What was sent before the schedule may be a parameter, which the update writes over.
            self._end_sending()
            self._once(Part.FINISH)
            self._end_sending()
            loss = self._whole_loss()
            for run in self._stages.values():
                self._state.update(run.next_values())
        self.number += 1
        return loss

    @property
    def waited(self) -> float | None:
        """Share of the last step's schedule in which this rank did nothing [0 to 1].

        On a GPU it is the host that is timed, which runs ahead of the device.
        """
        return 1.0 - self._busy_s / self._schedule_s if self._schedule_s > 0 else 0.0

    @property
    def exposed_s(self) -> float | None:
        """Time of the last step in which this rank only waited for communication [s].

        That is for collectives, and for what stages send each other once a step. Waits for
        micro-batches are not among it: they are what `waited` counts. What is compiled waits
        for its collectives out of sight, so there is no such figure for it.
        """
        return None if self._compiled else self._clock.waited_s

    def state(self) -> dict[str, Tensor]:
        """Parameters, buffers and optimizer state of this group's stages by name, as DTensors.

        They share memory with the step's own parts until the next call. What all stages update
        alike, such as the optimizer's step counter, is the same in each.
        """
        if not self._devices:
            return dict(self._state)
        return {
            name: DTensor.from_local(
                local,
                self._devices[layout.place.mesh],
                dtensor_placements(layout.sharding),
                run_check=False,
            )
            for name, local in self._state.items()
            for layout in (self._layouts[name],)
        }

    def stored(self) -> dict[str, Tensor]:
        """As `state`, in the model's shapes, for checkpoints to write and to read into."""
        return {
            name: storable(tensor, self._program, name, layout.sharding, layout.place)
            for name, tensor in self.state().items()
            for layout in (self._layouts[name],)
        }

    def full_state(self) -> dict[str, Tensor]:
        """The whole state by name, gathered on every rank: for tests and small models."""
        own = {name: (self._own_box(name), tensor.cpu()) for name, tensor in self._state.items()}
        whole: dict[str, Tensor] = {}
        for source in self._program.inputs:
            if source.role.is_persistent:
                whole[source.name] = torch.empty(self._held_shape(source.name))
        for held in gather_objects(self.world, own):
            for name, (box, tensor) in held.items():
                if whole[name].dtype != tensor.dtype:
                    whole[name] = whole[name].to(tensor.dtype)
                whole[name][tuple(slice(start, end) for start, end in box)] = tensor
        inputs = self._program.input_by_name
        return {
            name: tensor.view(self._program.model_type(inputs[name]).shape)
            for name, tensor in whole.items()
        }

    # --- state and batch ------------------------------------------------------------------

    def _held_shape(self, name: str) -> tuple[int, ...]:
        """Shape of a whole tensor as the program holds it."""
        return self._program.nodes[self._program.input_by_name[name].node].outputs[0].shape

    def _own_box(self, name: str) -> tuple[tuple[int, int], ...]:
        """Start and end, along each dim of the whole tensor, of this rank's part of it."""
        layout = self._layouts[name]
        place = layout.place
        return part_box(place.mesh, layout.sharding, place.coordinate, self._held_shape(name))

    def _held(self, run: StageRun) -> dict[int, Tensor]:
        """What the whole step reads, by slot."""
        device, held = self.world.device, dict[int, Tensor]()
        for source in run.segments.local.inputs:
            given = run.stage.program.input_by_name[source.name]
            if given.role.is_persistent:
                held[source.slot] = self._state[source.name]
            elif given.role is Role.SEED:
                seed = step_seed(self.deployment.seed, self.number)
                held[source.slot] = torch.tensor(seed, dtype=torch.int64, device=device)
            elif given.role is Role.BATCH and not run.segments.local.slots[source.slot].shape:
                held[source.slot] = self._parts[0][source.name].to(device)
        return held

    def _split(self, batch: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """The batch by micro-batch, whole on every rank."""
        count = self.plan.micro_batches
        parts: list[dict[str, Tensor]] = [{} for _ in range(count)]
        for source in self._program.inputs:
            if source.role is not Role.BATCH:
                continue
            whole = self._program.nodes[source.node].outputs[0]
            tensor = entry(batch, source.name.removeprefix(_BATCH), whole)
            pieces = tensor.chunk(count) if tensor.dim() else [tensor] * count
            for part, piece in zip(parts, pieces, strict=True):
                part[source.name] = piece
        return parts

    def _inputs_of(self, run: StageRun, micro_batch: int) -> dict[int, Tensor]:
        """This rank's share of a micro-batch, by slot."""
        found: dict[int, Tensor] = {}
        place = self._places[run.stage.number]
        for source, role in self._own_inputs[run.stage.number]:
            if role is Role.MICRO_BATCH:
                found[source.slot] = torch.tensor(micro_batch, device=self.world.device)
                continue
            part = shard_of(
                self._parts[micro_batch][source.name],
                place.mesh,
                source.sharding,
                place.coordinate,
            )
            found[source.slot] = part.to(self.world.device).contiguous()
        return found

    # --- what runs once -------------------------------------------------------------------

    def _survey(self) -> None:
        for run in self._stages.values():
            if not run.segments.sums[Part.SURVEY]:
                continue
            for micro_batch in range(self.plan.micro_batches):
                run.give(self._inputs_of(run, micro_batch), micro_batch)
                run.repeat(Part.SURVEY, micro_batch)

    def _once(self, part: Part) -> None:
        """Run a part that runs once, with what crosses between stages meanwhile."""
        if part is not Part.SETTLE:
            events = sorted(
                {
                    (parcel.number, sending, number)
                    for number, run in self._stages.items()
                    for sending, parcels in ((0, run.stage.sends), (1, run.stage.receives))
                    for parcel in parcels
                    if parcel.once and (parcel.phase is Phase.UPDATE) == (part is Part.FINISH)
                }
            )
            parcels = {
                parcel.number: parcel
                for run in self._stages.values()
                for parcel in (*run.stage.sends, *run.stage.receives)
            }
            for number, receiving, stage in events:
                self._cross(part, parcels[number], self._stages[stage], receiving=bool(receiving))
        for run in self._stages.values():
            run.complete(part)

    def _cross(self, part: Part, parcel: Parcel, run: StageRun, *, receiving: bool) -> None:
        if not receiving:
            run.before_sending(part, parcel)
            tensor = run.sent(parcel, None)
            if self._post.stays(parcel):
                self._move_within(parcel, tensor, None)
                return
            self._start(self._post.sends(parcel, tensor, _ONCE))
        elif not self._post.stays(parcel):
            operations, box = self._post.receives(parcel, _ONCE)
            with self._clock.waiting():
                for operation in operations:
                    _started(operation).wait()
            run.take_up(parcel, box.opened(), None)

    def _move_within(self, parcel: Parcel, tensor: Tensor, micro_batch: int | None) -> None:
        """Give another stage of the same group what this one sends, as that wants it to lie.

        All ranks of the group come here together, so what they lack they wait for at once.
        """
        number = _ONCE if micro_batch is None else micro_batch
        operations, box = self._post.receives(parcel, number, tensor)
        operations += self._post.sends(parcel, tensor, number)
        if operations:
            # As one: two ranks that send to each other would else wait for each other on GPUs.
            with self._clock.waiting():
                for work in dist.batch_isend_irecv(operations):
                    work.wait()
        self._stages[parcel.target].take_up(parcel, box.opened(), micro_batch)

    def _start(self, operations: list[dist.P2POp]) -> None:
        self._sending += [_started(operation) for operation in operations]

    def _end_sending(self) -> None:
        """Wait until others have what was sent to them once a step."""
        with self._clock.waiting():
            for work in self._sending:
                work.wait()
        self._sending.clear()

    def _whole_loss(self) -> Tensor:
        """The sum of the stages' losses; each is whole on every device of its group."""
        loss = sum((run.loss() for run in self._stages.values()), torch.zeros(()))
        if self.world.rank != self.plan.ranks_of(self._group).start:
            loss = torch.zeros_like(loss)
        if not self.world.is_alone:
            with self._clock.waiting():
                dist.all_reduce(loss)
        return cast("Tensor", loss)

    # --- what the schedule asks for -------------------------------------------------------

    def _handlers(self, run: StageRun) -> Handlers:
        def inputs(micro_batch: int) -> None:
            self._open(run, Phase.BACKWARD, micro_batch)
            self._timed(run, Part.INPUTS, micro_batch)
            self._hand_over(run, Phase.BACKWARD, micro_batch)

        def forward(micro_batch: int) -> None:
            run.give(self._inputs_of(run, micro_batch), micro_batch)
            self._open(run, Phase.FORWARD, micro_batch)
            self._timed(run, Part.FORWARD, micro_batch)
            self._hand_over(run, Phase.FORWARD, micro_batch)

        return {
            "send_forward": lambda number: self._send(run, Phase.FORWARD, number),
            "receive_forward": lambda number: self._receive(run, Phase.FORWARD, number),
            "send_backward": lambda number: self._send(run, Phase.BACKWARD, number),
            "receive_backward": lambda number: self._receive(run, Phase.BACKWARD, number),
            "forward": forward,
            "inputs": inputs,
            "weights": lambda number: self._timed(run, Part.WEIGHTS, number),
        }

    def _timed(self, run: StageRun, part: Part, micro_batch: int) -> None:
        start = time.perf_counter()
        run.repeat(part, micro_batch)
        self._busy_s += time.perf_counter() - start

    def _send(self, run: StageRun, phase: Phase, micro_batch: int) -> list[dist.P2POp]:
        return [
            operation
            for parcel in _each(run.stage.sends, phase)
            for operation in self._post.sends(
                parcel, self._outbox.pop((parcel.name, micro_batch)), micro_batch
            )
        ]

    def _receive(self, run: StageRun, phase: Phase, micro_batch: int) -> list[dist.P2POp]:
        operations: list[dist.P2POp] = []
        for parcel in _each(run.stage.receives, phase):
            more, box = self._post.receives(parcel, micro_batch)
            self._boxes[parcel.name, micro_batch] = box
            operations += more
        return operations

    def _open(self, run: StageRun, phase: Phase, micro_batch: int) -> None:
        """Take up what has arrived for a micro-batch."""
        for parcel in _each(run.stage.receives, phase):
            box = self._boxes.pop((parcel.name, micro_batch), None)
            if box is not None:
                run.take_up(parcel, box.opened(), micro_batch)

    def _hand_over(self, run: StageRun, phase: Phase, micro_batch: int) -> None:
        """Put aside what is to be sent; a stage of the same group takes it up at once."""
        for parcel in _each(run.stage.sends, phase):
            tensor = run.sent(parcel, micro_batch)
            if self._post.stays(parcel):
                self._move_within(parcel, tensor, micro_batch)
            else:
                self._outbox[parcel.name, micro_batch] = tensor


def _each(parcels: tuple[Parcel, ...], phase: Phase) -> list[Parcel]:
    """Those that cross in a phase for each micro-batch."""
    return [parcel for parcel in parcels if parcel.phase is phase and not parcel.once]


def _started(operation: dist.P2POp) -> dist.Work:
    peer = {"dst": operation.peer} if operation.op is dist.isend else {"src": operation.peer}
    work = operation.op(operation.tensor, tag=operation.tag, **peer)
    assert work is not None
    return work
