"""Tracing: one training step as a list of ATen calls, on fake tensors.

The model is made on the meta device, which costs no memory, but never run there: the step runs
on fake CPU tensors, because autograd on meta tensors loses parameter gradients with no more
than a warning. Below autograd every call passes torch's functionalization, which removes
in-place operations, then the recorder, which rewrites what `weft.capture.decompose` knows how
to rewrite and writes down the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode

from weft.capture.batch import require_batch
from weft.capture.dtypes import type_of
from weft.capture.optimizer import state_name
from weft.capture.position import at, here
from weft.capture.record import Call, Recorder
from weft.capture.source import describe, first_line, line_of_error, user_code
from weft.capture.step import State, bind_forward, bind_step
from weft.capture.tensors import ModuleTensors, module_tensors
from weft.capture.workload import Workload, build_model
from weft.core.errors import CaptureError, WeftError
from weft.program.graph import Role, Value
from weft.program.types import TensorType

__all__ = ["Trace", "TracedInput", "first_batch", "make_model", "trace"]

_log = logging.getLogger("weft.capture")


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedInput:
    """An input of the step, as in `weft.program.graph.Input`."""

    name: str
    role: Role
    type: TensorType
    parameter: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A training step as it ran on fake tensors."""

    name: str
    inputs: tuple[TracedInput, ...]
    calls: tuple[Call, ...]
    loss: Value
    updates: Mapping[str, Value]


def make_model(workload: Workload) -> nn.Module:
    """The workload's module with next to no memory for its tensors.

    All tensors are made on the meta device. If the factory looks at values of tensors, small
    ones are made for real instead.

    Raises:
        CaptureError: the factory needs the values of large tensors as well.
        InputError: the factory raises something else, or makes no module.
    """
    try:
        with torch.device("meta"):
            return build_model(workload)
    except WeftError:
        raise
    except Exception as error:  # whatever it is, the second attempt shows whose it is
        _log.info("%s: small tensors are made for real: %s", workload.name, first_line(error))
    with user_code("model factory"), _without_large_values(), _LargeOnMeta():
        return build_model(workload)


@contextmanager
def _without_large_values() -> Iterator[None]:
    """Say what it means if torch has no value to give."""
    try:
        yield
    except RecursionError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        raise CaptureError(
            need="a model factory that runs, and does not look at the values of large tensors",
            got=f"{type(error).__name__}: {first_line(error)}{describe('', line_of_error(error))}",
            hint="compute what the model's structure depends on from Python numbers",
        ) from error


