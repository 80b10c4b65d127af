"""Operators whose call costs another time than a plain one's, as the runtime makes the call.

A matrix product is up to seven ATen calls (reshapes and permutations around it), attention goes
through an operator of weft's own, a convolution through a library that prepares its kernel anew,
and a view, which moves nothing, is a call all the same. On tensors as small as these it is the
call that takes the time. It matters where the host does not run ahead of the device: on CPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import fx, nn

from weft.capture.dtypes import to_torch_dtype
from weft.cost.fit import Call as TimedCall
from weft.parallel.local import Run
from weft.parallel.placement import Mesh
from weft.parallel.plan import Strategy
from weft.program.graph import Arg, Phase, Value, map_values
from weft.program.types import DType, TensorType
from weft.runtime.emit import Call, emit_run
from weft.runtime.place import Place

__all__ = ["CALLS", "CALLS_AT_ONCE", "call_run"]

CALLS_AT_ONCE = 20
"""Calls in one module: the cost of entering it is not that of a call."""


def _f32(*shape: int) -> TensorType:
    return TensorType(DType.F32, shape)


def _call(
    op: str, args: tuple[Arg, ...], operands: tuple[TensorType, ...], *outputs: TensorType
) -> TimedCall:
    return TimedCall(op=op, args=args, operands=operands, outputs=outputs)


_A, _B, _C = Value(0), Value(1), Value(2)
_X, _W = _f32(4, 16, 8, 8), _f32(16, 16, 3, 3)
_HEADS, _ROWS = _f32(1, 2, 16, 8), _f32(1, 2, 16)
_PLAIN = ((1, 1), (1, 1), (1, 1), False, (0, 0), 1)
"""Stride, padding and dilation of one, not transposed, one group."""

CALLS: tuple[TimedCall, ...] = (
    _call("view", (_A, (32, 8)), (_f32(4, 8, 8),), _f32(32, 8)),
    _call("permute", (_A, (1, 0, 2)), (_f32(4, 8, 8),), _f32(8, 4, 8)),
    _call("expand", (_A, (4, 8, 8)), (_f32(1, 8, 8),), _f32(4, 8, 8)),
    _call("slice", (_A, 0, 1, 3), (_f32(4, 8, 8),), _f32(2, 8, 8)),
    # A linear layer, and the gradients of its input and of its weight.
    _call("einsum", ("abc,dc->abd", _A, _B), (_f32(2, 4, 8), _f32(8, 8)), _f32(2, 4, 8)),
    _call("einsum", ("abd,dc->abc", _A, _B), (_f32(2, 4, 8), _f32(8, 8)), _f32(2, 4, 8)),
    _call("einsum", ("abd,abc->dc", _A, _B), (_f32(2, 4, 8), _f32(2, 4, 8)), _f32(8, 8)),
    _call("attention", (_A, _B, _C, True, 0.5), (_HEADS,) * 3, _HEADS, _ROWS),
    _call(
        "attention_backward",
        (*map(Value, range(6)), True, 0.5),
        (*(_HEADS,) * 5, _ROWS),
        *(_HEADS,) * 3,
    ),
    # Large enough for oneDNN, whose calls are the dear ones; smaller ones are loops of torch's own.
    _call("convolution.default", (_A, _B, _C, *_PLAIN), (_X, _W, _f32(16)), _X),
    _call(
        "convolution_backward.default",
        (_A, _B, _C, (16,), *_PLAIN, (True, True, True)),
        (_X, _X, _W),
        *(_X, _W, _f32(16)),
    ),
)
"""What is timed. What its arithmetic takes by the law of products is taken off by the fit."""


def call_run(call: TimedCall, device: torch.device) -> Callable[[], object]:
    """What makes a call `CALLS_AT_ONCE` times, as a segment of a step makes it."""
    graph = fx.Graph()
    nodes = [graph.placeholder(f"operand_{n}") for n in range(len(call.operands))]
    made: object = None
    for _ in range(CALLS_AT_ONCE):
        made = emit_run(_emitted(call, graph, nodes, device))
    graph.output(made)
    module = fx.GraphModule(nn.Module(), graph, "Calls")
    given = [torch.rand(t.shape, device=device).to(to_torch_dtype(t.dtype)) for t in call.operands]
    return lambda: module(*given)


def _emitted(call: TimedCall, graph: fx.Graph, nodes: list[fx.Node], device: torch.device) -> Call:
    run = Run(
        node=0,
        op=call.op,
        args=call.args,
        outputs=tuple(range(len(call.outputs))),
        strategy=Strategy((), ()),
        phase=Phase.FORWARD,
    )
    return Call(
        graph=graph,
        run=run,
        args=map_values(call.args, lambda value: cast("Arg", nodes[value.node])),
        operands=call.operands,
        outputs=call.outputs,
        whole_operands=call.operands,
        whole_outputs=call.outputs,
        place=Place(mesh=Mesh((1,)), coordinate=(0,), device=device, groups=("",)),
    )
