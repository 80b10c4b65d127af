"""What plans take, timed on this machine beside Inductor's own kernels for the same operators.

    chosen = fastest(candidate, host, folder)

The plans that the search ends with are compiled together and take turns with what Inductor makes
of the region's nodes, on inputs that lie in memory as the region's do. The one with the shortest
run is kept in the folder with all times, so a second process decides without timing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch._guards
from torch import Tensor, fx
from torch._inductor import config
from torch._inductor.compile_fx import compile_fx_inner
from torch._subclasses.fake_tensor import unset_fake_temporarily

from weft.capture.dtypes import to_torch_dtype
from weft.core.units import format_seconds
from weft.fusion.compile import build, put
from weft.fusion.cost import Host
from weft.fusion.emit.cpp import emit
from weft.fusion.kernel import Kernel, describe, read_kernel
from weft.fusion.lower import lower
from weft.fusion.partition import Candidate
from weft.fusion.stitch import ranked, scheduled
from weft.fusion.surroundings import is_computed_again
from weft.program.types import DType

__all__ = ["INDUCTOR", "by_inductor", "fastest", "like", "slower_than_inductor"]

INDUCTOR = "Inductor"
MOST_PLANS = 4
"""Plans that are timed. Derived: those of the beam and the best of one thread."""
ROUNDS = 7
"""How often each is timed at least; the shortest run counts, so other processes disturb little."""
PATIENCE_S = 0.4
"""How long all of them are timed [s]."""


def fastest(candidate: Candidate, host: Host, folder: Path) -> Kernel:
    """The plan that takes least, with what was measured in its description.

    Args:
        candidate: nodes of a graph, and the region that they are.
        host: what it runs on.
        folder: where libraries and results are kept.
    """
    region = candidate.region
    kept = folder / f"region_{region.digest}_{host.threads}_measured.json"
    if kept.exists():
        return read_kernel(kept)
    points = lower(region)
    plans = ranked(region, points, host)[:MOST_PLANS]
    sources = [
        emit(scheduled(points, plan), f"region_{region.digest}_{number}")
        for number, plan in enumerate(plans)
    ]
    library = build(sources, folder)
    described = [
        describe(region, points, plan, source, library)
        for plan, source in zip(plans, sources, strict=True)
    ]
    with unset_fake_temporarily(), torch.no_grad():
        inputs = [
            like(layout.shape, layout.strides, layout.dtype, candidate.device)
            for layout in described[0].inputs
        ]
        kernels = [Kernel(one, folder) for one in described]
        calls: dict[str, Callable[[], object]] = {
            f"plan {number}": lambda kernel=kernel: kernel(inputs)
            for number, kernel in enumerate(kernels)
        }
        compiled = by_inductor(candidate, inputs)
        calls[INDUCTOR] = lambda: compiled(list(inputs))
        seconds = _shortest(calls)
    best = min(range(len(plans)), key=lambda number: seconds[f"plan {number}"])
    chosen = replace(described[best], measured=seconds)
    put(kept, json.dumps(asdict(chosen)))
    return Kernel(chosen, folder)


def slower_than_inductor(measured: Mapping[str, float], call_s: float) -> str:
    """By how much Inductor's kernels were measured to be faster; empty if they were not.

    Args:
        measured: what plans and Inductor took [s].
        call_s: what it takes to call a plan's kernel from Inductor's code [s].
    """
    own = {name: seconds for name, seconds in measured.items() if name != INDUCTOR}
    inductor_s = measured.get(INDUCTOR, float("inf"))
    if not own:
        return ""
    own_s = min(own.values()) + call_s
    if own_s <= inductor_s:
        return ""
    return f"measured: {format_seconds(own_s)}, by Inductor {format_seconds(inductor_s)}"


def like(shape: Sequence[int], strides: Sequence[int], dtype: str, device: torch.device) -> Tensor:
    """A tensor that lies like this: small random numbers; zeros where they might be indices."""
    # Filled as memory: where strides are 0, elements lie on one another.
    last = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    made = torch.zeros(max(last + 1, 0), dtype=to_torch_dtype(DType(dtype)), device=device)
    if made.is_floating_point():
        made.uniform_(0.5, 1.5)
    return made.as_strided(shape, strides)


def by_inductor(candidate: Candidate, inputs: Sequence[Tensor]) -> Callable[[list[Tensor]], Any]:
    """What Inductor makes of a region's nodes alone, but for results that it would not write."""
    written = [node for node in candidate.outputs if not is_computed_again(node)]
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in candidate.inputs:
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = dict(node.meta)
    for node in candidate.nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in written or candidate.outputs))
    with ExitStack() as stack:
        stack.enter_context(torch._guards.tracing(None))
        stack.enter_context(config.patch(post_grad_custom_pre_pass=None))
        compiled: Any = compile_fx_inner(fx.GraphModule({}, graph), list(inputs))
    return compiled


def _shortest(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The shortest run of each, in turns [s]."""
    found = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    begun, rounds = time.perf_counter(), 0
    while rounds < ROUNDS or time.perf_counter() - begun < PATIENCE_S:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            found[name] = min(found[name], time.perf_counter() - start)
        rounds += 1
    return found
