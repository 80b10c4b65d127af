"""Rules of softmax and layer norm: every dim over which nothing is normalised."""

from __future__ import annotations

from collections.abc import Iterator

from weft.parallel.placement import PARTIAL, REPLICATED
from weft.parallel.rules.rule import Call, Rule

__all__ = [
    "layer_norm_backward_rules",
    "layer_norm_rules",
    "softmax_backward_rules",
    "softmax_rules",
]


def softmax_rules(call: Call) -> Iterator[Rule]:
    """Rules of (x, dim, half_to_float)."""
    rank = len(call.operands[0].shape)
    for dim in range(rank):
        if dim != call.dim(1, rank):
            yield Rule((dim,), (dim,))


def softmax_backward_rules(call: Call) -> Iterator[Rule]:
    """Rules of (grad, out, dim, dtype); linear in `grad`."""
    rank = len(call.operands[0].shape)
    for dim in range(rank):
        if dim != call.dim(2, rank):
            yield Rule((dim,), (dim, dim))
    yield Rule((PARTIAL,), (PARTIAL, REPLICATED))


def layer_norm_rules(call: Call) -> Iterator[Rule]:
    """Rules of (x, normalized_shape, weight, bias, eps) -> (out, mean, rstd)."""
    for dim in range(len(call.operands[0].shape) - len(call.numbers(1))):
        yield call.rule((dim,) * 3, {0: dim})


def layer_norm_backward_rules(call: Call) -> Iterator[Rule]:
    """Rules of (grad, x, normalized_shape, mean, rstd, weight, bias, output_mask).

    The results are (dx, dweight, dbias), replicated where the mask leaves one out. Weight and
    bias are read by every row, so a cut of the rows leaves summands of their gradients. All
    three results are linear in `grad`.
    """
    mask = call.args[7] if len(call.args) > 7 else None
    wanted = mask if isinstance(mask, tuple) else (True,) * 3
    dweight, dbias = (PARTIAL if want is True else REPLICATED for want in wanted[1:])
    for dim in range(len(call.operands[0].shape) - len(call.numbers(2))):
        dx = dim if wanted[0] is True else REPLICATED
        yield call.rule((dx, dweight, dbias), dict.fromkeys(range(4), dim))
    dx = PARTIAL if wanted[0] is True else REPLICATED
    yield call.rule((dx, dweight, dbias), {0: PARTIAL})
