"""Capture: from a workload to its program."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import Tensor, nn

from weft.capture.fused import factorise
from weft.capture.lower import to_program
from weft.capture.simplify import simplify
from weft.capture.source import describe, first_line, line_of_error
from weft.capture.stack import Stack, cut, find_stack
from weft.capture.trace import Trace, first_batch, make_model, trace
from weft.capture.workload import Workload
from weft.core.collector import collector_paused
from weft.core.errors import CaptureError, WeftError
from weft.program.annotation import Annotation
from weft.program.graph import Program
from weft.program.lengthen import lengthen
from weft.program.verify import verify

__all__ = ["capture"]

_log = logging.getLogger("weft.capture")

_BASE_DEPTH = 5
"""Layers that a deep program grows from: the first and the last, and between them one that is
repeated and its neighbours."""

_MIN_DEPTH = 16
"""From this depth on, tracing 11 layers and one forward is quicker than tracing all."""


def capture(workload: Workload) -> Program:
    """The workload's whole training step as a program: forward, backward and optimizer.

    No parameter is allocated and nothing is computed: the step runs once on fake tensors.
    What Python computes on the way (`random`, `time`, a counter that the model keeps in an
    attribute) is therefore the same number in every step of the program, without a warning.
    What has to change from step to step is a batch entry, a buffer, or drawn by torch, whose
    random numbers follow from the seed of the step.

    Args:
        workload: what to train.

    Returns:
        A legal program of the operators in `weft.program.operators`.

    Raises:
        CaptureError: the step depends on values, a trainable parameter gets no gradient, or an
            operator has no form in a program; the error names the parameter or the operator,
            its module and the user's line.
        InputError: a function of the workload raises, or returns the wrong kind of thing.

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
        with collector_paused():
            model = make_model(workload)
            batch, stack = first_batch(workload), find_stack(model, _MIN_DEPTH)
            program = None if stack is None else _by_replication(workload, model, batch, stack)
            if program is None:
                program = _by_full_trace(workload, make_model(workload) if stack else model, batch)
            verify(program)
    except WeftError as error:
        raise error.within(workload.name) from error.__cause__
    except RecursionError as error:
        raise CaptureError(
            need="a model that is not nested too deeply",
            got=f"RecursionError: {first_line(error)}{describe('', line_of_error(error))}",
            hint="look for a module that holds itself; keep layers in one nn.ModuleList",
        ).within(workload.name) from error
    return program


def _by_full_trace(workload: Workload, model: nn.Module, batch: Mapping[str, Tensor]) -> Program:
    return _traced(trace(workload, model, batch))


def _traced(traced: Trace) -> Program:
    """The program of a trace, which has something of every block that pins.

    Raises:
        CaptureError: of a block nothing is left.
    """
    whole = to_program(traced)
    program = factorise(simplify(whole))
    left = _blocks(program)
    lost = [str(pin) for block, pin in _blocks(whole).items() if block not in left]
    if lost:
        raise CaptureError(
            need="blocks of weft.pinned that compute tensors of the step",
            got=f"{lost[0]}, whose tensors are only views that other operators take in",
            hint="pin what reads them, or the tensors that they are views of",
        )
    return program


def _blocks(program: Program) -> dict[tuple[str, bool], Annotation]:
    """A pin of each block that pins, by the block's line and whether it names a stage."""
    return {(pin.source, pin.is_stage): pin for node in program.nodes for pin in node.pins}


def _by_replication(
    workload: Workload, model: nn.Module, batch: Mapping[str, Tensor], stack: Stack
) -> Program | None:
    """Trace few layers and repeat the middle one; None if that is not what the model does.

    The whole model's forward is traced as well, and the repeated forward has to equal it node
    by node. That backward and update repeat in the same way is checked on one more layer.

    The model is cut on the way and must not be used again.
    """
    forward = to_program(trace(workload, model, batch, forward_only=True))
    try:
        cut(model, stack, _BASE_DEPTH + 1)
        longer = _by_full_trace(workload, model, batch)
        cut(model, stack, _BASE_DEPTH)
        base = _by_full_trace(workload, model, batch)
        base_forward = to_program(trace(workload, model, batch, forward_only=True))
    except CaptureError as error:
        _log.info("%s: traced whole: cut to %d layers, %s", workload.name, _BASE_DEPTH, error)
        return None
    checks = ((base, longer, _BASE_DEPTH + 1), (base_forward, forward, stack.depth))
    for start, traced, depth in checks:
        grown = _grown(start, stack, depth)
        if grown is None or grown.digest != traced.digest:
            _log.info("%s: traced whole: layers of %s differ", workload.name, stack.path)
            return None
    return _grown(base, stack, stack.depth)


def _grown(base: Program, stack: Stack, depth: int) -> Program | None:
    """The program with its stack grown to `depth` layers; None if the inner ones differ."""
    lower = _BASE_DEPTH // 2
    found = lengthen(base, stack.path, lower, depth - _BASE_DEPTH)
    return None if found is None else found.program
