"""Which dims a view merges: pure functions of two shapes."""

from __future__ import annotations

from math import prod

from weft.capture.simplify.rewriter import Rewriter, Shape
from weft.program.graph import Value

__all__ = ["Parts", "leading_parts_of", "merged_parts", "parts_of", "split_shape"]

Parts = tuple[Shape, ...]
"""For each dim the sizes that it is made of, outermost first; only (n,) if it is whole."""


def merged_parts(fine: Shape, coarse: Shape) -> Parts | None:
    """Sizes that each dim of `coarse` merges, if `coarse` only merges dims of `fine`.

    Dims of size 1 do not count.

    Example:
        >>> merged_parts((2, 3, 1, 4), (6, 4)), merged_parts((6,), (2, 3))
        (((2, 3), (4,)), None)
    """
    sizes = [n for n in fine if n != 1]
    parts: list[Shape] = []
    for n in coarse:
        taken: list[int] = []
        product = 1
        while product < n and sizes:
            taken.append(sizes.pop(0))
            product *= taken[-1]
        if product != n:
            return None
        parts.append(tuple(taken) if taken else (n,))
    return None if sizes else tuple(parts)


def parts_of(rewriter: Rewriter, value: Value) -> Parts:
    """What the dims of a value merge: more than one size where it is a view that merges."""
    shape = rewriter.shape(value)
    whole = tuple((n,) for n in shape)
    made = rewriter.made_by(value, "view")
    if made is None or 0 in shape:
        return whole
    source = made[0]
    assert isinstance(source, Value)
    parts = merged_parts(rewriter.shape(source), shape) or whole
    return tuple(_in_blocks(part, rewriter.factors) for part in parts)


def _in_blocks(part: Shape, factors: frozenset[Shape]) -> Shape:
    """A part whose leading sizes count the blocks of a factorised dim, as (blocks, block)."""
    for outer in range(1, len(part)):
        coarse = (prod(part[:outer]), prod(part[outer:]))
        if coarse in factors:
            return coarse
    return part


def leading_parts_of(rewriter: Rewriter, value: Value) -> Parts:
    """As `parts_of`, with the last dim whole if it is not the only one.

    The last dim holds features, such as all channels of all heads. Parameters have them merged
    as well, so taking them apart would only move the view to another place. Where parameters
    are held in blocks, so is it.
    """
    parts = parts_of(rewriter, value)
    if len(parts) < 2 or parts[-1] in rewriter.factors:
        return parts
    return (*parts[:-1], (rewriter.shape(value)[-1],))


def split_shape(parts: Parts) -> Shape:
    """The shape in which every dim is replaced by its parts."""
    return tuple(n for part in parts for n in part)
