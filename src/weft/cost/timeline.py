"""Timelines: what the simulator returns and reports draw.

A device has two streams, one for computation and one for communication. An event occupies
one stream for a while. Memory is a step function of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Event", "MemoryPoint", "Stream", "Timeline"]


class Stream(Enum):
    """Which queue of a device an event occupies."""

    COMPUTE = "compute"
    COMMUNICATION = "communication"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that occupies a stream from `start_s` for `duration_s`.

    `kind` is the operator or collective, `phase` is forward, backward or update, `node` is the
    program's node (-1 if none), and `label` is for people.
    """

    stream: Stream
    kind: str
    label: str
    phase: str
    node: int
    start_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class MemoryPoint:
    """From `time_s` on, `num_bytes` are in use."""

    time_s: float
    num_bytes: float


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """One simulated step of one device.

    Attributes:
        events: in order of start.
        memory: in order of time.
        step_s: when both streams are free for good [s].
        exposed_s: time in which communication keeps the computation from running [s]; with the
            computation's own time it makes up the step.
        capacity_bytes: memory of the device, where others have less or more; else 0 [bytes].
    """

    events: tuple[Event, ...]
    memory: tuple[MemoryPoint, ...]
    step_s: float
    exposed_s: float
    capacity_bytes: float = 0.0

    @property
    def peak_bytes(self) -> float:
        """Most memory in use at any time [bytes]."""
        return max((point.num_bytes for point in self.memory), default=0.0)

    def busy_s(self, stream: Stream) -> float:
        """Total time that a stream is occupied [s]."""
        return sum(e.duration_s for e in self.events if e.stream is stream)
