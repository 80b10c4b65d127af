"""What denoisers compute, counted where it is computed: a count that is nobody's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

__all__ = ["Work", "counted"]


class Work:
    """Multiplications of linear layers.

    Attributes:
        done: so far.
    """

    def __init__(self) -> None:
        self.done = 0

    def add(self, layer: nn.Module, given: tuple[Tensor, ...], _: object) -> None:
        """One call of a layer."""
        assert isinstance(layer, nn.Linear)
        self.done += given[0].numel() * layer.out_features


@contextmanager
def counted(denoisers: Sequence[nn.Module]) -> Iterator[Work]:
    """Count what linear layers of some denoisers multiply."""
    work = Work()
    layers = [m for own in denoisers for m in own.modules() if isinstance(m, nn.Linear)]
    handles = [layer.register_forward_hook(work.add) for layer in layers]
    try:
        yield work
    finally:
        for handle in handles:
            handle.remove()
