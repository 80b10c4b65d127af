"""What a local program costs: its instructions priced and run through the simulator.

The same instructions, in the same order, are what the runtime executes. Views own no memory:
they keep their operand's alive. The next value of a state takes the place of the old one.

On a machine with unlike devices, or where devices have unlike parts, one device of each class is
priced, and they are simulated together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from weft.core.provenance import Quantity
from weft.cost.collective import collective_seconds
from weft.cost.fusion import Paid, program_traffic
from weft.cost.roofline import operator_seconds
from weft.cost.simulate import ABSENT, Task, simulate, simulate_together
from weft.cost.timeline import Stream, Timeline
from weft.machine.meeting import device_of, meeting
from weft.machine.model import Device, Machine
from weft.machine.topology import Group, axis_group, nodes_of, with_nodes_of
from weft.parallel.local import (
    Collective,
    CollectiveKind,
    Instruction,
    LocalProgram,
    Run,
    communicates,
)
from weft.parallel.messages import messages_s
from weft.parallel.placement import Mesh
from weft.parallel.plan import Prediction
from weft.parallel.prefetch import is_view, slots_read, slots_written
from weft.parallel.reshard import SLICE_S
from weft.parallel.specialize import resized
from weft.parallel.transfer import line_shape, moved
from weft.program.graph import Program
from weft.program.types import TensorType

__all__ = [
    "DeviceClass",
    "computing_s",
    "device_classes",
    "estimate",
    "priced_tasks",
    "slowest_device",
]


def estimate(
    local: LocalProgram,
    program: Program,
    machine: Machine,
    traffic: Sequence[Paid] | None = None,
) -> tuple[Timeline, Prediction]:
    """Simulated step of one device, and its summary.

    Args:
        local: what each rank executes.
        program: the program with the plan's recomputation applied, for labels.
        machine: where it runs.
        traffic: what each node of the program pays for, if the caller knows it.

    Returns:
        The timeline, and a prediction without objective and bound. Of unlike devices they are
        those of the one with least room left.
    """
    paid = program_traffic(program) if traffic is None else traffic
    classes = device_classes(local.homes or (local.mesh,), machine)
    if len(classes) == 1:
        tasks = _Pricing(local, program, machine, paid, slowest_device(machine)).tasks()
        resident = _resident_bytes(local)
        timeline = simulate(tasks, overlap=machine.overlap.value, resident_bytes=resident)
        return timeline, _prediction(timeline, resident)
    found = _of_classes(local, program, machine, paid, classes)
    tightest = max(
        range(len(classes)),
        key=lambda n: (
            found[n][0].peak_bytes / classes[n].device.memory_bytes.value,
            found[n][0].busy_s(Stream.COMPUTE),
        ),
    )
    timeline, resident = found[tightest]
    limit = classes[tightest].device.memory_bytes.value
    return replace(timeline, capacity_bytes=limit), _prediction(timeline, resident)


def _resident_bytes(local: LocalProgram) -> float:
    return float(sum(local.slots[i.slot].num_bytes for i in local.inputs))


def _prediction(timeline: Timeline, resident_bytes: float) -> Prediction:
    return Prediction(
        step_s=timeline.step_s,
        compute_s=timeline.busy_s(Stream.COMPUTE),
        communication_s=timeline.busy_s(Stream.COMMUNICATION),
        exposed_s=timeline.exposed_s,
        peak_bytes=timeline.peak_bytes,
        state_bytes=resident_bytes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClass:
    """Devices that do the same work at the same speed.

    Attributes:
        coordinate: where the first of them stands.
        device: what they are.
    """

    coordinate: tuple[int, ...]
    device: Device


def device_classes(homes: Sequence[Mesh], machine: Machine) -> tuple[DeviceClass, ...]:
    """The classes of devices of a plan, in order of their first ranks.

    Args:
        homes: meshes of the plan.
        machine: where it runs.
    """
    mesh = homes[0]
    if machine.is_uniform and all(home.is_even for home in homes):
        device = machine.groups[0].device
        return (DeviceClass(coordinate=(0,) * mesh.num_axes, device=device),)
    found: dict[object, DeviceClass] = {}
    for rank in range(mesh.num_devices):
        coordinate, device = mesh.coordinate(rank), device_of(machine, rank)
        have = tuple(None if h.is_even else h.shares[0][coordinate[0]] for h in homes)
        key = (id(device), have)
        found.setdefault(key, DeviceClass(coordinate=coordinate, device=device))
    return tuple(found.values())


def _of_classes(
    local: LocalProgram,
    program: Program,
    machine: Machine,
    paid: Sequence[Paid],
    classes: Sequence[DeviceClass],
) -> list[tuple[Timeline, float]]:
    """Of each class its timeline and what it holds throughout [bytes]."""
    every = (True,) * len(local.instructions)
    tasks: list[list[Task | None]] = []
    residents: list[float] = []
    for one in classes:
        own, present = (local, every) if local.is_even else resized(local, one.coordinate)
        pricing = _Pricing(own, program, machine, paid, one.device, one.coordinate, present)
        priced = zip(pricing.tasks(), present, strict=True)
        tasks.append([task if is_here else None for task, is_here in priced])
        residents.append(_resident_bytes(own))
    meets = [communicates(i) for i in local.instructions]
    timelines = simulate_together(
        tasks, meets, overlap=machine.overlap.value, resident_bytes=residents
    )
    return list(zip(timelines, residents, strict=True))


def computing_s(
    local: LocalProgram,
    program: Program,
    machine: Machine,
    one: DeviceClass,
    traffic: Sequence[Paid],
) -> float:
    """How long a device of a class computes [s].

    Args:
        local: of all ranks, of an uneven plan or of an even one.
        program: its program.
        machine: where it runs.
        one: the device and where it stands.
        traffic: what each node of the program pays for.
    """
    present: Sequence[bool] = ()
    if not local.is_even:
        local, present = resized(local, one.coordinate)
    pricing = _Pricing(local, program, machine, traffic, one.device, one.coordinate, present)
    return sum(task.seconds for task in pricing.tasks() if task.stream is Stream.COMPUTE)


def priced_tasks(
    local: LocalProgram, program: Program, machine: Machine, traffic: Sequence[Paid]
) -> list[Task]:
    """The instructions of a local program as tasks for the simulator, in their order.

    Args:
        local: what each rank executes.
        program: its program.
        machine: where it runs.
        traffic: what each node of the program pays for.
    """
    return _Pricing(local, program, machine, traffic, slowest_device(machine)).tasks()


def slowest_device(machine: Machine) -> Device:
    """The device that the others wait for.

    Of an uneven machine it has the worst figure of all kinds of device, element type by element
    type: each step of a plan that treats devices alike ends when the slowest has done it.
    """
    devices = [group.device for group in machine.groups]
    slowest = min(devices, key=lambda device: device.memory_bytes_per_s.value)
    if machine.is_uniform:
        return slowest

    def worst(figure: Callable[[Device], Quantity]) -> Quantity:
        return min(map(figure, devices), key=lambda quantity: quantity.value)

    rates = {
        dtype: min(found, key=lambda quantity: quantity.value)
        for dtype in slowest.matmul_flops_per_s
        if len(found := _rates(devices, dtype)) == len(devices)
    }
    return replace(
        slowest,
        matmul_flops_per_s=rates or slowest.matmul_flops_per_s,
        vector_flops_per_s=worst(lambda device: device.vector_flops_per_s),
        memory_bytes=worst(lambda device: device.memory_bytes),
        launch_s=max((device.launch_s for device in devices), key=lambda q: q.value),
    )


def _rates(devices: Sequence[Device], dtype: str) -> list[Quantity]:
    rates = [device.matmul_flops_per_s.get(dtype) for device in devices]
    return [rate for rate in rates if rate is not None]


@dataclass(frozen=True, slots=True)
class _Storage:
    """Which slots share memory, and which instruction made it (-1: an input)."""

    owner: tuple[int, ...]
    maker: tuple[int, ...]


class _Pricing:
    """Turns instructions into tasks; equal instructions are priced once.

    Of unlike devices, one at a time: those instructions alone count in which it has a part.
    """

    def __init__(
        self,
        local: LocalProgram,
        program: Program,
        machine: Machine,
        paid: Sequence[Paid],
        device: Device,
        coordinate: tuple[int, ...] | None = None,
        present: Sequence[bool] = (),
    ) -> None:
        self._local = local
        self._program = program
        self._machine = machine
        self._device = device
        self._coordinate = coordinate or local.mesh.largest
        self._present = present
        self._paid = paid
        self._groups: dict[tuple[int, int], Group] = {}
        self._known: dict[object, float] = {}
        self._storage = _storage(local, present)
        self._messages = self._message_bytes()

    def tasks(self) -> list[Task]:
        local, storage = self._local, self._storage
        in_place = {slot for _, slot in local.updates}
        frees = self._frees()
        result: list[Task] = []
        for number, instruction in enumerate(local.instructions):
            if self._present and not self._present[number]:
                result.append(ABSENT)
                continue
            written = slots_written(instruction)
            allocates = sum(
                local.slots[slot].num_bytes
                for slot in written
                if storage.owner[slot] == slot and slot not in in_place and self._holds(slot)
            )
            reads = slots_read(instruction)
            depends = {storage.maker[slot] for slot in reads} - {-1}
            result.append(
                Task(
                    label=self._label(instruction),
                    kind=_kind(instruction),
                    phase=instruction.phase.value,
                    node=instruction.node,
                    stream=_stream(instruction),
                    seconds=self._seconds(instruction, reads),
                    depends=tuple(sorted(depends)),
                    allocates_bytes=float(allocates),
                    frees=tuple(frees.get(number, ())),
                )
            )
        return result

    def _holds(self, slot: int) -> bool:
        """True if the device has a part of what is in a slot."""
        local = self._local
        return local.is_even or local.homes[local.lies[slot].home].has(self._coordinate)

    def _frees(self) -> dict[int, list[int]]:
        """For each instruction, the instructions whose outputs it is the last to need."""
        local, storage = self._local, self._storage
        last: dict[int, int] = {}
        for slot, used in enumerate(local.last_use):
            maker = storage.maker[storage.owner[slot]]
            last[maker] = max(last.get(maker, -1), used, storage.maker[slot])
        frees: dict[int, list[int]] = {}
        for maker, used in last.items():
            if maker >= 0 and used < len(local.instructions):
                frees.setdefault(used, []).append(maker)
        return frees

    def _seconds(self, instruction: Instruction, slots: Sequence[int]) -> float:
        reads = tuple([self._local.slots[slot] for slot in slots])
        if isinstance(instruction, Collective):
            message = self._messages.get(instruction.bundle, 0.0)
            key: object = (instruction.kind, instruction.axis, reads[0].num_bytes, message)
        else:
            kind = self._program.kinds[instruction.node]
            key = (kind, instruction.strategy, self._paid[instruction.node])
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._price(instruction, reads)
        return found

    def _price(self, instruction: Instruction, reads: tuple[TensorType, ...]) -> float:
        if isinstance(instruction, Run):
            writes = tuple(self._local.slots[slot] for slot in instruction.outputs)
            paid = self._paid[instruction.node]
            return operator_seconds(
                instruction.op, instruction.args, reads, writes, self._device, paid
            )
        if instruction.kind is CollectiveKind.SLICE:
            return SLICE_S
        if instruction.kind is CollectiveKind.MOVE:
            return self._moving_s(instruction)
        payload = self._payload_bytes(instruction)
        message = self._messages.get(instruction.bundle, payload)
        group = self._group(instruction.home, instruction.axis)
        if group.num_devices == 1 or not message:
            return 0.0
        return collective_seconds(instruction.kind.value, message, group) * payload / message

    def _group(self, home: int, axis: int) -> Group:
        """Who meets along an axis."""
        found = self._groups.get((home, axis))
        if found is None:
            mesh, machine = self._local.mesh_of(home), self._machine
            members = mesh.members(axis)
            if len(members) < mesh.shape[axis]:
                found = meeting(machine, [self._rank(position) for position in members])
            else:
                busy = range(mesh.members(0)[0], mesh.members(0)[-1] + 1)  # others are idle
                ranks = range(busy.start * mesh.stride(0), busy.stop * mesh.stride(0))
                own = with_nodes_of(machine, nodes_of(machine, ranks))
                found = axis_group(own, (len(busy), *mesh.shape[1:]), axis)
            self._groups[home, axis] = found
        return found

    def _rank(self, position: int) -> int:
        """The rank that stands at a position of the first axis beside this device."""
        mesh = self._local.mesh
        inner = zip(self._coordinate[1:], range(1, mesh.num_axes), strict=True)
        return position * mesh.stride(0) + sum(at * mesh.stride(axis) for at, axis in inner)

    def _moving_s(self, move: Collective) -> float:
        """How long it takes until all of a tensor is where it is wanted [s]."""
        local = self._local
        held, wanted = local.lies[move.source], local.lies[move.target]
        source, target = (
            (local.homes[lies.home].along(0), lies.sharding[0]) for lies in (held, wanted)
        )
        shape = line_shape(held.whole.shape, held.sharding, local.mesh, axis=0)
        sent = moved(shape, source, target)
        item = held.whole.dtype.num_bytes
        return messages_s(
            [(self._rank(p.source), self._rank(p.target), p.num_elements * item) for p in sent],
            self._machine,
        )

    def _payload_bytes(self, collective: Collective) -> float:
        """The tensor whole along the axis [bytes]."""
        payload = float(self._local.slots[collective.source].num_bytes)
        if collective.source_dim < 0:
            return payload
        mesh, axis = self._local.mesh_of(collective.home), collective.axis
        start, end = mesh.span(axis, self._coordinate[axis])
        return payload * mesh.units(axis) / max(end - start, 1)

    def _message_bytes(self) -> dict[int, float]:
        """Payload of each message of several collectives; each of them takes its share of time."""
        found: dict[int, float] = {}
        for number, instruction in enumerate(self._local.instructions):
            if self._present and not self._present[number]:
                continue
            if isinstance(instruction, Collective) and instruction.bundle >= 0:
                own = self._payload_bytes(instruction)
                found[instruction.bundle] = found.get(instruction.bundle, 0.0) + own
        return found

    def _label(self, instruction: Instruction) -> str:
        scope = self._program.nodes[instruction.node].scope
        return f"{_kind(instruction)} {scope}".rstrip()


def _kind(instruction: Instruction) -> str:
    return instruction.op if isinstance(instruction, Run) else instruction.kind.value


def _stream(instruction: Instruction) -> Stream:
    return Stream.COMMUNICATION if communicates(instruction) else Stream.COMPUTE


def _storage(local: LocalProgram, present: Sequence[bool]) -> _Storage:
    owner = list(range(len(local.slots)))
    maker = [-1] * len(local.slots)
    for number, instruction in enumerate(local.instructions):
        if present and not present[number]:
            continue
        for slot in slots_written(instruction):
            maker[slot] = number
        if is_view(instruction):
            owner[slots_written(instruction)[0]] = owner[slots_read(instruction)[0]]
    return _Storage(tuple(owner), tuple(maker))
