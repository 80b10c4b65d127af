"""Rules of pooling: every dim but the two spatial ones, whose windows cross any cut."""

from __future__ import annotations

from collections.abc import Iterator

from weft.parallel.placement import PARTIAL
from weft.parallel.rules.rule import Call, Rule

__all__ = ["avg_pool_rules", "max_pool_rules", "pool_backward_rules"]

_SPATIAL_DIMS = 2


def max_pool_rules(call: Call) -> Iterator[Rule]:
    """Rules of x -> (out, indices); the indices count within one plane, so they stay right."""
    for dim in range(len(call.operands[0].shape) - _SPATIAL_DIMS):
        yield Rule((dim, dim), (dim,))


def avg_pool_rules(call: Call) -> Iterator[Rule]:
    """Rules of x -> out; linear."""
    for dim in range(len(call.operands[0].shape) - _SPATIAL_DIMS):
        yield Rule((dim,), (dim,))
    yield Rule((PARTIAL,), (PARTIAL,))


def pool_backward_rules(call: Call) -> Iterator[Rule]:
    """Rules of (grad, x, ...) -> dx and (grad, x, ..., indices) -> dx; linear in `grad`."""
    for dim in range(len(call.operands[0].shape) - _SPATIAL_DIMS):
        yield Rule((dim,), (dim,) * len(call.operands))
    yield call.rule((PARTIAL,), {0: PARTIAL})
