"""The state before the first step, one tensor at a time: what a rank starts with is a part of it.

The model factory and the optimizer's first state are recorded (`weft.capture.deferred`) and then
run for real (`weft.capture.replay`), so no more than one whole tensor is there at a time, and
each has the bits that it has in `initial_state`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from torch import Tensor

from weft.capture.deferred import Deferred, Recorder, Unable
from weft.capture.replay import evaluate, replay
from weft.capture.source import first_line
from weft.capture.step import State, initial_state
from weft.capture.tensors import module_tensors
from weft.capture.workload import Workload, build_model

__all__ = ["visit_initial_state"]

_LOG = logging.getLogger("weft.capture")


def visit_initial_state(
    workload: Workload,
    visit: Callable[[str, Tensor], None],
    names: Collection[str] | None = None,
) -> str:
    """Make the tensors of `initial_state` one after the other, and hand each over.

    A factory that reads random values out of a tensor, asks for a tensor's address or works
    on another device than the CPU cannot be put off: the state is then built whole, as
    `initial_state` does, and a tensor may be handed over a second time.

    Args:
        workload: what to train.
        visit: takes the name and the whole tensor, in no certain order, and keeps copies of
            what it wants. Memory of the tensor is freed or used again when it returns. A tensor
            of one value throughout has one element that stands for all (its strides are 0).
        names: of the tensors that are wanted; all if left out. Others are not made.

    Returns:
        Why the state was built whole; empty if it was not.

    Raises:
        InputError: the factory makes no module.
        CaptureError: the factory raises, or its model is on the meta device.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from weft.capture import SGD
        >>> workload = Workload(
        ...     name="line",
        ...     model=lambda: nn.Linear(2, 1),
        ...     loss=lambda model, batch: model(batch["x"]).square().mean(),
        ...     batch=lambda step: {"x": torch.ones(4, 2)},
        ...     optimizer=SGD(lr=0.1),
        ... )
        >>> visit_initial_state(workload, lambda name, whole: print(name, list(whole.shape)))
        optimizer.step []
        weight [1, 2]
        bias [1]
        ''
    """
    recorder = Recorder(evaluate)
    try:
        with recorder:
            state = _recorded_state(workload)
        wanted = {name: t for name, t in state.items() if names is None or name in names}
        later = {name: t for name, t in wanted.items() if isinstance(t, Deferred)}
        replay(recorder, {name: recorder.layout(t) for name, t in later.items()}, visit)
    except (Unable, _Failed) as error:
        recorder.generators.restore()
        _LOG.info("%s: the first state is built whole: %s", workload.name, error)
        _visit_whole(initial_state(workload), visit, names)
        return str(error)
    for name, tensor in wanted.items():
        if name not in later:
            visit(name, tensor)
    return ""


class _Failed(Exception):
    """The factory raised without values; with them it may not."""


def _recorded_state(workload: Workload) -> State:
    try:
        tensors = module_tensors(build_model(workload))
        parameters = {name: t.detach() for name, t in tensors.trainable.items()}
        fixed = {name: t.detach() for name, t in tensors.fixed.items()}
        return parameters | fixed | workload.pure_optimizer.init(parameters)
    except Exception as error:
        raise _Failed(f"{type(error).__name__}: {first_line(error)}") from error


def _visit_whole(
    state: State, visit: Callable[[str, Tensor], None], names: Collection[str] | None
) -> None:
    for name in list(state):
        tensor = state.pop(name)
        if names is None or name in names:
            visit(name, tensor)
