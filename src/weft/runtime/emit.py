"""How each operator of a local program becomes nodes of a torch graph.

Operators with an ATen name run under that name; this module holds the others, and those that
must know which part of the whole they work on. Sizes in arguments are local ones already.
"""

from __future__ import annotations

import operator as python_operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias, cast

import torch
from torch import fx

import weft.runtime.attention_rows  # noqa: F401  its operators exist once this has run
from weft.capture.dtypes import to_torch_dtype
from weft.capture.operators import uniform_shard
from weft.core.errors import VerifyError
from weft.parallel.local import Run
from weft.parallel.placement import Sharding
from weft.program.random import row_major_strides
from weft.program.types import DType, TensorType
from weft.runtime.contraction import Operand, plan_product
from weft.runtime.place import Place
from weft.runtime.shard import shard_offsets

__all__ = ["Call", "emit_run"]

aten = torch.ops.aten
weft_ops = torch.ops.weft  # registered by weft.capture.operators, and rows of attention above

Emitted: TypeAlias = "fx.Node | tuple[fx.Node, ...]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One `Run` on its way into a graph.

    Attributes:
        graph: where nodes are appended.
        run: the instruction.
        args: its arguments, with graph nodes in place of slots.
        operands: local types of the slots it reads, in order, repeats included.
        outputs: local types of its outputs.
        whole_operands, whole_outputs: the same of the unsplit program.
        place: where the rank stands.
    """

    graph: fx.Graph
    run: Run
    args: tuple[Any, ...]
    operands: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    whole_operands: tuple[TensorType, ...]
    whole_outputs: tuple[TensorType, ...]
    place: Place

    def add(self, target: Callable[..., Any], *args: object, **kwargs: object) -> fx.Node:
        """Append a function call."""
        return self.graph.call_function(target, cast("Any", args), cast("Any", kwargs))

    def offsets(self, sharding: Sharding, whole: TensorType) -> tuple[int, ...]:
        """Where this rank's part of a tensor starts."""
        return shard_offsets(self.place.mesh, sharding, self.place.coordinate, whole.shape)


def emit_run(call: Call) -> Emitted:
    """Append the nodes that carry out an instruction.

    Returns:
        The output's node, or one for each output of an operator with several.

    Raises:
        VerifyError: the operator cannot be run in this form.
    """
    emit = _OWN.get(call.run.op, _aten)
    return emit(call)


def _aten(call: Call) -> Emitted:
    """An operator under its ATen name: arguments by position up to the keyword-only ones."""
    packet, _, overload = call.run.op.partition(".")
    if not overload:
        raise VerifyError(
            need="an operator that the runtime can run",
            got=repr(call.run.op),
            hint="operators without an ATen name need an entry in weft.runtime.emit",
        )
    target = getattr(getattr(aten, packet), overload)
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for value, argument in zip(call.args, target._schema.arguments, strict=False):
        given = value
        if isinstance(value, str) and "ScalarType" in str(argument.real_type):
            given = to_torch_dtype(DType(value))
        if argument.kwarg_only:
            keywords[argument.name] = given
        else:
            positional.append(given)
    node = call.add(target, *positional, **keywords)
    return node if len(call.run.outputs) == 1 else _unpacked(call, node)


def _unpacked(call: Call, node: fx.Node) -> tuple[fx.Node, ...]:
    return tuple(call.add(python_operator.getitem, node, n) for n in range(len(call.run.outputs)))


def _full(call: Call) -> fx.Node:
    size, value, dtype = call.args
    dtype = to_torch_dtype(DType(dtype))
    return call.add(aten.full.default, list(size), value, dtype=dtype, device=call.place.device)


def _iota(call: Call) -> fx.Node:
    n, start, step, dtype = call.args
    (offset,) = call.offsets(call.run.strategy.outputs[0], call.whole_outputs[0])
    kind = to_torch_dtype(DType(dtype))
    options = {"device": call.place.device}
    if isinstance(start, int) and isinstance(step, int):
        first = start + offset * step
        node = call.add(
            aten.arange.start_step, first, first + n * step, step, dtype=torch.int64, **options
        )
        return call.add(aten.to.dtype, node, kind)
    # Positions are counted in integers and scaled once, so that every part rounds as the whole.
    wide = call.add(aten.arange.start, offset, offset + n, dtype=torch.float64, **options)
    node = call.add(aten.add.Scalar, call.add(aten.mul.Scalar, wide, step), start)
    return call.add(aten.to.dtype, node, kind)


