"""Collectives among ranks with unlike parts, and moves from home to home, as one exchange.

Each rank packs what it sends to each other one side by side, and all exchange that at once: an
all-to-all with sizes of its own for every pair. Sums are added where they arrive, in order of rank.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod

import torch
from torch import fx

from weft.capture.dtypes import to_torch_dtype
from weft.parallel.placement import PARTIAL
from weft.parallel.transfer import Piece, moved
from weft.runtime.transfer import Finish, Transfer

__all__ = ["emit_exchange"]

aten = torch.ops.aten
c10d = torch.ops._c10d_functional


def emit_exchange(transfer: Transfer) -> Finish:
    """Append the start of the exchange.

    Returns:
        What appends the rest; of a rank that takes nothing up, the wait for what it sends.
    """
    going = _going(transfer)
    here = transfer.place.coordinate[transfer.collective.axis]
    outgoing = [[p for p in going if (p.source, p.target) == (here, to)] for to in transfer.members]
    incoming = [[p for p in going if (p.source, p.target) == (of, here)] for of in transfer.members]
    taken = [p for of_rank in incoming for p in of_rank]
    get = [_num_elements(of_rank) for of_rank in incoming]
    give = [_num_elements(of_rank) for of_rank in outgoing]
    packed = [_flat(transfer, p) for of_rank in outgoing for p in of_rank]
    if not taken:
        # Torch does not wait for what fills no memory, so the rank sends itself one element.
        own = transfer.members.index(here)
        get[own], give[own] = 1, 1
        packed.insert(sum(map(len, outgoing[:own])), _zeros(transfer, 1))
    if not packed:
        packed.append(_zeros(transfer, 0))
    whole = packed[0] if len(packed) == 1 else transfer.add(aten.cat.default, packed)
    sent = transfer.add(c10d.all_to_all_single.default, whole, get, give, transfer.group)
    if not taken:
        return lambda: transfer.waited(sent)
    return lambda: _unpacked(transfer, transfer.waited(sent), taken)


def _going(transfer: Transfer) -> Sequence[Piece]:
    """What goes from whom to whom, by position along the axis."""
    about, mesh = transfer.collective, transfer.place.mesh
    held = mesh.along(about.axis)
    wanted = held if transfer.leads_to is None else transfer.leads_to.along(about.axis)
    left = PARTIAL if about.reduce else about.source_dim
    return moved(transfer.line, (held, left), (wanted, about.target_dim))


def _num_elements(some: Sequence[Piece]) -> int:
    return sum(piece.num_elements for piece in some)


def _flat(transfer: Transfer, piece: Piece) -> fx.Node:
    """A piece of what the rank has, in a row."""
    return transfer.reshape(transfer.contiguous(_cut(transfer, transfer.own, piece)), -1)


def _zeros(transfer: Transfer, count: int) -> fx.Node:
    dtype = to_torch_dtype(transfer.source.dtype)
    return transfer.add(aten.zeros.default, [count], dtype=dtype, device=transfer.place.device)


def _cut(transfer: Transfer, node: fx.Node, piece: Piece) -> fx.Node:
    for dim, (start, end) in enumerate(piece.taken):
        if end - start < transfer.source.shape[dim]:
            node = transfer.add(aten.slice.Tensor, node, dim, start, end)
    return node


def _unpacked(transfer: Transfer, arrived: fx.Node, taken: Sequence[Piece]) -> fx.Node:
    """What has arrived, put together or added up."""
    shape = transfer.target.shape
    if transfer.collective.reduce:
        parts = transfer.reshape(arrived, len(taken), *shape)
        if transfer.collective.reduce == "max":
            return transfer.add(aten.amax.default, parts, [0])
        dtype = to_torch_dtype(transfer.target.dtype)
        return transfer.add(aten.sum.dim_IntList, parts, [0], dtype=dtype)
    sizes = [tuple(end - start for start, end in piece.put) for piece in taken]
    ends = list(itertools.accumulate(map(prod, sizes)))
    parts = [
        transfer.reshape(transfer.add(aten.slice.Tensor, arrived, 0, end - prod(size), end), *size)
        for size, end in zip(sizes, ends, strict=True)
    ]
    if len(parts) == 1:
        return parts[0]
    dim = transfer.collective.source_dim
    in_order = sorted(range(len(taken)), key=lambda n: taken[n].put[dim])
    return transfer.add(aten.cat.default, [parts[n] for n in in_order], dim)
