"""How many kernels a compiled model has, and what they move.

A kernel is, of Inductor, a node of its scheduler that is left after fusion and is no call of a
library; of weft, a region. Bytes are those of tensors outside of a kernel, each place once however
often it is read, a store counted 1.5 times (`weft.fusion.cost.STORED`): of Inductor as its
scheduler counts them, of weft as in `FusionPlan.num_bytes`. Matrix products, convolutions and
attention are in neither number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch._inductor import config
from torch._inductor.scheduler import (
    BaseSchedulerNode,
    ExternKernelSchedulerNode,
    NopKernelSchedulerNode,
)

from weft.fusion.backend import Observed, compile_graph, folder
from weft.fusion.calibrate import calibrated
from weft.fusion.cost import STORED
from weft.fusion.kernel import read_kernel
from weft.fusion.plan import FusionPlan

__all__ = ["Ledger", "Traffic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Kernels and what they move.

    Attributes:
        kernels: of Inductor and of weft together.
        num_bytes: that they read and write [bytes].
        regions: of weft, among the kernels.
        left: regions that weft left to Inductor.
    """

    kernels: int
    num_bytes: float
    regions: int = 0
    left: int = 0


@dataclass
class Ledger:
    """Counts what is compiled while it listens."""

    seen: list[Observed] = field(default_factory=list[Observed])
    _kernels: int = 0
    _bytes: float = 0.0

    @property
    def backend(self) -> Callable[..., object]:
        """Weft's back end, which tells of its regions."""
        return partial(compile_graph, observer=self.seen.append)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Count what Inductor compiles meanwhile, backward passes included."""
        with config.patch(_post_fusion_custom_pass=self._count):
            yield

    def traffic(self) -> Traffic:
        """What was counted so far."""
        regions = [one for one in self.seen if one.region is not None]
        taken = [one.region.digest for one in regions if one.region and not one.left]
        return Traffic(
            kernels=self._kernels + len(taken),
            num_bytes=self._bytes + sum(map(_planned_bytes, taken)),
            regions=len(taken),
            left=len(regions) - len(taken),
        )

    def _count(self, nodes: Sequence[BaseSchedulerNode]) -> list[BaseSchedulerNode]:
        for node in nodes:
            if not isinstance(node, ExternKernelSchedulerNode | NopKernelSchedulerNode):
                self._kernels += 1
                self._bytes += node.get_read_buffer_sizes() + STORED * node.get_write_buffer_sizes()
        return list(nodes)


def _planned_bytes(digest: str) -> float:
    """What the kernel of a region moves [bytes]."""
    threads = calibrated(torch.get_num_threads(), folder()).threads
    kernel = read_kernel(folder() / f"region_{digest}_{threads}.json")
    return FusionPlan.from_json(kernel.description.plan).num_bytes
