"""How much of the batch each of unlike devices should have.

A device that has w parts of the batch computes for a + b w seconds: a for what does not depend on
the batch, such as the update. Both are found by pricing what the device executes at two sizes. The
parts are given out so that the last device is through as early as can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import gcd, prod

from weft.core.errors import InputError
from weft.cost.fusion import program_traffic
from weft.machine.meeting import device_of
from weft.machine.model import Device, Machine
from weft.parallel.candidate import unpriced
from weft.parallel.copies import Decision, copies_for
from weft.parallel.degrees import Degrees
from weft.parallel.estimate import DeviceClass, computing_s, slowest_device
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level
from weft.parallel.propagate import AxisRules, combine, grid
from weft.parallel.reshard import Resharding
from weft.parallel.rows import batch_rows
from weft.parallel.schemes import Schemes
from weft.parallel.spmd import lower_expanded
from weft.parallel.way_prices import cheapest
from weft.parallel.wide import Ways
from weft.program.graph import Program

__all__ = [
    "MOST_UNITS",
    "Pace",
    "Proportions",
    "paces",
    "shared_out",
    "units_of",
]

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
    inside = machine.num_devices // places
    priced = _Priced(program, machine, axes)
    found: list[Pace] = []
    for place in range(places):
        ranks = range(place * inside, (place + 1) * inside)
        devices = [device_of(machine, rank) for rank in ranks]
        found.append(priced.pace(_slowest(devices, machine)))
    return tuple(found)


class Proportions:
    """Data parallel in proportion to speed; what devices take is priced once.

    Args:
        program: one training step.
        machine: where it runs; if its devices are alike, there is nothing to share out.
        schemes: of the program.
    """

    def __init__(self, program: Program, machine: Machine, schemes: Schemes) -> None:
        self._program = program
        self._machine = machine
        self._schemes = schemes
        self._units = units_of(batch_rows(program))
        self._paces: dict[tuple[int, frozenset[int] | None], tuple[Pace, ...]] = {}

    def degrees(self) -> tuple[Degrees, ...]:
        """In proportion over all devices, alone and with tensor parallel inside nodes."""
        machine = self._machine
        if machine.is_uniform:
            return ()
        node = min(group.devices_per_node for group in machine.groups)
        found: list[Degrees] = []
        for tensor in (n for n in TENSOR if n <= node and machine.num_devices % n == 0):
            for wide in (False, True) if tensor > 1 else (False,):
                found += self._degrees(machine.num_devices // tensor, tensor, wide=wide)
        return tuple(found)

    def _degrees(self, places: int, tensor: int, *, wide: bool) -> list[Degrees]:
        """In proportion over some places, if that is not even."""
        rows = batch_rows(self._program)
        rows //= tensor if wide and rows % tensor == 0 else 1
        units = units_of(rows) if rows else 0
        if not 1 < places <= units:
            return []
        chosen: dict[int, Ways] = {}
        if wide:
            mesh = Mesh.uneven((places, tensor), tuple(range(1, places + 1)))
            chosen = cheapest(self._schemes.runs, self._machine, mesh)
        try:
            axes, _ = self._schemes.axes(Degrees(dp=units, tp=tensor, wide=wide), wide=chosen)
        except InputError:
            return []  # products do not divide so
        given = shared_out(self._paces_along(axes, frozenset(chosen) if wide else None), units)
        common = gcd(*given)
        if len(set(given)) == 1:
            return []
        shares = tuple(share // common for share in given)
        stages = (1, 3) if wide else (0,)
        return [Degrees(dp=places, tp=tensor, shares=shares, wide=wide, zero=z) for z in stages]

    def layouts_of_some(self) -> tuple[tuple[int, ...], ...]:
        """Shares of the batch that leave out groups of nodes, those that bring least first.

        Groups are left out in order of their speed together, and in order of their way to the
        network.
        """
        machine, units = self._machine, self._units
        if machine.is_uniform:
            return ()
        axes, _ = self._schemes.axes(Degrees(dp=units))
        pace = self._paces_along(axes)
        ends = list(accumulate((g.num_devices for g in machine.groups), initial=0))
        ranks = [range(first, end) for first, end in pairwise(ends)]
        numbers = range(len(ranks))
        speed = [sum(1.0 / pace[rank].unit_s for rank in own) for own in ranks]
        way = [machine.network_of(group).bytes_per_s.value for group in machine.groups]
        found: dict[tuple[int, ...], None] = {}
        for order in (
            sorted(numbers, key=lambda n: -speed[n]),
            sorted(numbers, key=lambda n: (-way[n], -speed[n])),
        ):
            for count in range(1, len(order)):
                kept = sorted(rank for n in order[:count] for rank in ranks[n])[:units]
                shares = shared_out([pace[rank] for rank in kept], units)
                given = dict(zip(kept, shares, strict=True))
                found[tuple(given.get(rank, 0) for rank in range(machine.num_devices))] = None
        return tuple(found)

    def _paces_along(
        self, axes: Sequence[AxisRules], wide: frozenset[int] | None = None
    ) -> tuple[Pace, ...]:
        """The pace of each place along the first of some axes, over the others of which it lies.

        Args:
            axes: of a mesh.
            wide: parameters that are cut along the second one, which shares out the batch too;
                None where all are cut, and it does not.
        """
        inside = prod(axis.size for axis in axes[1:])
        if (inside, wide) not in self._paces:
            places = self._machine.num_devices // inside
            self._paces[inside, wide] = paces(self._program, self._machine, axes, places)
        return self._paces[inside, wide]


TENSOR = (1, 2, 4, 8)
"""Ways that products are cut inside a place."""


def _slowest(devices: Sequence[Device], machine: Machine) -> Device:
    first = devices[0]
    if all(device is first for device in devices):
        return first
    groups = tuple(group for group in machine.groups if group.device in devices)
    return slowest_device(replace(machine, groups=groups))


class _Priced:
    """What devices take that have one part of the batch, and all of it but one."""

    def __init__(self, program: Program, machine: Machine, axes: Sequence[AxisRules]) -> None:
        self._program, self._machine = program, machine
        self._units = axes[0].size
        self._traffic = program_traffic(program)
        shares = (1, self._units - 1) if self._units > 2 else ()
        self._mesh = grid(
            (replace(axes[0], shares=shares, size=sum(shares) or self._units), *axes[1:])
        )
        decision = Decision(combine(axes), {})
        plan = unpriced(
            program,
            machine,
            self._mesh,
            decision.strategies,
            copies_for(program, decision, Resharding(machine, self._mesh)),
            memory_limit_bytes=0.0,
            recompute=(),
            level=Level.EXPERT,
        )
        self._local = lower_expanded(program, plan)
        self._known: list[tuple[Device, Pace]] = []

    def pace(self, device: Device) -> Pace:
        """The pace of a kind of device."""
        known = next((own for kind, own in self._known if kind is device), None)
        if known is None:
            known = self._pace(device)
            self._known.append((device, known))
        return known

    def _pace(self, device: Device) -> Pace:
        few_s = self._seconds(device, 0)
        if self._units == 2:
            return Pace(0.0, few_s)
        unit_s = (self._seconds(device, 1) - few_s) / (self._units - 2)
        return Pace(max(few_s - unit_s, 0.0), max(unit_s, LEAST_S))

    def _seconds(self, device: Device, position: int) -> float:
        coordinate = (position, *(0,) * (self._mesh.num_axes - 1))
        one = DeviceClass(coordinate=coordinate, device=device)
        return computing_s(self._local, self._program, self._machine, one, self._traffic)


LEAST_S = 1e-12
"""Time of a part of the batch where none is priced: below any clock's [s]."""


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
