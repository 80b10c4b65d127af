"""Rules of attention: by batch, by head, and by query rows.

A causal mask compares positions, so a device that works on some rows has to know which: the
lowering tells it where its rows begin, and there have to be as many keys as rows.
"""

from __future__ import annotations

from collections.abc import Iterator

from weft.parallel.placement import PARTIAL, REPLICATED
from weft.parallel.rules.rule import Call, Rule

__all__ = ["attention_backward_rules", "attention_rules"]

_BATCH, _HEAD, _ROW = 0, 1, 2
_R = REPLICATED


def attention_rules(call: Call) -> Iterator[Rule]:
    """Rules of (q, k, v, causal, scale) -> (out, logsumexp)."""
    for dim in (_BATCH, _HEAD):
        yield Rule((dim, dim), (dim, dim, dim))
    q, k, _ = call.operands
    if not call.flag(3) or q.shape[_ROW] == k.shape[_ROW]:
        yield Rule((_ROW, _ROW), (_ROW, _R, _R))


def attention_backward_rules(call: Call) -> Iterator[Rule]:
    """Rules of (grad, q, k, v, out, logsumexp, causal, scale) -> (dq, dk, dv).

    Keys and values are read by all query rows, so a cut of the rows leaves summands of their
    gradients. All three results are linear in `grad`.
    """
    for dim in (_BATCH, _HEAD):
        yield Rule((dim,) * 3, (dim,) * 6)
    _, q, k, *_ = call.operands
    if not call.flag(6) or q.shape[_ROW] == k.shape[_ROW]:
        yield Rule((_ROW, PARTIAL, PARTIAL), (_ROW, _ROW, _R, _R, _ROW, _ROW))
    yield Rule((PARTIAL,) * 3, (PARTIAL, _R, _R, _R, _R, _R))
