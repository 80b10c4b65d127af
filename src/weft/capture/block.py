"""Pins in a model's own code: a block that says where what it computes has to lie."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from weft.capture.position import pinned_at
from weft.capture.source import line_of_frame
from weft.program.annotation import Annotation, Wish

__all__ = ["pinned"]


def pinned(
    *,
    split: int | None = None,
    ways: int | None = None,
    replicated: bool = False,
    stage: int | None = None,
) -> AbstractContextManager[None]:
    """Pin every tensor that the operators in a block return, for `weft.plan` to keep to.

    What counts is what is computed from the batch or from parameters: not constants, and not
    parameters themselves, their casts and their views. Gradients follow from there. A tensor
    whose dims the block reorders is pinned as the operators return it. Blocks may be nested; an
    inner placement or stage replaces an outer one.

    The block computes what it would without the pin, in a captured step, in eager mode and
    under torch.compile.

    Args:
        split: dim that is cut; negative ones count from the last.
        ways: parts that it is cut into; any number if not given.
        replicated: every device holds the whole tensor.
        stage: pipeline stage in which the block is computed, from 0.

    Raises:
        InputError: none or several of `split`, `replicated` and `stage` are given.

    Example:
        >>> x = torch.ones(2, 3)
        >>> with pinned(split=0):
        ...     y = x * 2
        >>> y.sum().item()
        12.0
    """
    if torch.compiler.is_compiling():
        return nullcontext()
    wish = Wish(split=split, ways=ways, replicated=replicated, stage=stage)
    return pinned_at(Annotation(wish, line_of_frame(sys._getframe(1))))
