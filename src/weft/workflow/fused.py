"""A model's regions as plain data, for reports."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Fused", "FusedPhase", "FusedRegion"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedPhase:
    """A phase in words, with its predicted time [s] and the bytes that it moves."""

    shared_out: str
    nests: tuple[str, ...]
    seconds: float
    num_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedRegion:
    """A region of the model's graphs.

    Attributes:
        operators: what computes in it, in order.
        phases: how it is computed.
        seconds, bound_s: predicted, and of reading and writing all once [s].
        num_bytes, unfused_bytes: moved, and if every operator was a kernel [bytes].
        plan: the fusion plan, as JSON.
        source: generated C++.
        left: why it is left to Inductor; empty if it is not.
    """

    operators: tuple[str, ...]
    phases: tuple[FusedPhase, ...]
    seconds: float
    bound_s: float
    num_bytes: float
    unfused_bytes: float
    plan: str
    source: str
    left: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """All regions of a model's forward and backward pass.

    Attributes:
        name: of the model.
        words: everything in words.
        regions: in order.
        graphs: of each graph, operators that stay with Inductor and numbers of regions.
    """

    name: str
    words: str
    regions: tuple[FusedRegion, ...]
    graphs: tuple[tuple[str | int, ...], ...]

    @property
    def num_bytes(self) -> float:
        """Moved by all regions [bytes]."""
        return sum(region.num_bytes for region in self.regions)

    @property
    def unfused_bytes(self) -> float:
        """Moved if every operator was a kernel [bytes]."""
        return sum(region.unfused_bytes for region in self.regions)
