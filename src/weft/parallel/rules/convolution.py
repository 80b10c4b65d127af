"""Rules of convolution and its backward: batch, output channels, input channels.

With groups, a block of channels belongs to a block of groups, and the number of groups is an
argument that stays what it is; only the batch is cut. Spatial dims are never cut: neighbours
would have to exchange their borders.
"""

from __future__ import annotations

from collections.abc import Iterator

from weft.parallel.placement import PARTIAL, REPLICATED, Placement
from weft.parallel.rules.rule import Call, Rule

__all__ = ["convolution_backward_rules", "convolution_rules"]

_BATCH, _CHANNEL = 0, 1
_R = REPLICATED


def convolution_rules(call: Call) -> Iterator[Rule]:
    """Rules of (x, weight, bias, stride, padding, dilation, transposed, output_padding, groups).

    With a bias, summands of the product are not summands of the result: each device would add
    the whole bias.
    """
    made, contracted = _weight_dims(transposed=call.flag(6))
    bias = call.operand(2)
    yield call.rule((_BATCH,), {0: _BATCH})
    if call.number(8, 1) == 1:
        yield call.rule((_CHANNEL,), {1: made, bias: 0})
        if bias is None:
            yield call.rule((PARTIAL,), {0: _CHANNEL, 1: contracted})
    if bias is None:
        yield call.rule((PARTIAL,), {0: PARTIAL})
        yield call.rule((PARTIAL,), {1: PARTIAL})


def convolution_backward_rules(call: Call) -> Iterator[Rule]:
    """Rules of (grad, x, weight, bias_sizes, ...) -> (dx, dweight, dbias).

    After bias_sizes come stride, padding, dilation, transposed, output_padding, groups and the
    output mask.
    """
    made, contracted = _weight_dims(transposed=call.flag(7))
    yield _wanted(call, (_BATCH, PARTIAL, PARTIAL), (_BATCH, _BATCH, _R))
    if call.number(9, 1) == 1:
        yield _wanted(call, (PARTIAL, made, 0), (_CHANNEL, _R, made))
        yield _wanted(call, (_CHANNEL, contracted, _R), (_R, _CHANNEL, contracted))
    yield _wanted(call, (PARTIAL,) * 3, (PARTIAL, _R, _R))


def _weight_dims(*, transposed: bool) -> tuple[int, int]:
    """Dims of the weight that hold the output's and the input's channels."""
    return (1, 0) if transposed else (0, 1)


def _wanted(call: Call, outputs: tuple[Placement, ...], operands: tuple[Placement, ...]) -> Rule:
    """The rule, with outputs that the mask leaves out replicated."""
    mask = call.args[10] if len(call.args) > 10 else None
    wanted = mask if isinstance(mask, tuple) else (True,) * 3
    return Rule(
        tuple(p if want is True else _R for p, want in zip(outputs, wanted, strict=True)), operands
    )
