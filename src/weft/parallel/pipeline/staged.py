"""A pipeline as a decision, before it is a plan, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from weft.parallel.degrees import Degrees
from weft.parallel.pipeline.again import Recompute

__all__ = ["Lies", "Shape", "Staged", "Staging"]

Lies: TypeAlias = tuple[tuple[int, int, int], ...]
"""On which nodes a block lies, as `weft.machine.topology.nodes_of` finds it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Groups of devices, and parts of the batch.

    Attributes:
        sizes: devices of each group, in the order of the pipeline.
        standing: of each group, on which block of ranks it stands.
        micro_batches: parts of the batch.
    """

    sizes: tuple[int, ...]
    standing: tuple[int, ...]
    micro_batches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A pipeline as a decision.

    Attributes:
        shape: groups and micro-batches.
        inside: how each group shares out a micro-batch.
        schedule: one of `weft.parallel.pipeline.schedule.SCHEDULES`.
        chunks: stages of each group.
        cuts: first piece of each stage but the first.
    """

    shape: Shape
    inside: tuple[Degrees, ...]
    schedule: str
    chunks: int
    cuts: tuple[int, ...]

    @property
    def num_stages(self) -> int:
        """Stages of all groups."""
        return len(self.shape.sizes) * self.chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """What a pipeline comes to.

    Attributes:
        staged: the decision.
        again: what each stage recomputes to fit.
        step_s: simulated [s].
        fits: whether there is room in all groups.
        excess: share of its limit that the tightest group needs, beyond 1 if it does not fit.
    """

    staged: Staged
    again: tuple[Recompute, ...]
    step_s: float
    fits: bool
    excess: float

    @property
    def repeats(self) -> bool:
        """Whether some stage runs operators again."""
        return any(own.lesser or own.more for own in self.again)

    @property
    def rank(self) -> tuple[bool, float]:
        """Order of preference: what fits by time, then what does not by what is missing."""
        return (not self.fits, self.step_s if self.fits else self.excess)
