"""`weft.fusion.explain`: what the back end makes of a function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor
from torch._functorch import config as functorch
from torch._inductor import config

from weft.fusion.backend import Observed, compile_graph, folder
from weft.fusion.calibrate import calibrated
from weft.fusion.emit.cpp import emit
from weft.fusion.explained import ExplainedPhase, ExplainedRegion, Explanation
from weft.fusion.lower import lower
from weft.fusion.plan import FusionPlan
from weft.fusion.region import Region
from weft.fusion.schedule import Schedule
from weft.fusion.stitch import planned, scheduled

__all__ = ["explain"]


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
    views = {"input", "view", "permute", "expand"}
    operators = tuple(n.op for n in region.program.nodes if n.op not in views)
    try:
        points = lower(region)
        plan = planned(region, points, calibrated(torch.get_num_threads(), folder()))
        schedule = scheduled(points, plan)
    except Exception:  # as where it was compiled, which said why
        if not left:
            raise
        return ExplainedRegion(operators=operators, plan=None, left=left)
    return ExplainedRegion(
        operators=operators,
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
