"""How long a rank waits for communication that nothing hides.

On a CPU a wait ends when the data is there. On a GPU the host runs ahead of the device, so that
what is counted there is no more than the time in which the host was held up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, fx

__all__ = ["Clock"]

_WAIT = torch.ops._c10d_functional.wait_tensor.default


class Clock:
    """Adds up waits.

    Attributes:
        waited_s: time spent in waits since the last reset [s].
    """

    def __init__(self) -> None:
        self.waited_s = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.waited_s += time.perf_counter() - start

    def watch(self, module: fx.GraphModule) -> None:
        """Count the waits for collectives in a module from now on."""

        def wait_and_count(tensor: Tensor) -> Tensor:
            with self.waiting():
                return _WAIT(tensor)

        waits = [node for node in module.graph.nodes if node.target is _WAIT]
        for node in waits:
            node.target = wait_and_count
        if waits:
            module.recompile()
