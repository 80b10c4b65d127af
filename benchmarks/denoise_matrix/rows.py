"""What blocks compute, as torch's own hooks see it: a count that is not weft's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from weft.diffusion.compat import blocks_of

__all__ = ["rows_computed"]


@contextmanager
def rows_computed(pipe: object) -> Iterator[list[int]]:
    """Rows that a linear layer of each block is given, at each of its calls."""
    found: list[int] = []
    handles = []

    def count(_: nn.Module, given: tuple[Tensor, ...], __: object) -> None:
        found.append(len(given[0]))

    for name in ("transformer", "transformer_2"):
        module = getattr(pipe, name, None)
        for block in blocks_of(module) if isinstance(module, nn.Module) else ():
            layer = next(part for part in block.modules() if isinstance(part, nn.Linear))
            handles.append(layer.register_forward_hook(count))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
