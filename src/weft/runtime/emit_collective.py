"""How each collective of a local program becomes nodes of a torch graph: a start and a finish.

The start stands where the instruction stands; the finish, which waits, stands before the first
reader, so that what is between them overlaps. Torch's collectives work along the first dim;
other dims are moved there and back, which costs one copy where the dims before them are not
all of size 1.

On CPUs everything but a large all-reduce is an all-to-all. Gloo's reduce-scatter is an all-reduce
of which most is thrown away, and takes twice the time; its all-reduce of a small tensor waits for
the other ranks more often than once; its all-gather corrupts the heap of torch 2.13.0 in one of
some ten thousand calls. `docs/decisions/0004-collectives-on-cpus.md` has the measurements.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import fx, nn

from weft.capture.dtypes import to_torch_dtype
from weft.core.errors import VerifyError
from weft.parallel.local import Collective, CollectiveKind
from weft.parallel.placement import Mesh
from weft.program.types import DType, TensorType
from weft.runtime.emit_exchange import emit_exchange
from weft.runtime.place import Place
from weft.runtime.transfer import Finish, Transfer

__all__ = ["collective_module", "emit_message", "emit_start"]

aten = torch.ops.aten
c10d = torch.ops._c10d_functional


def emit_start(transfer: Transfer) -> Finish:
    """Append the start of a collective.

    Returns:
        What appends the rest, to be called once, before the first reader.

    Raises:
        VerifyError: the collective cannot be done on this element type.
    """
    if transfer.count == 1:
        return lambda: transfer.own
    kind = transfer.collective.kind
    if kind is CollectiveKind.MOVE or (kind in _PARTS and transfer.line):
        return emit_exchange(transfer)
    if kind is CollectiveKind.SLICE:
        return _slice(transfer)
    if kind is CollectiveKind.ALL_TO_ALL:
        return _all_to_all(transfer)
    return _emit_joined([transfer])[0]


def emit_message(transfers: Sequence[Transfer]) -> list[Finish]:
    """Append the start of collectives that travel together: one kind, one axis, one type.

    Returns:
        For each of them what appends the rest, to be called once, before its first reader.

    Raises:
        VerifyError: the collective cannot be done on this element type.
    """
    return _emit_joined(transfers) if transfers else []


def collective_module(
    collective: Collective,
    source: TensorType,
    target: TensorType,
    place: Place,
    *,
    leads_to: Mesh | None = None,
) -> fx.GraphModule:
    """One collective alone, as `module(part) -> part`.

    Args:
        collective: which; its slots are not read.
        source, target: local types before and after.
        place: where the rank stands.
        leads_to: where a move leads that makes a tensor whole; a rank that has nothing of it passes
            anything.

    Raises:
        VerifyError: the collective cannot be done on this element type.
    """
    graph = fx.Graph()
    transfer = Transfer(
        graph=graph,
        collective=collective,
        value=graph.placeholder("part"),
        source=source,
        target=target,
        place=place,
        line=target.shape if leads_to is not None else (),
        leads_to=leads_to,
    )
    graph.output(emit_start(transfer)())
    return fx.GraphModule(nn.Module(), graph, "Collective")


def _slice(transfer: Transfer) -> Finish:
    dim, axis = transfer.collective.target_dim, transfer.collective.axis
    size = transfer.target.shape[dim]
    start, end = transfer.place.mesh.span(axis, transfer.place.coordinate[axis])
    first = size // (end - start) * start
    node = transfer.add(aten.slice.Tensor, transfer.own, dim, first, first + size)
    return lambda: node


def _emit_joined(transfers: Sequence[Transfer]) -> list[Finish]:
    """Reductions or gathers of one kind in one message: packed side by side, cut apart again."""
    first = transfers[0]
    form = _FORMS[first.collective.kind]
    packed = [form.pack(transfer) for transfer in transfers]
    alone = len(transfers) == 1
    whole = packed[0] if alone else first.add(aten.cat.default, packed, 1)
    num_bytes = sum(transfer.source.num_bytes for transfer in transfers)
    arrive = functools.cache(form.start(first, whole, num_bytes))
    if alone:
        return [lambda: form.unpack(first, arrive())]
    finishes: list[Finish] = []
    start = 0
    for transfer in transfers:
        end = start + min(transfer.source.num_elements, transfer.target.num_elements)

        def finish(transfer: Transfer = transfer, start: int = start, end: int = end) -> fx.Node:
            part = transfer.add(aten.slice.Tensor, arrive(), 1, start, end)
            return form.unpack(transfer, part)

        finishes.append(finish)
        start = end
    return finishes


def _pack_flat(transfer: Transfer) -> fx.Node:
    """The whole value as [1, elements]."""
    return transfer.reshape(transfer.contiguous(transfer.own), 1, -1)


def _pack_parts(transfer: Transfer) -> fx.Node:
    """The source with the parts of its dim that is to be cut as [count, elements of a part]."""
    dim, count, shape = transfer.collective.target_dim, transfer.count, transfer.source.shape
    value = transfer.own
    if math.prod(shape[:dim]) > 1:
        split = transfer.reshape(value, *shape[:dim], count, shape[dim] // count, *shape[dim + 1 :])
        value = transfer.move_dim(split, dim, 0, len(shape) + 1)
    return transfer.contiguous(transfer.reshape(value, count, -1))


_PARTS = (
    CollectiveKind.ALL_GATHER,
    CollectiveKind.REDUCE_SCATTER,
    CollectiveKind.ALL_TO_ALL,
)
"""Kinds that move parts along the axis."""

_DIRECT_BYTES = 2**22
"""Up to this much sent by a rank, an all-reduce is one exchange and a sum. Derived: on two ranks of
one host that takes two thirds of the time for 2 MiB among computation, and longer at 16 MiB."""


def _start_all_reduce(transfer: Transfer, packed: fx.Node, num_bytes: int) -> Finish:
    if transfer.by_exchange and num_bytes * (transfer.count - 1) <= _DIRECT_BYTES:
        everyone = transfer.add(aten.expand.default, packed, [transfer.count, -1])
        return _reduced(transfer, transfer.exchange(transfer.contiguous(everyone)))
    node = transfer.add(c10d.all_reduce.default, packed, _reduction(transfer), transfer.group)
    return lambda: transfer.waited(node)


def _start_all_gather(transfer: Transfer, packed: fx.Node, _: int) -> Finish:
    count = transfer.count
    if transfer.by_exchange:
        everyone = transfer.add(aten.expand.default, packed, [count, -1])
        node = transfer.exchange(transfer.contiguous(everyone))
    else:
        node = transfer.add(c10d.all_gather_into_tensor.default, packed, count, transfer.group)
    return lambda: transfer.waited(node)


def _start_reduce_scatter(transfer: Transfer, packed: fx.Node, _: int) -> Finish:
    if transfer.by_exchange:
        return _reduced(transfer, transfer.exchange(packed))
    reduce, count = _reduction(transfer), transfer.count
    node = transfer.add(c10d.reduce_scatter_tensor.default, packed, reduce, count, transfer.group)
    return lambda: transfer.waited(node)


def _reduced(transfer: Transfer, node: fx.Node) -> Finish:
    """What all ranks have sent, summed up here."""
    reduce = _reduction(transfer)

    def finish() -> fx.Node:
        parts, dtype = transfer.waited(node), to_torch_dtype(transfer.source.dtype)
        if reduce == "sum":
            return transfer.add(aten.sum.dim_IntList, parts, [0], True, dtype=dtype)
        return transfer.add(aten.amax.default, parts, [0], True)

    return finish


def _unpack(transfer: Transfer, part: fx.Node) -> fx.Node:
    return transfer.reshape(part, *transfer.target.shape)


def _unpack_gathered(transfer: Transfer, parts: fx.Node) -> fx.Node:
    dim, shape = transfer.collective.source_dim, transfer.source.shape
    parts = transfer.reshape(parts, transfer.count, *shape)
    moved = transfer.move_dim(parts, 0, dim, len(shape) + 1)
    return transfer.reshape(moved, *transfer.target.shape)


@dataclass(frozen=True, slots=True)
class _Form:
    """How a collective packs a value as [rows, elements], starts, and unpacks its result."""

    pack: Callable[[Transfer], fx.Node]
    start: Callable[[Transfer, fx.Node, int], Finish]
    unpack: Callable[[Transfer, fx.Node], fx.Node]


_FORMS: Mapping[CollectiveKind, _Form] = MappingProxyType(
    {
        CollectiveKind.ALL_GATHER: _Form(_pack_flat, _start_all_gather, _unpack_gathered),
        CollectiveKind.ALL_REDUCE: _Form(_pack_flat, _start_all_reduce, _unpack),
        CollectiveKind.REDUCE_SCATTER: _Form(_pack_parts, _start_reduce_scatter, _unpack),
    }
)


def _all_to_all(transfer: Transfer) -> Finish:
    count, dim = transfer.count, transfer.collective.source_dim
    node = transfer.exchange(_pack_parts(transfer))

    def finish() -> fx.Node:
        part = list(transfer.target.shape)
        part[dim] //= count
        parts = transfer.reshape(transfer.waited(node), count, *part)
        moved = transfer.move_dim(parts, 0, dim, len(part) + 1)
        return transfer.reshape(moved, *transfer.target.shape)

    return finish


def _reduction(transfer: Transfer) -> str:
    """Name of the reduction; sums of truth values have no meaning that all back ends share."""
    reduce = transfer.collective.reduce
    if reduce not in ("sum", "max") or transfer.source.dtype is DType.BOOL:
        raise VerifyError(
            need="a sum or a maximum of numbers",
            got=f"{reduce or 'no reduction'} of {transfer.source} in a "
            f"{transfer.collective.kind.value}",
            hint="cast truth values before they are reduced",
        )
    return reduce
