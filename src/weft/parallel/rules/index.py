"""Rules of lookups and their backward.

A table that is cut by rows is looked up with shifted ids, and ids of other devices' rows give
zeros: the results are summands. The lowering does the shift and the mask.
"""

from __future__ import annotations

from collections.abc import Iterator

from weft.parallel.placement import PARTIAL, REPLICATED
from weft.parallel.rules.rule import Call, Rule

__all__ = [
    "embedding_backward_rules",
    "embedding_rules",
    "gather_rules",
    "index_select_rules",
    "scatter_add_rules",
    "topk_rules",
]

_R = REPLICATED
_ROWS, _COLUMNS = 0, 1


def embedding_rules(call: Call) -> Iterator[Rule]:
    """Rules of (table [V, D], ids [...]) -> [..., D]."""
    ids_rank = len(call.operands[1].shape)
    for dim in range(ids_rank):
        yield Rule((dim,), (_R, dim))
    yield Rule((ids_rank,), (_COLUMNS, _R))
    yield Rule((PARTIAL,), (_ROWS, _R))
    yield Rule((PARTIAL,), (PARTIAL, _R))


def embedding_backward_rules(call: Call) -> Iterator[Rule]:
    """Rules of (grad [..., D], ids [...], num_weights, padding_idx, scale_grad_by_freq) -> [V, D].

    Scaling by frequency counts all ids, so they must not be cut.
    """
    ids_rank = len(call.operands[1].shape)
    if not call.flag(4):
        for dim in range(ids_rank):
            yield Rule((PARTIAL,), (dim, dim))
    yield Rule((_COLUMNS,), (ids_rank, _R))
    yield Rule((_ROWS,), (_R, _R))
    yield Rule((PARTIAL,), (PARTIAL, _R))


def gather_rules(call: Call) -> Iterator[Rule]:
    """Rules of (x, dim, index): x is whole along `dim`, where the index may be cut."""
    x, index = call.operands
    along = call.dim(1, len(x.shape))
    for dim, size in enumerate(index.shape):
        if dim == along:
            yield Rule((dim,), (_R, dim))
        elif size == x.shape[dim]:
            yield Rule((dim,), (dim, dim))
    yield Rule((PARTIAL,), (PARTIAL, _R))


def scatter_add_rules(call: Call) -> Iterator[Rule]:
    """Rules of (x, dim, index, src); jointly linear in x and src.

    Along `dim` the additions may be shared out, if x itself comes as summands.
    """
    x, index, src = call.operands
    along = call.dim(1, len(x.shape))
    for dim, size in enumerate(index.shape):
        if size != src.shape[dim]:
            continue
        if dim == along:
            yield Rule((PARTIAL,), (PARTIAL, dim, dim))
        elif size == x.shape[dim]:
            yield Rule((dim,), (dim, dim, dim))
    yield Rule((PARTIAL,), (PARTIAL, _R, PARTIAL))


def index_select_rules(call: Call) -> Iterator[Rule]:
    """Rules of (x, dim, index [n])."""
    rank = len(call.operands[0].shape)
    along = call.dim(1, rank)
    for dim in range(rank):
        yield Rule((dim,), (_R, 0) if dim == along else (dim, _R))
    yield Rule((PARTIAL,), (PARTIAL, _R))


def topk_rules(call: Call) -> Iterator[Rule]:
    """Rules of (x, k, dim, largest, sorted) -> (values, indices): every other dim."""
    rank = len(call.operands[0].shape)
    for dim in range(rank):
        if dim != call.dim(2, rank, default=-1):
            yield Rule((dim, dim), (dim,))
