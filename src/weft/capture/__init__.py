"""The door from torch into `Program`: a workload's whole training step, traced and reduced.

`capture` traces forward, backward and optimizer as one graph on fake tensors and reduces it to
the operators of `weft.program.operators`. `make_step` runs the same step on real tensors.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from weft.capture.block import pinned
from weft.capture.optimizer import SGD, Adafactor, AdamW, Optimizer
from weft.capture.program import capture
from weft.capture.step import initial_state, make_step
from weft.capture.workload import Workload

if TYPE_CHECKING:
    from weft.program.graph import Program

__all__ = [
    "SGD",
    "Adafactor",
    "AdamW",
    "Optimizer",
    "Workload",
    "capture",
    "initial_state",
    "make_step",
    "pinned",
]


class _Door(ModuleType):
    """The package itself, which can be called: `weft.capture(workload)`.

    At the root, the name of the function is also the name of this package, and importing any
    part of a package binds its name there.
    """

    def __call__(self, workload: Workload) -> Program:
        return capture(workload)


sys.modules[__name__].__class__ = _Door
