"""The fusion plan, as data: which tasks share a phase, and how threads share out each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from weft.core.errors import InputError
from weft.core.files import parsed

__all__ = ["FusionPlan", "PlannedPhase"]

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPhase:
    """A phase of a kernel.

    Attributes:
        tasks: numbers of the tasks that are done in it.
        outer: axes that threads share out, each with its block, the slowest first.
        seconds: predicted [s].
        num_bytes: read and written, each place once [bytes].
    """

    tasks: tuple[int, ...]
    outer: tuple[tuple[int, int], ...]
    seconds: float
    num_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionPlan:
    """A decision how to compute a region.

    Attributes:
        region: digest of the region that it is for.
        planner: who decided, see `weft.fusion.stitch.PLANNERS`.
        threads: that share out the work; 1 where it is too little.
        streams: whether outputs are stored past the caches.
        phases: in order.
        seconds: predicted for all [s].
        bound_s: of reading every input and writing every output once [s].
        unfused_bytes: read and written if every operator was a kernel of its own [bytes].
        once_bytes: of all inputs and outputs [bytes].
        operators: number of operators that compute.
    """

    region: str
    planner: str
    threads: int
    streams: bool
    phases: tuple[PlannedPhase, ...]
    seconds: float
    bound_s: float
    unfused_bytes: float
    once_bytes: float
    operators: int

    @property
    def num_bytes(self) -> float:
        """Read and written by all phases [bytes]."""
        return sum(phase.num_bytes for phase in self.phases)

    def to_json(self) -> str:
        """The plan as one line of JSON."""
        return json.dumps({"weft": "fusion plan", "version": VERSION, **asdict(self)})

    @staticmethod
    def from_json(text: str) -> FusionPlan:
        """Inverse of `to_json`.

        Raises:
            InputError: the text is no fusion plan of this version.
        """
        hint = "plan the region again"
        return parsed(text, "fusion plan", VERSION, _plan, hint=hint, error=InputError)


def _plan(plain: dict[str, Any]) -> FusionPlan:
    phases = tuple(
        PlannedPhase(
            tasks=tuple(phase["tasks"]),
            outer=tuple((axis, block) for axis, block in phase["outer"]),
            seconds=float(phase["seconds"]),
            num_bytes=float(phase["num_bytes"]),
        )
        for phase in plain.pop("phases")
    )
    return FusionPlan(phases=phases, **plain)