def _uniform(call: Call) -> fx.Node:
    seed, salt, size = call.args
    whole = call.whole_outputs[0]
    offsets = call.offsets(call.run.strategy.outputs[0], whole)
    return call.add(uniform_shard, seed, salt, size, offsets, row_major_strides(whole.shape))


def _uniform_part(call: Call) -> fx.Node:
    seed, index, salt, size, dim, pieces = call.args
    part = call.whole_outputs[0]
    offsets = call.offsets(call.run.strategy.outputs[0], part)
    whole = tuple(n * pieces if d == dim else n for d, n in enumerate(part.shape))
    strides = row_major_strides(whole)
    shift = call.add(aten.mul.Scalar, index, part.shape[dim] * strides[dim])
    return call.add(uniform_shard, seed, salt, size, offsets, strides, shift)


def _itself(call: Call) -> fx.Node:
    return call.args[0]


def _cast(call: Call) -> fx.Node:
    return call.add(aten.to.dtype, call.args[0], to_torch_dtype(DType(call.args[1])))


def _view(call: Call) -> fx.Node:
    return call.add(aten.reshape.default, call.args[0], list(call.args[1]))


def _permute(call: Call) -> fx.Node:
    return call.add(aten.permute.default, call.args[0], list(call.args[1]))


def _expand(call: Call) -> fx.Node:
    return call.add(aten.expand.default, call.args[0], list(call.args[1]))


def _slice(call: Call) -> fx.Node:
    return call.add(aten.slice.Tensor, *call.args)


def _slice_backward(call: Call) -> fx.Node:
    grad, size, dim, start, end, *step = call.args
    return call.add(aten.slice_backward.default, grad, list(size), dim, start, end, *(step or [1]))


def _cat(call: Call) -> fx.Node:
    tensors, *dim = call.args
    return call.add(aten.cat.default, list(tensors), *dim)


def _sum(call: Call) -> fx.Node:
    x, dims, *keepdim = call.args
    dtype = to_torch_dtype(call.outputs[0].dtype)
    return call.add(aten.sum.dim_IntList, x, list(dims), *keepdim, dtype=dtype)


def _amax(call: Call) -> fx.Node:
    x, dims, *keepdim = call.args
    return call.add(aten.amax.default, x, list(dims), *keepdim)


def _cumsum(call: Call) -> fx.Node:
    return call.add(aten.cumsum.default, *call.args)


def _einsum(call: Call) -> fx.Node:
    equation, a, b = call.args
    product = plan_product(equation, call.operands[0].shape, call.operands[1].shape)
    sources = (a, b)
    left, right = (_matrix(call, sources[o.position], o) for o in (product.left, product.right))
    node = call.add(_PRODUCTS[product.kind], left, right)
    node = call.add(aten.reshape.default, node, list(product.size))
    if product.order != tuple(range(len(product.order))):
        node = call.add(aten.permute.default, node, list(product.order))
    return node


def _matrix(call: Call, source: fx.Node, operand: Operand) -> fx.Node:
    node = source
    if operand.summed:
        node = call.add(aten.sum.dim_IntList, node, list(operand.summed))
    if operand.order != tuple(range(len(operand.order))):
        node = call.add(aten.permute.default, node, list(operand.order))
    if len(operand.size) != len(operand.order) or operand.size != _permuted_shape(call, operand):
        node = call.add(aten.reshape.default, node, list(operand.size))
    return node


def _permuted_shape(call: Call, operand: Operand) -> tuple[int, ...]:
    shape = call.operands[operand.position].shape
    kept = [n for dim, n in enumerate(shape) if dim not in operand.summed]
    return tuple(kept[dim] for dim in operand.order)


_PRODUCTS = {"mm": aten.mm.default, "bmm": aten.bmm.default, "mul": aten.mul.Tensor}


def _attention(call: Call) -> Emitted:
    q, k, v, causal, scale = call.args
    if causal and call.operands[0].shape[2] < call.whole_operands[0].shape[2]:
        first = call.offsets(call.run.strategy.operands[0], call.whole_operands[0])[2]
        node = call.add(weft_ops.attention_rows.default, q, k, v, first, scale)
        return _unpacked(call, node)
    return _unpacked(call, call.add(weft_ops.attention.default, *call.args))