class _LargeOnMeta(TorchFunctionMode):
    """While active, tensors of many elements are made on the meta device."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func in _CONSTRUCTORS and given.get("device") is None:
            empty = func(*args, **{**given, "device": "meta"})
            if empty.numel() > _MAX_REAL_ELEMENTS:
                return empty
        return func(*args, **given)


_MAX_REAL_ELEMENTS = 4096

_CONSTRUCTORS = frozenset(
    {
        *(torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn),
        *(torch.randint, torch.randperm, torch.arange, torch.linspace, torch.eye, torch.tensor),
    }
)


def first_batch(workload: Workload) -> dict[str, Tensor]:
    """The first batch, without its values.

    Raises:
        InputError: the batch function raises, or returns something else than a batch.
    """
    with user_code("batch function"):
        batch = require_batch(workload.batch(0), 0)
    return {key: torch.empty(v.shape, dtype=v.dtype, device="meta") for key, v in batch.items()}


def trace(
    workload: Workload,
    model: nn.Module,
    batch: Mapping[str, Tensor],
    *,
    forward_only: bool = False,
) -> Trace:
    """Run one training step of a module on fake tensors and write down what it did.

    Args:
        workload: what to train.
        model: the workload's module, from `make_model`; only its structure is used.
        batch: from `first_batch`; only shapes and element types are used.
        forward_only: stop at the loss.

    Raises:
        CaptureError: the step depends on the values of tensors, calls an operator that no
            program has, changes what it must not change, or breaks in any other way; the
            error names the operator, the module and the user's line.
    """
    tensors = module_tensors(model)
    with _on_cpu(), FakeTensorMode(allow_non_fake_inputs=True):
        with user_code("first state of the optimizer"):
            state, inputs = _fake_state(workload, tensors)
        entries = {key: torch.empty(v.shape, dtype=v.dtype) for key, v in batch.items()}
        inputs += tuple(
            TracedInput(name=f"batch.{key}", role=Role.BATCH, type=type_of(value))
            for key, value in entries.items()
        )
        seed = torch.zeros((), dtype=torch.int64)
        inputs += (TracedInput(name="seed", role=Role.SEED, type=type_of(seed)),)
        recorder = Recorder((*state.values(), *entries.values(), seed), _functionalized.__code__)
        step = (bind_forward if forward_only else bind_step)(workload, model)
        with _wrapped_errors(), _quiet(), _scopes(model), recorder:
            loss, new_state = _functionalized(step, state, entries, seed)
        updates = {name: recorder.value_of(tensor) for name, tensor in new_state.items()}
        return Trace(
            name=workload.name,
            inputs=inputs,
            calls=tuple(recorder.calls),
            loss=recorder.value_of(loss),
            updates=updates,
        )


def _on_cpu() -> AbstractContextManager[object]:
    """Make tensors on the CPU whatever the default device; the usual default costs nothing."""
    default = torch.get_default_device().type
    return nullcontext() if default == "cpu" else torch.device("cpu")


def _fake_state(
    workload: Workload, tensors: ModuleTensors
) -> tuple[State, tuple[TracedInput, ...]]:
    """Fake tensors for the state, and what they are, in the order of the program's inputs."""
    optimizer = workload.pure_optimizer
    parameters = {n: torch.empty(t.shape, dtype=t.dtype) for n, t in tensors.trainable.items()}
    fixed = {n: torch.empty(t.shape, dtype=t.dtype) for n, t in tensors.fixed.items()}
    slots = optimizer.init(parameters)
    owner = {
        state_name(slot, name): name
        for name, parameter in parameters.items()
        for slot in optimizer.slot_names(parameter)
    }
    roles = dict.fromkeys(parameters, Role.PARAMETER) | dict.fromkeys(fixed, Role.BUFFER)
    state = parameters | fixed | slots
    inputs = tuple(
        TracedInput(
            name=name,
            role=roles.get(name, Role.STATE),
            type=type_of(tensor),
            parameter=owner.get(name, ""),
        )
        for name, tensor in state.items()
    )
    return state, inputs


def _functionalized(
    step: Callable[..., tuple[Tensor, State]],
    state: State,
    batch: Mapping[str, Tensor],
    seed: Tensor,
) -> tuple[Tensor, State]:
    """Run the step with in-place operations turned into pure ones."""
    wrap = torch._to_functional_tensor
    wrapped = {name: wrap(tensor) for name, tensor in state.items()}
    torch._enable_functionalization(reapply_views=True)
    try:
        entries = {key: wrap(value) for key, value in batch.items()}
        loss, new_state = step(wrapped, entries, wrap(seed))
    finally:
        torch._disable_functionalization()
    return _unwrap(loss), {name: _unwrap(tensor) for name, tensor in new_state.items()}


def _unwrap(tensor: Tensor) -> Tensor:
    if not torch._is_functional_tensor(tensor):
        return tensor
    torch._sync(tensor)
    return torch._from_functional_tensor(tensor)


_ELSEWHERE = (
    "see with weft.capture.make_step, which runs the step on real tensors, if the model fails too"
)
_HIDDEN = (
    "the model keeps a tensor where capture does not look, in a list say: register it as a buffer"
)


@contextmanager
def _wrapped_errors() -> Iterator[None]:
    """Turn what goes wrong in the traced step into a capture error with the user's line."""
    try:
        yield
    except WeftError:
        raise
    except Exception as error:
        message = first_line(error)
        raise CaptureError(
            need="a training step that runs on tensors without values",
            got=f"{type(error).__name__}: {message}{describe('', line_of_error(error))}",
            hint=_HIDDEN if "meta" in message else _ELSEWHERE,
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from printing the traceback of what is raised and reported anyway."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def _scopes(model: nn.Module) -> Iterator[None]:
    """While active, what a module runs is marked with the module's path."""
    open_marks: list[Any] = []

    def enter(path: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            mark = at(here().phase, path)
            mark.__enter__()
            open_marks.append(mark)

        return hook

    def leave(*_: object) -> None:
        open_marks.pop().__exit__(None, None, None)

    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(path), prepend=True))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
