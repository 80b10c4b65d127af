"""The door from torch into `Program`: a workload's whole training step, traced and reduced.

`capture` traces forward, backward and optimizer as one graph on fake tensors and reduces it to
the operators of `weft.program.operators`. `make_step` runs the same step on real tensors.
"""

from weft.capture.optimizer import SGD, Adafactor, AdamW, Optimizer
from weft.capture.program import capture
from weft.capture.step import initial_state, make_step
from weft.capture.workload import Workload

__all__ = [
    "SGD",
    "Adafactor",
    "AdamW",
    "Optimizer",
    "Workload",
    "capture",
    "initial_state",
    "make_step",
]
