"""What denoisers and their blocks compute, counted by torch's own hooks and not by weft's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from weft.diffusion.compat import blocks_of

__all__ = ["Rows", "rows_computed"]


@dataclass(slots=True, kw_only=True)
class Rows:
    """Rows of batches that were computed, summed up over all calls.

    Attributes:
        outputs: by the layer that every denoiser's output comes from.
        blocks: by a linear layer of each block.
    """

    outputs: int = 0
    blocks: int = 0


@contextmanager
def rows_computed(denoisers: Sequence[nn.Module]) -> Iterator[Rows]:
    """Count what some denoisers compute."""
    found = Rows()

    def output(_: nn.Module, given: tuple[Tensor, ...], __: object) -> None:
        found.outputs += len(given[0])

    def block(_: nn.Module, given: tuple[Tensor, ...], __: object) -> None:
        found.blocks += len(given[0])

    handles = [own.get_submodule("proj_out").register_forward_hook(output) for own in denoisers]
    for own in denoisers:
        for part in blocks_of(own):
            layer = next(inner for inner in part.modules() if isinstance(inner, nn.Linear))
            handles.append(layer.register_forward_hook(block))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
