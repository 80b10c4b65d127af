"""What a local program costs: its instructions priced and run through the simulator.

The same instructions, in the same order, are what the runtime executes. Views own no memory:
they keep their operand's alive. The next value of a state takes the place of the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from weft.core.provenance import Quantity
from weft.cost.collective import collective_seconds
from weft.cost.fusion import Paid, program_traffic
from weft.cost.roofline import operator_seconds
from weft.cost.simulate import Task, simulate
from weft.cost.timeline import Stream, Timeline
from weft.machine.model import Device, Machine
from weft.machine.topology import Group, axis_group
from weft.parallel.local import Collective, CollectiveKind, Instruction, LocalProgram, Run
from weft.parallel.plan import Prediction
from weft.parallel.prefetch import is_view, slots_read, slots_written
from weft.parallel.reshard import SLICE_S
from weft.program.graph import Program
from weft.program.types import TensorType

__all__ = ["estimate", "priced_tasks", "slowest_device"]


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
        machine: where it runs; of an uneven machine the slowest device counts.
        traffic: what each node of the program pays for, if the caller knows it.

    Returns:
        The timeline, and a prediction without objective and bound.
    """
    paid = program_traffic(program) if traffic is None else traffic
    tasks = _Pricing(local, program, machine, paid).tasks()
    resident = sum(local.slots[i.slot].num_bytes for i in local.inputs)
    timeline = simulate(tasks, overlap=machine.overlap.value, resident_bytes=float(resident))
    prediction = Prediction(
        step_s=timeline.step_s,
        compute_s=timeline.busy_s(Stream.COMPUTE),
        communication_s=timeline.busy_s(Stream.COMMUNICATION),
        exposed_s=timeline.exposed_s,
        peak_bytes=timeline.peak_bytes,
        state_bytes=float(resident),
    )
    return timeline, prediction


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
    return _Pricing(local, program, machine, traffic).tasks()


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
    """Turns instructions into tasks; equal instructions are priced once."""

    def __init__(
        self, local: LocalProgram, program: Program, machine: Machine, paid: Sequence[Paid]
    ) -> None:
        self._local = local
        self._program = program
        self._device = slowest_device(machine)
        self._groups: tuple[Group, ...] = tuple(
            axis_group(machine, local.mesh.shape, axis) for axis in range(local.mesh.num_axes)
        )
        self._paid = paid
        self._known: dict[object, float] = {}
        self._storage = _storage(local)
        self._messages = self._message_bytes()

    def tasks(self) -> list[Task]:
        local, storage = self._local, self._storage
        in_place = {slot for _, slot in local.updates}
        frees = self._frees()
        result: list[Task] = []
        for number, instruction in enumerate(local.instructions):
            written = slots_written(instruction)
            allocates = sum(
                local.slots[slot].num_bytes
                for slot in written
                if storage.owner[slot] == slot and slot not in in_place
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
        payload = self._payload_bytes(instruction)
        message = self._messages.get(instruction.bundle, payload)
        group = self._groups[instruction.axis]
        return collective_seconds(instruction.kind.value, message, group) * payload / message

    def _payload_bytes(self, collective: Collective) -> float:
        """The tensor whole along the axis [bytes]."""
        payload = float(self._local.slots[collective.source].num_bytes)
        return payload * (
            self._local.mesh.shape[collective.axis] if collective.source_dim >= 0 else 1
        )

    def _message_bytes(self) -> dict[int, float]:
        """Payload of each message of several collectives; each of them takes its share of time."""
        found: dict[int, float] = {}
        for instruction in self._local.instructions:
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
    communicates = (
        isinstance(instruction, Collective) and instruction.kind is not CollectiveKind.SLICE
    )
    return Stream.COMMUNICATION if communicates else Stream.COMPUTE


def _storage(local: LocalProgram) -> _Storage:
    owner = list(range(len(local.slots)))
    maker = [-1] * len(local.slots)
    for number, instruction in enumerate(local.instructions):
        for slot in slots_written(instruction):
            maker[slot] = number
        if is_view(instruction):
            owner[slots_written(instruction)[0]] = owner[slots_read(instruction)[0]]
    return _Storage(tuple(owner), tuple(maker))
