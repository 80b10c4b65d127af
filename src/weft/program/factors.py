"""Dims in factors: how a program holds a tensor of which a model knows merged dims.

A fused weight [3D,D] may be held as [3,D,D]. Cutting the second dim of that takes the i-th part
of every block of 3D rows, which no cut of the model's own dim does. The elements are the same in
the same row-major order, so going from one shape to the other is a reshape.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TypeAlias

__all__ = ["Box", "block_dims", "factored_dims", "model_boxes"]

Shape: TypeAlias = tuple[int, ...]
Box: TypeAlias = tuple[tuple[int, int], ...]
"""Start and end along each dim."""


def factored_dims(held: Shape, model: Shape) -> tuple[tuple[int, ...], ...] | None:
    """For each dim of the model's shape, the dims of the held one that are its factors.

    Returns:
        At least one dim for each, all in order; None if `held` is no such shape.

    Example:
        >>> factored_dims((3, 8, 16), (24, 16)), factored_dims((8, 3), (4, 6))
        (((0, 1), (2,)), None)
    """
    groups: list[tuple[int, ...]] = []
    start = 0
    for size in model:
        end, extent = start, 1
        while end < len(held) and (end == start or extent < size):
            extent *= held[end]
            end += 1
        if end == start or extent != size:
            return None
        groups.append(tuple(range(start, end)))
        start = end
    return tuple(groups) if start == len(held) else None


def block_dims(held: Shape, model: Shape | None) -> frozenset[int]:
    """Held dims that count blocks: all but the last factor of each dim of the model.

    Example:
        >>> block_dims((3, 8, 16), (24, 16)), block_dims((24, 16), None)
        (frozenset({0}), frozenset())
    """
    groups = None if model is None else factored_dims(held, model)
    return frozenset(dim for group in groups or () for dim in group[:-1])


def model_boxes(box: Box, held: Shape, model: Shape) -> tuple[tuple[Box, Box], ...]:
    """What a box of the held tensor is of the model's: one box for each block that it touches.

    Args:
        box: part of the held tensor.
        held: its whole shape.
        model: the model's shape.

    Returns:
        Pairs of a box of the held tensor and the box of the model's with the same elements.

    Example:
        >>> for of_held, of_model in model_boxes(((0, 2), (4, 8)), (2, 8), (16,)):
        ...     print(of_held, of_model)
        ((0, 1), (4, 8)) ((4, 8),)
        ((1, 2), (4, 8)) ((12, 16),)
    """
    groups = factored_dims(held, model)
    assert groups is not None, "the program was verified"
    choices = [_pieces(group, box, held) for group in groups]
    return tuple(
        (
            tuple(span for of_held, _ in pieces for span in of_held),
            tuple(span for _, span in pieces),
        )
        for pieces in product(*choices)
    )


def _pieces(group: Sequence[int], box: Box, held: Shape) -> list[tuple[Box, tuple[int, int]]]:
    """Contiguous runs along one dim of the model: spans of its factors, and the run."""
    *outer, last = group
    found: list[tuple[Box, tuple[int, int]]] = []
    for indices in product(*(range(*box[dim]) for dim in outer)):
        block = 0
        for dim, index in zip(outer, indices, strict=True):
            block = block * held[dim] + index
        start, end = (block * held[last] + edge for edge in box[last])
        found.append(((*((i, i + 1) for i in indices), box[last]), (start, end)))
    return found
