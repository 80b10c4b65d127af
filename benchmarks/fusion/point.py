"""A graph of one size, as it was measured."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from benchmarks.fusion.contestants import CONTROL, INDUCTOR, PROBE, WEFT
from benchmarks.fusion.quiet import SHARE, Quiet
from benchmarks.fusion.timing import Times

__all__ = ["Point", "geometric_mean", "worst"]

ERROR_RATIO, ERROR_FLOOR = 4.0, 1e-5
"""What weft's error may be: so many times Inductor's, and this much in any case [relative]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A graph of one size.

    Attributes:
        graph, size: which.
        num_bytes: of its inputs and outputs, each once [bytes].
        times: of every contestant that could run.
        controls: Inductor over its control in each try; the times are those of the try where
            it was nearest to 1.
        errors: distance from double precision, by contestant [relative].
        compile_s: first calls, by contestant [s].
        kernels: how many kernels Inductor made, by contestant: for weft of what was left.
        quiet: how busy the machine was.
        notes: what weft's back end warned of.
        failure: why there is no result of weft, if there is none.
    """

    graph: str
    size: str
    num_bytes: int = 0
    times: Times = field(default_factory=lambda: Times(least_us={}, median_us={}, rounds=0))
    controls: tuple[float, ...] = ()
    errors: Mapping[str, float] = field(default_factory=dict[str, float])
    compile_s: Mapping[str, float] = field(default_factory=dict[str, float])
    kernels: Mapping[str, int] = field(default_factory=dict[str, int])
    quiet: Quiet | None = None
    notes: tuple[str, ...] = ()
    failure: str = ""

    @property
    def speedup(self) -> float:
        """Inductor's time over weft's; 0 if weft failed."""
        return 0.0 if self.failure else self.times.ratio(INDUCTOR, WEFT)

    @property
    def median_speedup(self) -> float:
        """The same of medians."""
        median_us = self.times.median_us
        return 0.0 if self.failure else median_us[INDUCTOR] / median_us[WEFT]

    @property
    def over_probe(self) -> float:
        """Weft's time over that of the memory traffic alone; infinite if weft failed."""
        return math.inf if self.failure else self.times.ratio(WEFT, PROBE)

    @property
    def control(self) -> float:
        """Inductor against itself; NaN if it was not measured."""
        return self.times.ratio(INDUCTOR, CONTROL) if CONTROL in self.times.least_us else math.nan

    @property
    def disturbed(self) -> bool:
        """Whether others kept a processor from it: a figure that says little."""
        return self.quiet is not None and self.quiet.share < SHARE

    @property
    def error_share(self) -> float:
        """Weft's error over what it may be."""
        allowed = max(ERROR_RATIO * self.errors[INDUCTOR], ERROR_FLOOR)
        return self.errors[WEFT] / allowed

    def fact(self) -> dict[str, object]:
        """What belongs into the result, as JSON values."""
        probe_us = self.times.least_us.get(PROBE)
        return {
            "graph": self.graph,
            "size": self.size,
            "MB": self.num_bytes / 1e6,
            "us": self.times.least_us,
            "median_us": self.times.median_us,
            "rounds": self.times.rounds,
            "controls": self.controls,
            "probe_GB_per_s": self.num_bytes / probe_us / 1e3 if probe_us else None,
            "errors": {n: e if math.isfinite(e) else str(e) for n, e in self.errors.items()},
            "compile_s": self.compile_s,
            "Inductor_kernels": self.kernels,
            "quiet": asdict(self.quiet) if self.quiet else None,
            **({"notes": self.notes} if self.notes else {}),
            **({"failure": self.failure} if self.failure else {}),
        }

    def line(self) -> str:
        """For people who wait."""
        name = f"{self.graph} {self.size}"
        us = ", ".join(f"{n} {t:,.0f}" for n, t in self.times.least_us.items())
        if self.failure:
            why = textwrap.shorten(self.failure, 300)
            return f"{name}: FAILED: {why} ({us or 'no times'})"
        probe = f"weft over probe {self.over_probe:.2f}, " if PROBE in self.times.least_us else ""
        return (
            f"{name}: {us} us; Inductor over weft {self.speedup:.3f}, {probe}"
            f"control {self.control:.3f}"
        )

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Point:
        """What `to_json` wrote."""
        raw = json.loads(text)
        raw["times"] = Times(**raw["times"])
        raw["quiet"] = raw["quiet"] and Quiet(**raw["quiet"])
        return cls(**{**raw, "controls": tuple(raw["controls"]), "notes": tuple(raw["notes"])})


def geometric_mean(values: Iterable[float]) -> float:
    """The root of the product; 0 if one of them is, NaN of none.

    Example:
        >>> geometric_mean([1.0, 4.0]), geometric_mean([0.0, 4.0])
        (2.0, 0.0)
    """
    found = list(values)
    if not found:
        return math.nan
    return 0.0 if 0.0 in found else math.exp(math.fsum(map(math.log, found)) / len(found))


def worst(values: Iterable[float]) -> float:
    """The largest; NaN if one is, which `max` alone would hide, and NaN of none.

    Example:
        >>> worst([1.0, 2.0]), worst([1.0, math.nan])
        (2.0, nan)
    """
    return max(values, key=lambda value: (math.isnan(value), value), default=math.nan)
