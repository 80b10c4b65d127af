"""Rules that keep dims in blocks: what is taken from or joined to a fused dim, block by block.

Asked only where a program holds a parameter with a dim in factors (`weft.capture.fused`). A
fused projection makes [B,T,3D] of which each third goes its own way. Held as [B,T,3,D], a third
is an element of an undivided dim, and D may be split over devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from weft.capture.simplify.dims import parts_of
from weft.capture.simplify.rewriter import Results, Rewriter, Rule, Shape
from weft.program.graph import Arg, Phase, Value

__all__ = ["BLOCKS"]


def _slice(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    """Blocks of a merged dim, taken before the blocks are merged."""
    x, dim, start, end, step = args
    assert isinstance(x, Value) and isinstance(dim, int)
    assert isinstance(start, int) and isinstance(end, int)
    part = parts_of(r, x)[dim]
    if part not in r.factors or step != 1 or start % part[1] or end % part[1]:
        return None
    shape, block = r.shape(x), part[1]
    fine = r.add("view", x, (*shape[:dim], *part, *shape[dim + 1 :]))
    made = r.add("slice", fine, dim, start // block, end // block, 1)
    return r.add_all("view", made, (*shape[:dim], end - start, *shape[dim + 1 :]))


def _cat(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    """Gradients of blocks, joined as blocks."""
    tensors, dim = args
    assert isinstance(tensors, tuple) and isinstance(dim, int)
    pieces = [t for t in tensors if isinstance(t, Value)]
    sizes = [r.shape(piece)[dim] for piece in pieces]
    factor = _factor(r, sum(sizes), sizes)
    if factor is None:
        return None
    made = r.add("cat", tuple(_in_blocks(r, piece, dim, factor[1]) for piece in pieces), dim)
    shape = r.shape(pieces[0])
    return r.add_all("view", made, (*shape[:dim], sum(sizes), *shape[dim + 1 :]))


def _slice_backward(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    """The gradient of some blocks, among blocks of zeros."""
    grad, size, dim, start, end, step = args
    assert isinstance(grad, Value) and isinstance(size, tuple) and isinstance(dim, int)
    assert isinstance(start, int) and isinstance(end, int)
    whole = tuple(n for n in size if isinstance(n, int))
    factor = _factor(r, whole[dim], (start, end))
    if factor is None or step != 1:
        return None
    _, block = factor
    fine = (*whole[:dim], *factor, *whole[dim + 1 :])
    inner = _in_blocks(r, grad, dim, block)
    made = r.add("slice_backward", inner, fine, dim, start // block, end // block, 1)
    return r.add_all("view", made, whole)


def _factor(r: Rewriter, size: int, edges: Sequence[int]) -> Shape | None:
    """The factors of a gradient's dim of that size, of which all edges are between blocks."""
    if r.phase is Phase.FORWARD:
        return None
    fitting = [
        factor
        for factor in r.factors
        if factor[0] * factor[1] == size and not any(edge % factor[1] for edge in edges)
    ]
    return max(fitting, key=lambda factor: factor[1], default=None)


def _in_blocks(r: Rewriter, value: Value, dim: int, block: int) -> Value:
    shape = r.shape(value)
    return r.add("view", value, (*shape[:dim], shape[dim] // block, block, *shape[dim + 1 :]))


def _add(r: Rewriter, args: tuple[Arg, ...]) -> Results | None:
    """Gradients of neighbouring blocks among zeros: joined, which needs no sum."""
    if len(args) != 2:
        return None
    left, right = (r.made_by(arg, "slice_backward") for arg in args)
    if left is None or right is None or left[1:3] != right[1:3] or left[5] != 1 or right[5] != 1:
        return None
    if left[4] != right[3]:
        left, right = right, left
    size, dim = left[1:3]
    assert isinstance(size, tuple) and isinstance(dim, int)
    if left[4] != right[3] or all(size[dim] != blocks for blocks, _ in r.factors):
        return None
    joined = r.add("cat", (*_pieces(r, left[0], dim), *_pieces(r, right[0], dim)), dim)
    if (left[3], right[4]) == (0, size[dim]):
        return (joined,)
    return r.add_all("slice_backward", joined, size, dim, left[3], right[4], 1)


def _pieces(r: Rewriter, value: Arg, dim: int) -> tuple[Arg, ...]:
    """What a value is joined of along a dim; itself if it is not."""
    inner = r.made_by(value, "cat")
    return (
        inner[0]
        if inner is not None and inner[1] == dim and isinstance(inner[0], tuple)
        else (value,)
    )


BLOCKS: Mapping[str, tuple[Rule, ...]] = {
    "slice": (_slice,),
    "cat": (_cat,),
    "slice_backward": (_slice_backward,),
    "add.Tensor": (_add,),
}
