"""How far results are from those in double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.fusion.cases import Graph, Result, tensors

__all__ = ["distance", "in_double"]


def in_double(graph: Graph, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What torch makes of the same inputs in double precision."""
    return tensors(graph.compute(*[x.double() if x.is_floating_point() else x for x in inputs]))


def distance(result: Result, wanted: Sequence[Tensor]) -> float:
    """Largest difference within an output over its largest element; the worst output's.

    A result of other shapes is infinitely far, one with a NaN is NaN away.

    Example:
        >>> distance(torch.tensor([1.0, 4.0]), (torch.tensor([2.0, 4.0]),))
        0.25
    """
    made = tensors(result)
    if [m.shape for m in made] != [w.shape for w in wanted]:
        return math.inf
    worst = torch.zeros((), dtype=torch.float64)
    for ours, right in zip(made, wanted, strict=True):
        right = right.double()
        relative = (ours.double() - right).abs().amax() / right.abs().amax()
        worst = torch.maximum(worst, relative)  # of a NaN and a number, the NaN
    return worst.item()
