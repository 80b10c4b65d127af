"""Rules of operators that rename or copy elements: view, permute, expand, slice, cat.

A cut of a dim that is split or merged survives only in the first factor: equal blocks of the
first factor are equal contiguous blocks of the whole group, those of a later factor are not.
Sums and maxima pass: an element is moved, whichever device holds how much of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from weft.parallel.placement import PARTIAL, PARTIAL_MAX, REPLICATED
from weft.parallel.rules.rule import Call, Rule

__all__ = [
    "cat_rules",
    "expand_rules",
    "permute_rules",
    "send_rules",
    "slice_backward_rules",
    "slice_rules",
    "view_rules",
]

_PASS = (Rule((PARTIAL,), (PARTIAL,)), Rule((PARTIAL_MAX,), (PARTIAL_MAX,)))


def view_rules(call: Call) -> Iterator[Rule]:
    """Rules of a reshape: the first factors of each group of dims that keeps its elements."""
    (source,), (target,) = call.operands, call.outputs
    for source_dim, target_dim in _leading_factors(source.shape, target.shape):
        yield Rule((target_dim,), (source_dim,))
    yield from _PASS


def _leading_factors(source: tuple[int, ...], target: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Pairs of dims that begin the smallest groups with equal products; sizes 1 are no factors."""
    if 0 in source:
        return
    left = [dim for dim, size in enumerate(source) if size > 1]
    right = [dim for dim, size in enumerate(target) if size > 1]
    while left and right:
        take_left = take_right = 1
        while (have := prod(source[d] for d in left[:take_left])) != (
            want := prod(target[d] for d in right[:take_right])
        ):
            if have < want:
                take_left += 1
            else:
                take_right += 1
        yield left[0], right[0]
        left, right = left[take_left:], right[take_right:]


def permute_rules(call: Call) -> Iterator[Rule]:
    """Rules of a transposition: each cut moves with its dim."""
    rank = len(call.operands[0].shape)
    for target_dim, source_dim in enumerate(call.numbers(1)):
        yield Rule((target_dim,), (source_dim % rank,))
    yield from _PASS


def expand_rules(call: Call) -> Iterator[Rule]:
    """Rules of a repetition: a repeated dim is cut for free, its source is whole anyway."""
    (source,), (target,) = call.operands, call.outputs
    new = len(target.shape) - len(source.shape)
    for dim, size in enumerate(target.shape):
        kept = dim >= new and source.shape[dim - new] == size
        yield Rule((dim,), (dim - new if kept else REPLICATED,))
    yield from _PASS


def slice_rules(call: Call) -> Iterator[Rule]:
    """Rules of a slice: the dims that keep all their elements."""
    for dim, size in enumerate(call.outputs[0].shape):
        if size == call.operands[0].shape[dim]:
            yield Rule((dim,), (dim,))
    yield from _PASS


def slice_backward_rules(call: Call) -> Iterator[Rule]:
    """Rules of padding with zeros: the unpadded dims. Zeros everywhere sum and max to zero."""
    yield from slice_rules(call)


def cat_rules(call: Call) -> Iterator[Rule]:
    """Rules of a concatenation: every other dim, sums and maxima, in all operands alike."""
    (out,), count = call.outputs, len(call.operands)
    rank = len(out.shape)
    # ATen lets an empty vector stand among tensors of any rank; it has no dims to cut.
    if all(len(operand.shape) == rank for operand in call.operands):
        joined = call.dim(1, rank)
        for dim in range(rank):
            if dim != joined:
                yield Rule((dim,), (dim,) * count)
    yield Rule((PARTIAL,), (PARTIAL,) * count)
    yield Rule((PARTIAL_MAX,), (PARTIAL_MAX,) * count)


def send_rules(call: Call) -> Iterator[Rule]:
    """Rules of what goes to another stage: any dim; nothing with a pending reduction leaves."""
    for dim in range(len(call.outputs[0].shape)):
        yield Rule((dim,), (dim,))
