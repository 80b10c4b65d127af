"""What the back end makes of a function, as plain data: regions, their plans and their code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from weft.core.units import format_bytes, format_seconds
from weft.fusion.plan import FusionPlan

__all__ = ["NO_OPTIONS", "ExplainedPhase", "ExplainedRegion", "Explanation"]

NO_OPTIONS: Mapping[str, object] = MappingProxyType({})
"""Of `torch.compile`."""


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
        inductor_s: what Inductor was predicted to take; None where nobody asked [s].
    """

    operators: tuple[str, ...]
    plan: FusionPlan | None
    phases: tuple[ExplainedPhase, ...] = ()
    source: str = ""
    left: str = ""
    inductor_s: float | None = None


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

    @property
    def taken(self) -> list[ExplainedRegion]:
        """Regions that are kernels of weft's."""
        return [region for region in self.regions if not region.left]

    @property
    def sentence(self) -> str:
        """What becomes of the operators, in short."""
        taken = self.taken
        if not taken:
            return "No kernel of weft's gains anything here: Inductor compiles it all."
        plans = [region.plan for region in taken if region.plan is not None]
        operators = sum(len(region.operators) for region in taken)
        unfused = sum(plan.unfused_bytes for plan in plans)
        saved = 1.0 - sum(plan.num_bytes for plan in plans) / unfused if unfused else 0.0
        return (
            f"{operators} memory-bound operators become {len(taken)} "
            f"kernel{'s' * (len(taken) != 1)}, which move {saved:.0%} fewer bytes."
        )

    @property
    def alike(self) -> list[tuple[int, ...]]:
        """Numbers of regions that are the same, in order of the first of each kind."""
        kinds: dict[object, list[int]] = {}
        for number, region in enumerate(self.regions):
            key = (region.operators, region.phases, region.left, region.inductor_s)
            kinds.setdefault(key, []).append(number)
        return [tuple(numbers) for numbers in kinds.values()]

    def __str__(self) -> str:
        lines = [
            f"{len(self.regions)} region{'s' * (len(self.regions) != 1)}; Inductor keeps "
            + (", ".join(f"{op} {count}" for op, count in self.others) or "nothing")
        ]
        for numbers in self.alike:
            lines += _region_lines(numbers, self.regions[numbers[0]])
        lines.append(self.sentence)
        return "\n".join(lines)


def _region_lines(numbers: Sequence[int], region: ExplainedRegion) -> list[str]:
    plan = region.plan
    name = f"region{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
    if plan is None:
        count = len(region.operators)
        plural = "s" * (count != 1)
        return [f"{name}: {count} operator{plural} left to Inductor: {region.left}"]
    phases = f"{len(plan.phases)} phase{'s' * (len(plan.phases) != 1)}"
    took, bound = format_seconds(plan.seconds), format_seconds(plan.bound_s)
    moved, unfused = format_bytes(plan.num_bytes), format_bytes(plan.unfused_bytes)
    rival = "" if region.inductor_s is None else f"; Inductor {format_seconds(region.inductor_s)}"
    lines = [
        f"{name}: {plan.operators} operators in {phases}, {took} predicted{rival}",
        f"  bound     {bound} to read and write all once",
        f"  moves     {moved}; {unfused} if each operator was a kernel",
    ]
    if region.left:
        lines.append(f"  left      to Inductor: {region.left}")
    for at, phase in enumerate(region.phases):
        lines.append(f"  phase {at}   {phase.shared_out}, {format_seconds(phase.seconds)}")
        lines += [f"            {nest}" for nest in phase.nests]
    return lines
