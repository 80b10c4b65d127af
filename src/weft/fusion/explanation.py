"""What the back end makes of a function: its regions, their plans and their code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._functorch import config as functorch
from torch._inductor import config

from weft.core.units import format_bytes, format_seconds
from weft.fusion.backend import Observed, compile_graph, folder
from weft.fusion.calibrate import calibrated
from weft.fusion.emit.cpp import emit
from weft.fusion.lower import lower
from weft.fusion.plan import FusionPlan
from weft.fusion.region import Region
from weft.fusion.schedule import Schedule
from weft.fusion.stitch import planned, scheduled

__all__ = ["ExplainedPhase", "ExplainedRegion", "Explanation", "explain"]


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
        plan: how it is computed.
        phases: the plan in words.
        source: generated C++, without the header.
        left: why it was left to Inductor; empty if it was not.
    """

    operators: tuple[str, ...]
    plan: FusionPlan
    phases: tuple[ExplainedPhase, ...]
    source: str
    left: str = ""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """All regions of all graphs of a function.

    Attributes:
        regions: in the order in which they were compiled.
        graphs: of each graph, names of operators that stay with Inductor, and numbers of regions
            where they begin.
    """

    regions: tuple[ExplainedRegion, ...]
    graphs: tuple[tuple[str | int, ...], ...]

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


def explain(function: Callable[..., object], *args: object, **kwargs: object) -> Explanation:
    """What `torch.compile(function, backend="weft")` does, once it is called.

    The function runs once on the arguments, and its backward pass if it has one.

    Args:
        function: a function or module.
        *args: what it is called with; shapes, strides and element types count.
        **kwargs: the same, by name.

    Example:
        >>> found = explain(lambda x: torch.relu(x * 2 + 1).sum(-1), torch.ones(64, 100))
        >>> [region.operators for region in found.regions]
        [('mul.Scalar', 'add.Scalar', 'relu.default', 'sum')]
    """
    seen: list[Observed] = []

    def observed(module: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        return compile_graph(module, inputs, observer=seen.append)

    torch._dynamo.reset()
    with config.patch(fx_graph_cache=False), functorch.patch(enable_autograd_cache=False):
        result = torch.compile(function, backend=observed, dynamic=False)(*args, **kwargs)
        _backward(result)
    torch._dynamo.reset()
    graphs: list[tuple[str | int, ...]] = []
    regions: list[ExplainedRegion] = []
    for one in seen:
        if one.region is None:
            graphs.append(tuple(n if isinstance(n, str) else n + len(regions) for n in one.order))
        else:
            regions.append(explain_region(one.region, one.left))
    return Explanation(regions=tuple(regions), graphs=tuple(graphs))


def _backward(result: object) -> None:
    """Run the backward pass of whatever tensors came out, if they have one."""
    tensors = result if isinstance(result, list | tuple) else [result]
    wanted = [t for t in tensors if isinstance(t, Tensor) and t.requires_grad]
    if wanted:
        torch.autograd.backward(wanted, [torch.ones_like(t) for t in wanted])


def explain_region(region: Region, left: str = "") -> ExplainedRegion:
    """A region in words.

    Args:
        region: what to compute.
        left: why it is left to Inductor, if it is.
    """
    points = lower(region)
    plan = planned(region, points, calibrated(torch.get_num_threads(), folder()))
    schedule = scheduled(points, plan)
    views = {"input", "view", "permute", "expand"}
    return ExplainedRegion(
        operators=tuple(n.op for n in region.program.nodes if n.op not in views),
        plan=plan,
        phases=tuple(
            _explained_phase(schedule, plan, number) for number in range(len(plan.phases))
        ),
        source=emit(schedule, f"region_{region.digest}").text,
        left=left,
    )


def _explained_phase(schedule: Schedule, plan: FusionPlan, number: int) -> ExplainedPhase:
    phase, own = schedule.phases[number], plan.phases[number]
    sizes = schedule.points.sizes
    shared = " x ".join(
        f"{sizes[outer.axis]:,}" + (f" in {outer.block}s" if outer.block > 1 else "")
        for outer in phase.outer
    )
    threads = f"{plan.threads} thread{'s' * (plan.threads > 1)}"
    nests: list[str] = []
    for nest in phase.nests:
        loops = " x ".join(f"{sizes[axis]:,}" for axis in nest.axes) or "one number each"
        made = Counter(schedule.points.points[n].op for n in nest.points)
        if nest.stores:
            made["store"] = len(nest.stores)
        what = ", ".join(f"{op} {count}" if count > 1 else op for op, count in made.items())
        nests.append(f"{loops}: {what}")
    return ExplainedPhase(
        shared_out=f"{shared or 'nothing'} over {threads}",
        nests=tuple(nests),
        seconds=own.seconds,
        num_bytes=own.num_bytes,
    )
