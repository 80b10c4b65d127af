"""Capture: from a workload to its program."""

from __future__ import annotations

from weft.capture.lower import to_program
from weft.capture.simplify import simplify
from weft.capture.trace import make_model, trace
from weft.capture.workload import Workload
from weft.core.errors import WeftError
from weft.program.graph import Program
from weft.program.verify import verify

__all__ = ["capture"]


def capture(workload: Workload) -> Program:
    """The workload's whole training step as a program: forward, backward and optimizer.

    No parameter is allocated and nothing is computed: the step runs once on fake tensors.

    Args:
        workload: what to train.

    Returns:
        A legal program of the operators in `weft.program.operators`.

    Raises:
        CaptureError: the step depends on values, a trainable parameter gets no gradient, or an
            operator has no form in a program; the error names the parameter or the operator,
            its module and the user's line.

    Example:
        >>> import torch
        >>> from weft.capture import SGD, Workload, capture
        >>> program = capture(
        ...     Workload(
        ...         name="line",
        ...         model=lambda: torch.nn.Linear(2, 1),
        ...         loss=lambda model, batch: model(batch["x"]).square().mean(),
        ...         batch=lambda step: {"x": torch.ones(4, 2)},
        ...         optimizer=SGD(lr=0.1),
        ...     )
        ... )
        >>> print(*(i.name for i in program.inputs), sep=", ")
        weight, bias, optimizer.step, batch.x, seed
    """
    try:
        program = simplify(to_program(trace(workload, make_model(workload))))
        verify(program)
    except WeftError as error:
        raise error.within(workload.name) from error.__cause__
    return program
