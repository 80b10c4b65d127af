"""What the back end makes of a function, as plain data: regions, their plans and their code."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from weft.core.units import format_bytes, format_seconds
from weft.fusion.plan import FusionPlan

__all__ = ["ExplainedPhase", "ExplainedRegion", "Explanation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedPhase:
    """A phase in words.

    Attributes:
        shared_out: what threads share out.
        nests: of each nest, its loops and what they make.
        seconds: predicted [s].
        num_bytes: read and written [bytes].
    """

    shared_out: str
    nests: tuple[str, ...]
    seconds: float
    num_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedRegion:
    """A region, its plan and its code.

    Attributes:
        operators: what computes in it, in order.
        plan: how it is computed; none if it cannot be.
        phases: the plan in words.
        source: generated code, without the header.
        left: why it was left to Inductor; empty if it was not.
    """

    operators: tuple[str, ...]
    plan: FusionPlan | None
    phases: tuple[ExplainedPhase, ...] = ()
    source: str = ""
    left: str = ""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """All regions of all graphs of a function.

    Attributes:
        regions: in the order in which they were compiled.
        graphs: of each graph, names of operators that stay with Inductor, and numbers of regions
            where they begin.
        name: of the function, if it has one.
    """

    regions: tuple[ExplainedRegion, ...]
    graphs: tuple[tuple[str | int, ...], ...]
    name: str = ""

    @property
    def others(self) -> list[tuple[str, int]]:
        """Operators that stay with Inductor, with how often they occur."""
        names = (name for graph in self.graphs for name in graph if isinstance(name, str))
        return Counter(names).most_common()

    def __str__(self) -> str:
        lines = [
            f"{len(self.regions)} region{'s' * (len(self.regions) != 1)}; Inductor keeps "
            + (", ".join(f"{op} {count}" for op, count in self.others) or "nothing")
        ]
        for number, region in enumerate(self.regions):
            lines += _region_lines(number, region)
        return "\n".join(lines)


def _region_lines(number: int, region: ExplainedRegion) -> list[str]:
    plan = region.plan
    if plan is None:
        count = len(region.operators)
        plural = "s" * (count != 1)
        return [f"region {number}: {count} operator{plural} left to Inductor: {region.left}"]
    phases = f"{len(plan.phases)} phase{'s' * (len(plan.phases) != 1)}"
    took, bound = format_seconds(plan.seconds), format_seconds(plan.bound_s)
    moved, unfused = format_bytes(plan.num_bytes), format_bytes(plan.unfused_bytes)
    lines = [
        f"region {number}: {plan.operators} operators in {phases}, {took} predicted",
        f"  bound     {bound} to read and write all once",
        f"  moves     {moved}; {unfused} if each operator was a kernel",
    ]
    if region.left:
        lines.append(f"  left      to Inductor: {region.left}")
    for at, phase in enumerate(region.phases):
        lines.append(f"  phase {at}   {phase.shared_out}, {format_seconds(phase.seconds)}")
        lines += [f"            {nest}" for nest in phase.nests]
    return lines