def _attention_backward(call: Call) -> Emitted:
    *tensors, causal, scale = call.args
    if causal and call.operands[1].shape[2] < call.whole_operands[1].shape[2]:
        first = call.offsets(call.run.strategy.operands[1], call.whole_operands[1])[2]
        node = call.add(weft_ops.attention_rows_backward.default, *tensors, first, scale)
        return _unpacked(call, node)
    return _unpacked(call, call.add(weft_ops.attention_backward.default, *call.args))


def _layer_norm_backward(call: Call) -> Emitted:
    """Gradients of a layer norm from operands in row-major order.

    ATen's kernels read means and deviations, and on GPUs the gradient, one element after the other
    in memory, whatever their strides say. One row that came with others in a message has the
    strides of all of it.

    Source: aten/src/ATen/native/{cpu/layer_norm_kernel.cpp,cuda/layer_norm_kernel.cu}; on CPUs also
    measured with torch 2.13.0.
    """
    grad, x, size, mean, rstd, *rest = call.args
    grad, mean, rstd = (call.add(aten.contiguous.default, node) for node in (grad, mean, rstd))
    target = aten.native_layer_norm_backward.default
    return _unpacked(call, call.add(target, grad, x, list(size), mean, rstd, *rest))


def _embedding(call: Call) -> fx.Node:
    """A lookup; in a table cut by rows, ids of other ranks' rows give zeros: a summand."""
    table, ids, *rest = call.args
    rows = call.operands[0].shape[0]
    first = call.offsets(call.run.strategy.operands[0], call.whole_operands[0])[0]
    if rows == call.whole_operands[0].shape[0]:
        return call.add(aten.embedding.default, table, ids, *rest)
    own = call.add(aten.sub.Scalar, ids, first)
    foreign = _outside(call, own, rows)
    own = call.add(aten.masked_fill.Scalar, own, foreign, 0)
    found = call.add(aten.embedding.default, table, own)
    hidden = call.add(aten.unsqueeze.default, foreign, -1)
    return call.add(aten.masked_fill.Scalar, found, hidden, 0)


def _embedding_backward(call: Call) -> fx.Node:
    """The gradient of a table; other ranks' rows are gathered in one more row and cut off."""
    grad, ids, rows, *rest = call.args
    padding, by_frequency = (*rest, *(-1, False)[len(rest) :])
    target = aten.embedding_dense_backward.default
    first = call.offsets(call.run.strategy.outputs[0], call.whole_outputs[0])[0]
    if rows == call.whole_outputs[0].shape[0]:
        return call.add(target, grad, ids, rows, padding, by_frequency)
    own = call.add(aten.sub.Scalar, ids, first)
    own = call.add(aten.masked_fill.Scalar, own, _outside(call, own, rows), rows)
    padding = padding - first if 0 <= padding - first < rows else -1
    node = call.add(target, grad, own, rows + 1, padding, by_frequency)
    return call.add(aten.slice.Tensor, node, 0, 0, rows)


def _outside(call: Call, ids: fx.Node, rows: int) -> fx.Node:
    """Mask of ids that are not among the first `rows`."""
    below = call.add(aten.lt.Scalar, ids, 0)
    return call.add(aten.logical_or.default, below, call.add(aten.ge.Scalar, ids, rows))


_OWN: Mapping[str, Callable[[Call], Emitted]] = MappingProxyType(
    {
        "attention": _attention,
        "attention_backward": _attention_backward,
        "cast": _cast,
        "cat": _cat,
        "cumsum": _cumsum,
        "einsum": _einsum,
        "embedding.default": _embedding,
        "embedding_dense_backward.default": _embedding_backward,
        "expand": _expand,
        "full": _full,
        "iota": _iota,
        "native_layer_norm_backward.default": _layer_norm_backward,
        "permute": _permute,
        "slice": _slice,
        "slice_backward": _slice_backward,
        "sum": _sum,
        "amax": _amax,
        "uniform": _uniform,
        "uniform_part": _uniform_part,
        "accumulate": _itself,
        "send": _itself,
        "view": _view,
    }
)
