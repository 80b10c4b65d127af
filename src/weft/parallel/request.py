"""What is asked of a planner."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from weft.core.errors import InputError
from weft.core.units import format_bytes
from weft.machine.model import Machine
from weft.parallel.degrees import Degrees
from weft.parallel.pinning import Pinning, resolve
from weft.parallel.pins import Pin
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level
from weft.parallel.proportions import Proportions
from weft.parallel.schemes import Schemes
from weft.program.graph import Program

__all__ = ["PlanRequest"]


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What is asked of a planner.

    Attributes:
        program: one training step.
        machine: what it runs on.
        level: how hard to look.
        memory_limit_bytes: limit of one device; the device's own memory if 0 [bytes].
        mesh: plan on this mesh only, in one stage.
        max_stages: 1 for plans of one stage only, 0 for as many as pay.
        time_limit_s: stop looking for better plans after this time [s].
        pins: what the plan has to keep to, beside the program's own pins.

    Raises:
        InputError: the mesh has more devices, or the limit is more memory, than the machine has; or
            a pin names nothing.
    """

    program: Program
    machine: Machine
    level: Level = Level.FAST
    memory_limit_bytes: float = 0.0
    mesh: Mesh | None = None
    max_stages: int = 0
    time_limit_s: float = float("inf")
    pins: tuple[Pin, ...] = ()

    def __post_init__(self) -> None:
        if self.mesh is not None and self.mesh.num_devices > self.machine.num_devices:
            raise InputError(
                need=f"a mesh of at most {self.machine.num_devices} devices",
                got=f"mesh {self.mesh}",
                hint=f"{self.machine.name} has no more; choose a larger machine",
            )
        if not self.time_limit_s >= 0:
            raise InputError(
                need="a time limit of at least 0 seconds",
                got=f"{self.time_limit_s}",
                hint="leave the limit out to look as long as it takes",
            )
        if self.max_stages not in (0, 1):
            raise InputError(
                need="1 for plans of one stage, or 0 for as many stages as pay",
                got=f"max_stages={self.max_stages}",
                hint="write a pipeline with so many stages by hand: weft score --pp",
            )
        if not 0 <= self.memory_limit_bytes <= self._own_bytes:
            raise InputError(
                need=f"a memory limit of at most {self._own_bytes:.0f} bytes "
                f"({format_bytes(self._own_bytes)}), which the smallest device of "
                f"{self.machine.name} has",
                got=f"{self.memory_limit_bytes:.17g} bytes",
                hint="leave the limit out to use all that a device has",
            )
        _ = self.pinning

    @cached_property
    def pinning(self) -> Pinning:
        """What the pins name in the program."""
        return resolve(self.program, self.pins)

    @cached_property
    def proportions(self) -> Proportions:
        """How the batch is shared out over unlike devices."""
        return Proportions(self.program, self.machine, Schemes(self.program))

    @cached_property
    def in_proportion(self) -> tuple[Degrees, ...]:
        """Data parallel in proportion to speed, if devices are unlike."""
        return () if self.machine.is_uniform else self.proportions.degrees()

    @property
    def limit_bytes(self) -> float:
        """Memory that a plan may use on each device [bytes]."""
        return self.memory_limit_bytes or self._own_bytes

    @property
    def _own_bytes(self) -> float:
        return min(group.device.memory_bytes.value for group in self.machine.groups)
