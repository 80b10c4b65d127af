"""`weft.fusion.explain`: what the back end makes of a function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch._dynamo import config as dynamo
from torch._functorch import config as functorch
from torch._inductor import config
from torch.utils._pytree import tree_leaves

from weft.fusion.backend import Observed, compile_graph, folder
from weft.fusion.calibrate import calibrated
from weft.fusion.emit.cpp import emit
from weft.fusion.explained import NO_OPTIONS, ExplainedPhase, ExplainedRegion, Explanation
from weft.fusion.lower import lower
from weft.fusion.plan import FusionPlan
from weft.fusion.region import Region
from weft.fusion.schedule import Schedule
from weft.fusion.stitch import planned, scheduled

__all__ = ["explain"]

MOST_COMPILED = 1000
"""Versions of a function that breaks into several graphs; one more with each explanation."""


def explain(
    function: Callable[..., object],
    *args: object,
    options: Mapping[str, object] = NO_OPTIONS,
    **kwargs: object,
) -> Explanation:
    """What `torch.compile(function, backend="weft")` does, once it is called.

    The function runs once on the arguments, and the backward pass of all tensors that it returns.
    Gradients and the state of random numbers are as before; what else the function changes, such as
    the means of a batch norm, changes.

    Args:
        function: a function or module; what a model's loss computes counts if it is in it.
        *args: what it is called with; shapes, strides and element types count.
        options: as those of `torch.compile`, such as `{"measure": True}`.
        **kwargs: what it is called with by name.

    Example:
        >>> found = explain(lambda x: torch.relu(x * 2 + 1).sum(-1), torch.ones(64, 100))
        >>> [region.operators for region in found.regions]
        [('mul.Scalar', 'add.Scalar', 'relu.default', 'sum')]
    """
    seen: list[Observed] = []

    def observed(module: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        return compile_graph(module, inputs, observer=seen.append, options=dict(options))

    # Code of its own, for which nothing has been compiled: what has been for the function stays.
    called = FunctionType(_called.__code__.replace(), _called.__globals__)
    with (
        config.patch(fx_graph_cache=False),
        functorch.patch(enable_autograd_cache=False),
        dynamo.patch(recompile_limit=MOST_COMPILED),
        torch.random.fork_rng(),
    ):
        compiled = torch.compile(called, backend=observed, dynamic=False)
        _differentiate(compiled(function, args, kwargs))
    graphs: list[tuple[str | int, ...]] = []
    regions: list[ExplainedRegion] = []
    for one in seen:
        if one.region is None:
            graphs.append(tuple(n if isinstance(n, str) else n + len(regions) for n in one.order))
        else:
            regions.append(explain_region(one.region, one.left, one.inductor_s))
    return Explanation(regions=tuple(regions), graphs=tuple(graphs))


def _called(
    function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
) -> object:
    return function(*args, **kwargs)


def _differentiate(result: object) -> None:
    """Run the backward pass of whatever tensors came out, and keep no gradient of it."""
    wanted = [tensor for tensor in _tensors(result) if tensor.requires_grad]
    leaves = _leaves(wanted)
    if leaves:
        ones = [torch.ones_like(tensor) for tensor in wanted]
        torch.autograd.grad(wanted, leaves, ones, allow_unused=True)


def _tensors(result: object) -> list[Tensor]:
    """Tensors in whatever a function returns, attributes of plain objects included."""
    found: list[Tensor] = []
    for leaf in tree_leaves(result):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif isinstance(leaf, Mapping):
            found += _tensors(list(leaf.values()))
        elif is_dataclass(leaf):
            found += _tensors([getattr(leaf, one.name) for one in fields(leaf)])
    return found


def _leaves(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors whose gradients a backward pass from these would add up."""
    stack: list[Any] = [tensor.grad_fn for tensor in tensors]
    found = [tensor for tensor in tensors if tensor.grad_fn is None]
    seen: set[Any] = set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        stack += [after for after, _ in node.next_functions]
    return found


def explain_region(
    region: Region, left: str = "", inductor_s: float | None = None
) -> ExplainedRegion:
    """A region in words.

    Args:
        region: what to compute.
        left: why it is left to Inductor, if it is.
        inductor_s: what Inductor was predicted to take, if anybody asked [s].
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
        inductor_s=inductor_s,
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
