"""Rules of reductions: a cut of a reduced dim leaves a partial result, other cuts stay."""

from __future__ import annotations

from collections.abc import Iterator

from weft.parallel.placement import PARTIAL, PARTIAL_MAX, Placement
from weft.parallel.rules.rule import Call, Rule

__all__ = ["amax_rules", "argmax_rules", "cumsum_rules", "sum_rules"]


def sum_rules(call: Call) -> Iterator[Rule]:
    """Rules of sum(x, dims, keepdim)."""
    yield from _reduced(call, PARTIAL)


def amax_rules(call: Call) -> Iterator[Rule]:
    """Rules of amax(x, dims, keepdim)."""
    yield from _reduced(call, PARTIAL_MAX)


def _reduced(call: Call, partial: Placement) -> Iterator[Rule]:
    rank = len(call.operands[0].shape)
    reduced = {dim % rank for dim in call.numbers(1)} if rank else set[int]()
    keeps = call.flag(2)
    for dim in range(rank):
        if dim in reduced:
            yield Rule((partial,), (dim,))
        else:
            gone = 0 if keeps else sum(r < dim for r in reduced)
            yield Rule((dim - gone,), (dim,))
    yield Rule((partial,), (partial,))


def cumsum_rules(call: Call) -> Iterator[Rule]:
    """Rules of cumsum(x, dim): every other dim, and summands."""
    rank = len(call.operands[0].shape)
    for dim in range(rank):
        if dim != call.dim(1, rank):
            yield Rule((dim,), (dim,))
    yield Rule((PARTIAL,), (PARTIAL,))


def argmax_rules(call: Call) -> Iterator[Rule]:
    """Rules of argmax(x, dim, keepdim): every other dim; over all dims the position is global."""
    rank = len(call.operands[0].shape)
    if not call.numbers(1):
        return
    searched = call.dim(1, rank)
    for dim in range(rank):
        if dim != searched:
            yield Rule((dim - (dim > searched and not call.flag(2)),), (dim,))
