"""How much of the batch each of unlike devices should have.

A device that has w parts of the batch computes for a + b w seconds: a for what does not depend on
the batch, such as the update. Both are found by pricing what the device executes at two sizes. The
parts are given out so that the last device is through as early as can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from weft.cost.fusion import program_traffic
from weft.machine.meeting import device_of
from weft.machine.model import Device, Machine
from weft.parallel.candidate import unpriced
from weft.parallel.copies import Decision, copies_for
from weft.parallel.estimate import DeviceClass, computing_s, slowest_device
from weft.parallel.plan import Level
from weft.parallel.propagate import AxisRules, combine, grid
from weft.parallel.reshard import Resharding
from weft.parallel.spmd import lower_expanded
from weft.program.graph import Program

__all__ = ["MOST_UNITS", "Pace", "paces", "shared_out", "units_of"]

MOST_UNITS = 64
"""Parts that a batch is given out in. Derived: with one of 64 more or less, the slowest of four
devices is a sixteenth of its work from the best."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a device takes: `fixed_s + unit_s * units` [s]."""

    fixed_s: float
    unit_s: float

    def seconds(self, units: int) -> float:
        """Time for so many parts of the batch [s]."""
        return self.fixed_s + self.unit_s * units


def units_of(rows: int) -> int:
    """Into how many equal parts a batch of so many rows is cut to be given out.

    Example:
        >>> units_of(48), units_of(256), units_of(7)
        (48, 64, 7)
    """
    return max(n for n in range(1, min(rows, MOST_UNITS) + 1) if rows % n == 0)


def paces(
    program: Program, machine: Machine, axes: Sequence[AxisRules], places: int
) -> tuple[Pace, ...]:
    """The pace of each place along the first axis.

    Args:
        program: one training step.
        machine: where it runs.
        axes: rules of a mesh whose first axis has a device for each part of the batch.
        places: along the first axis, each of as many neighbouring ranks as the other axes have
            devices.
    """
    units, inside = axes[0].size, machine.num_devices // places
    known: dict[int, Pace] = {}
    found: list[Pace] = []
    for place in range(places):
        ranks = range(place * inside, (place + 1) * inside)
        device = _slowest([device_of(machine, rank) for rank in ranks], machine)
        if id(device) not in known:
            known[id(device)] = _pace(program, machine, axes, units, device)
        found.append(known[id(device)])
    return tuple(found)


def _slowest(devices: Sequence[Device], machine: Machine) -> Device:
    first = devices[0]
    if all(device is first for device in devices):
        return first
    groups = tuple(group for group in machine.groups if group.device in devices)
    return slowest_device(replace(machine, groups=groups))


def _pace(
    program: Program, machine: Machine, axes: Sequence[AxisRules], units: int, device: Device
) -> Pace:
    """Priced with one part of the batch, and with all of it but one."""
    traffic = program_traffic(program)
    shared = (replace(axes[0], shares=(1, units - 1)), *axes[1:])
    if units == 2:
        shared = (replace(axes[0], shares=()), *axes[1:])
    mesh = grid(shared)
    decision = Decision(combine(shared), {})
    copies = copies_for(program, decision, Resharding(machine, mesh))
    plan = unpriced(
        program,
        machine,
        mesh,
        decision.strategies,
        copies,
        memory_limit_bytes=0.0,
        recompute=(),
        level=Level.EXPERT,
    )
    local = lower_expanded(program, plan)
    few, many = (
        computing_s(
            local,
            program,
            machine,
            DeviceClass(coordinate=(at, *(0,) * (mesh.num_axes - 1)), device=device),
            traffic,
        )
        for at in (0, 1)
    )
    unit_s = (many - few) / (units - 2) if units > 2 else few / 2
    return Pace(max(few - unit_s, 0.0), max(unit_s, 1e-12))


def shared_out(paces: Sequence[Pace], units: int) -> tuple[int, ...]:
    """Parts for each place, at least one, such that the last is through as early as can be.

    Args:
        paces: of each place.
        units: parts to give out, at least as many as there are places.

    Example:
        >>> shared_out([Pace(0.0, 1.0), Pace(0.0, 1.0), Pace(0.0, 2.0)], 10)
        (4, 4, 2)
    """
    given = [1] * len(paces)
    for _ in range(units - len(paces)):
        place = min(range(len(paces)), key=lambda k: (paces[k].seconds(given[k] + 1), k))
        given[place] += 1
    return tuple(given)
