"""Leaves as intervals, as narrow as all numbers of a usage together make them."""

from __future__ import annotations

from collections.abc import Sequence

from weft.core.errors import InputError
from weft.tokens.adapters.shape import Shape, leaf_class, mismatch
from weft.tokens.classes import TokenClass
from weft.tokens.count import UNKNOWN, Count, exactly
from weft.tokens.usage import Usage

__all__ = ["bounded"]


def bounded(
    shape: Shape, values: Sequence[int | None], *, broke_off: bool, max_tokens: int | None
) -> Usage:
    """Tokens by class, from numbers that leave something open.

    Args:
        shape: what the numbers mean.
        values: they, in order; None where one is missing.
        broke_off: what was generated is known from below.
        max_tokens: the most that could be generated.

    Raises:
        InputError: no counts agree with all of the numbers.
    """
    known: list[Count] = []
    for number, value in zip(shape.numbers, values, strict=True):
        count = UNKNOWN if value is None else exactly(value)
        is_output = number.leaves <= shape.output_leaves
        if broke_off and number.leaves & shape.output_leaves:
            # What was seen of it, or of a total that it is part of, may have gone on.
            count = Count(count.low, None)
        if is_output and count.high is None and max_tokens is not None:
            count = Count(count.low, max(max_tokens, count.low))
        known.append(count)
    leaves = _narrowed(shape, known)
    counts: dict[TokenClass, Count] = {}
    for leaf, own in leaves.items():
        kind = leaf_class(leaf)
        counts[kind] = counts[kind] + own if kind in counts else own
    read, written = (
        sum((known[place] for place in shape.index(names)), exactly(0))
        for names in (shape.input, shape.output)
    )
    if shape.total:
        total = known[shape.index((shape.total,))[0]]
        read, written = _rest(shape, total, written, read), _rest(shape, total, read, written)
    return Usage(counts=counts, input=read, output=written)


def _narrowed(shape: Shape, known: Sequence[Count]) -> dict[str, Count]:
    """Bounds of each leaf that agree with every number."""
    bounds = dict.fromkeys(sorted(shape.input_leaves | shape.output_leaves), UNKNOWN)
    told = [
        (number, count)
        for number, count in zip(shape.numbers, known, strict=True)
        if count != UNKNOWN
    ]
    changed = True
    while changed:
        changed = False
        for number, count in told:
            low = sum(bounds[leaf].low for leaf in number.leaves)
            highs = [bounds[leaf].high for leaf in number.leaves]
            num_open = highs.count(None)
            high = sum(end for end in highs if end is not None)
            for leaf in number.leaves:
                own = bounds[leaf]
                # The others end where all end without this one; two open ends are one too many.
                is_open = num_open > (own.high is None)
                others = Count(low - own.low, None if is_open else high - (own.high or 0))
                narrow = _rest(shape, count, others, own, number.name)
                if narrow != own:
                    bounds[leaf], changed = narrow, True
                    low += narrow.low - own.low
                    num_open -= own.high is None and narrow.high is not None
                    high += (narrow.high or 0) - (own.high or 0)
    return bounds


def _rest(shape: Shape, whole: Count, others: Count, own: Count, name: str = "") -> Count:
    """What is left of a whole for one part of it, beside the others and by what is known of it."""
    low = own.low if others.high is None else max(own.low, whole.low - others.high)
    ends = [own.high, None if whole.high is None else whole.high - others.low]
    high = min((end for end in ends if end is not None), default=None)
    if high is not None and high < low:
        raise _impossible(shape, name or shape.total, whole, others, own)
    return Count(low, high)


def _impossible(shape: Shape, name: str, whole: Count, others: Count, own: Count) -> InputError:
    return mismatch(
        shape,
        need=f"{name} to be the sum of its parts",
        got=f"{name} {whole}, of parts that are {own} and {others}",
    )
