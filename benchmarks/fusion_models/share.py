"""Which share of a step is not matrix products, convolutions and attention."""

from __future__ import annotations

import time
from collections.abc import Callable

from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

__all__ = ["memory_bound_share"]

HEAVY = (
    *("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::convolution"),
    *("aten::mkldnn_convolution", "aten::convolution_backward", "mkldnn::", "mkl::"),
    *("aten::_scaled_dot_product", "aten::scaled_dot_product"),
)
"""Beginnings of the names of operators that are bound by arithmetic."""
STEPS = 3


def memory_bound_share(call: Callable[[], object]) -> float:
    """Share of a call's time that is outside of operators bound by arithmetic, the least of three.

    What Python and torch need between operators is part of it.
    """
    return min(_once(call) for _ in range(STEPS))


def _once(call: Callable[[], object]) -> float:
    with profile(activities=[ProfilerActivity.CPU]) as found:
        begun = time.perf_counter()
        call()
        taken_us = (time.perf_counter() - begun) * 1e6
    heavy_us = sum(event.cpu_time_total for event in found.events() or () if _is_outermost(event))
    return max(0.0, 1.0 - heavy_us / taken_us)


def _is_heavy(event: FunctionEvent) -> bool:
    return event.name.startswith(HEAVY)


def _is_outermost(event: FunctionEvent) -> bool:
    """Whether an operator is heavy and in no other that is."""
    if not _is_heavy(event):
        return False
    around = event.cpu_parent
    while around is not None:
        if _is_heavy(around):
            return False
        around = around.cpu_parent
    return True
