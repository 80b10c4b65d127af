"""A denoiser, with what a controller has to know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from weft.diffusion.compat import Call

__all__ = ["Denoiser"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoiser:
    """A denoiser of a pipeline.

    Attributes:
        name: of the pipeline's component; "small" for a small relative.
        module: itself.
        num_blocks: over all of its lists of blocks.
        translate: what is done with a call that was meant for another model, and with its output;
            None if nothing.
    """

    name: str
    module: nn.Module
    num_blocks: int
    translate: Callable[[Call], tuple[Call, Callable[[Tensor], Tensor]]] | None = None
