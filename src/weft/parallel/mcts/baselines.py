"""What a search is compared with, on the same simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from weft.parallel.mcts.decision import Decision
from weft.parallel.mcts.options import Choice, Method, Options
from weft.parallel.mcts.simulate import Outcome, Simulator

__all__ = ["BASELINES", "HOROVOD_BYTES", "data_parallel", "greedy", "proportional"]

HOROVOD_BYTES = 2**26
"""Gradients up to this size travel together. Source: Horovod, HOROVOD_FUSION_THRESHOLD."""


def data_parallel(simulator: Simulator, options: Options) -> Decision:
    """Rows shared out evenly over all devices, gradients by all-reduce."""
    return options.resolved([options.baseline] * simulator.sketch.num_groups)


def proportional(simulator: Simulator, options: Options) -> Decision:
    """Rows shared out over all devices by their speed, gradients by all-reduce."""
    choice = Choice(Method.PROPORTIONAL, options.baseline.takes_part)
    return options.resolved([choice] * simulator.sketch.num_groups)


def greedy(simulator: Simulator, options: Options) -> Decision:
    """Group after group, the choice with which the step is shortest.

    Groups whose turn has not come are data parallel; if that does not fit, spread.

    Source: after HeteroG (Yi et al., CoNEXT 2020), without its learned ranking.
    """
    groups = simulator.sketch.num_groups
    start = options.baseline
    if not simulator.run(options.resolved([start] * groups)).fits:
        start = options.everywhere
    taken = [start] * groups
    for group in range(groups):
        tried: dict[Choice, Outcome] = {}
        for choice in (taken[group], *options.listed):
            trial = [*taken[:group], choice, *taken[group + 1 :]]
            tried[choice] = simulator.run(options.resolved(trial))
        taken[group] = min(tried, key=lambda c: tried[c].rank)
    return options.resolved(taken)


BASELINES: Mapping[str, Callable[[Simulator, Options], Decision]] = MappingProxyType(
    {"data parallel": data_parallel, "proportional": proportional, "greedy": greedy}
)
"""By name. Horovod is data parallel on a simulator with `joined_bytes=HOROVOD_BYTES`."""
