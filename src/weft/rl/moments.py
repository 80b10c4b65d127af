"""Inner products of gradients with their references, over all processes, in one exchange.

Products are summed in the precision of the gradients (float32 for half precision) over a thousand
elements and in float64 from there on. All that processes have to agree on travels in one vector of
float64: the products, how many processes met NaN or infinity, how many have no references, and how
many have stale samples. After the sum every process holds the same numbers, hence decides alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import torch
import torch.distributed as dist
from torch import Tensor

from weft.rl.shards import Batch, Shard, batches, working

__all__ = ["Moments", "measure"]

ROW = 1024
"""Elements that are summed in their own precision before float64 takes over.
Measured: 2 cores of an AMD EPYC, November 2026: inner products of 2**25 float32 with an error of
3e-10, at up to 1.5 times what sums in float32 alone take, whose error is 1e-7."""

FEW = 16 * ROW
"""Elements below which rows are not worth their calls.
Measured: as above; sums over 2**14 elements in float32 have an error of 1e-8."""

References = Callable[[Shard], Sequence[Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """What a decision is made from.

    Attributes:
        gram: inner products of gradient and references, in this order
            [groups, 1 + references, 1 + references], float64, finite.
        invalid: whether any process met NaN or infinity [].
        first: whether any process has no references [].
        stale: whether any process has stale samples [].
    """

    gram: Tensor
    invalid: Tensor
    first: Tensor
    stale: Tensor

    def to_host(self) -> Moments:
        """The same on the CPU; waits for the device once."""
        flags = torch.stack((self.invalid, self.first, self.stale)).to(torch.float64)
        packed = torch.cat((self.gram.flatten(), flags)).cpu()
        invalid, first, stale = (packed[-3:] > 0).unbind()
        gram = packed[:-3].view(self.gram.shape)
        return Moments(gram=gram, invalid=invalid, first=first, stale=stale)


def measure(
    shards: Sequence[Shard],
    references: References,
    *,
    count: int,
    groups: int = 1,
    has_history: bool = True,
    is_stale: bool = True,
    group: dist.ProcessGroup | None = None,
    device: torch.device | None = None,
) -> Moments:
    """Take the inner products of all gradients with their references.

    Args:
        shards: gradients, as far as they are here.
        references: of one of them, `count` tensors of its shape or none at all.
        count: references there are.
        groups: decisions to be made.
        has_history: False if this process has no references.
        is_stale: False if its samples are of the current weights.
        group: processes that hold the model; None for this one alone.
        device: where to sum; that of the first gradient if left out.

    Returns:
        The same on all processes of the group.
    """
    if device is None:
        device = shards[0].gradient.device if shards else torch.device("cpu")
    pairs = tuple(combinations_with_replacement(range(1 + count), 2))
    sums = torch.zeros(groups, len(pairs), dtype=torch.float64, device=device)
    for batch in batches(shards, references):
        found = _products(batch, pairs)
        sums[batch.group, : len(found)] += found.to(device) / batch.copies
    # NaN may not survive every kind of exchange, a count does.
    is_invalid = ~sums.isfinite().all()
    sums = sums.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    told = (torch.full_like(is_invalid, fact) for fact in (not has_history, is_stale))
    vector = torch.cat((sums.flatten(), torch.stack((is_invalid, *told)).to(torch.float64)))
    if group is not None and dist.get_world_size(group) > 1:
        dist.all_reduce(vector, group=group)
    invalid, first, stale = (vector[-3:] > 0).unbind()
    gram = _symmetric(vector[:-3].view(groups, -1), pairs, 1 + count)
    return Moments(gram=gram, invalid=invalid, first=first, stale=stale)


def _products(batch: Batch, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Products of all pairs of gradient and references [pairs], float64.

    Without references, that of the gradient with itself, which is the first pair.
    """
    likes = batch.gradients
    vectors = [
        [working(part, like).reshape(-1) for part, like in zip(parts, likes, strict=True)]
        for parts in (batch.gradients, *batch.references)
    ]
    wanted = pairs if batch.references else pairs[:1]
    if likes[0].device.type != "cpu":
        return _fused_products(vectors, wanted)
    found = [_dot(x, y) for i, j in wanted for x, y in zip(vectors[i], vectors[j], strict=True)]
    return torch.stack(found).view(len(wanted), -1).sum(1)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """An inner product, summed in float64 over rows [], float64."""
    whole = one.numel() // ROW * ROW
    if whole < FEW:
        return torch.dot(one, other).to(torch.float64)
    rows = torch.linalg.vecdot(one[:whole].view(-1, ROW), other[:whole].view(-1, ROW))
    total = rows.sum(dtype=torch.float64)
    if whole < one.numel():
        total = total + torch.dot(one[whole:], other[whole:])
    return total


def _fused_products(vectors: Sequence[list[Tensor]], pairs: Sequence[tuple[int, int]]) -> Tensor:
    """The same by few large kernels: norms, summed in float64, and norms of sums."""
    squares = [_squares(parts) for parts in vectors]
    found: list[Tensor] = []
    for i, j in pairs:
        if i == j:
            found.append(squares[i])
        else:
            both = _squares(list(torch._foreach_add(vectors[i], vectors[j])))
            found.append((both - squares[i] - squares[j]) / 2)
    return torch.stack(found)


def _squares(parts: list[Tensor]) -> Tensor:
    norms = torch._foreach_norm(parts, 2, dtype=torch.float64)
    return torch.stack(norms).square().sum()


def _symmetric(sums: Tensor, pairs: Sequence[tuple[int, int]], size: int) -> Tensor:
    """Matrices [groups, size, size] from their upper triangles [groups, pairs]."""
    at = {pair: n for n, pair in enumerate(pairs)}
    columns = [sums[:, at[min(i, j), max(i, j)]] for i in range(size) for j in range(size)]
    return torch.stack(columns, 1).view(-1, size, size)
