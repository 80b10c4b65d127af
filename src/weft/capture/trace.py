"""Tracing: one training step as a list of ATen calls, on fake tensors.

The model is made on the meta device, which costs no memory, but never run there: the step runs
on fake CPU tensors, because autograd on meta tensors loses parameter gradients with no more
than a warning. Below autograd every call passes torch's functionalization, which removes
in-place operations, then the recorder, which rewrites what `weft.capture.decompose` knows how
to rewrite and writes down the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from weft.capture.decompose import decomposition
from weft.capture.dtypes import type_of
from weft.capture.optimizer import state_name
from weft.capture.position import Position, at, here
from weft.capture.step import State, bind_step
from weft.capture.tensors import ModuleTensors, module_tensors
from weft.capture.workload import Workload, build_model
from weft.core.errors import CaptureError, WeftError
from weft.program.graph import Phase, Role, Value
from weft.program.types import TensorType

__all__ = ["Call", "Trace", "TracedInput", "make_model", "trace"]

_MAX_CONSTANT_ELEMENTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedInput:
    """An input of the step, as in `weft.program.graph.Input`."""

    name: str
    role: Role
    type: TensorType
    parameter: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call: the operator, its arguments with values in place of tensors, its result types.

    Values count inputs first, then calls. A constant that the model made is a call without an
    operator, whose arguments are its elements in row-major order.
    """

    op: OpOverload | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[TensorType | None, ...]
    position: Position
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A training step as it ran on fake tensors."""

    name: str
    inputs: tuple[TracedInput, ...]
    calls: tuple[Call, ...]
    loss: Value
    updates: Mapping[str, Value]


def make_model(workload: Workload) -> nn.Module:
    """The workload's module without memory for its tensors.

    Raises:
        CaptureError: the factory needs the values of its tensors, or leaves memory behind.
    """
    try:
        with torch.device("meta"):
            return build_model(workload)
    except (RuntimeError, NotImplementedError) as error:
        raise CaptureError(
            need="a model factory that does not look at the values of its tensors",
            got=_first_line(error),
            hint=f"make buffers from Python numbers{_at(_source_of(error.__traceback__))}",
        ) from error


def trace(workload: Workload, model: nn.Module) -> Trace:
    """Run one training step of a module on fake tensors and write down what it did.

    Args:
        workload: what to train.
        model: the workload's module, from `make_model`; only its structure is used.

    Raises:
        CaptureError: the step depends on the values of tensors, calls an operator that no
            program has, changes what it must not change, or breaks in any other way; the
            error names the operator, the module and the user's line.
    """
    tensors = module_tensors(model)
    batch = workload.batch(0)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        state, inputs = _fake_state(workload, tensors)
        entries = {key: fake.from_tensor(value) for key, value in batch.items()}
        inputs += tuple(
            TracedInput(name=f"batch.{key}", role=Role.BATCH, type=type_of(value))
            for key, value in entries.items()
        )
        seed = torch.zeros((), dtype=torch.int64)
        inputs += (TracedInput(name="seed", role=Role.SEED, type=type_of(seed)),)
        recorder = _Recorder((*state.values(), *entries.values(), seed))
        step = bind_step(workload, model)
        with _scopes(model), recorder, _wrapped_errors():
            loss, new_state = _functionalized(step, state, entries, seed)
        updates = {name: recorder.value_of(tensor) for name, tensor in new_state.items()}
        return Trace(
            name=workload.name,
            inputs=inputs,
            calls=tuple(recorder.calls),
            loss=recorder.value_of(loss),
            updates=updates,
        )


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
    roles = {n: Role.PARAMETER for n in parameters} | {n: Role.BUFFER for n in fixed}
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
    for name, before in wrapped.items():
        if torch._functionalize_has_data_mutation(before):
            raise CaptureError(
                need="a step that leaves its inputs as they are",
                got=f"{name} changed in place",
                hint="give the model a buffer instead of an outside tensor",
            )
    return _unwrap(loss), {name: _unwrap(tensor) for name, tensor in new_state.items()}


def _unwrap(tensor: Tensor) -> Tensor:
    if not torch._is_functional_tensor(tensor):
        return tensor
    torch._sync(tensor)
    return torch._from_functional_tensor(tensor)


class _Recorder(TorchDispatchMode):
    """Writes down each call that reaches the back end, with its position in the step."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.calls: list[Call] = []
        # Tensors are told apart by identity, so all of them have to stay alive.
        self._alive: list[Tensor] = list(inputs)
        self._values = {id(tensor): Value(number) for number, tensor in enumerate(inputs)}
        self._num_inputs = len(inputs)
        self._forward: dict[int, tuple[Position, str]] = {}
        self._in_decomposition: tuple[Position, str] | None = None

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func.namespace == "prim":
            return func(*args, **given)
        place = self._place()
        rule = decomposition(func)
        if rule is None:
            _require_traceable(func, place)
            out = func(*args, **given)
            self._record(func, args, given, out, place)
            return out
        outer, self._in_decomposition = self._in_decomposition, place
        try:
            with self:
                return rule(*args, **given)
        finally:
            self._in_decomposition = outer

    def value_of(self, tensor: Tensor) -> Value:
        """The value that a tensor of the trace stands for."""
        found = self._values.get(id(tensor))
        return self._constant(tensor) if found is None else found

    def _record(
        self,
        func: OpOverload,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        out: Any,
        place: tuple[Position, str],
    ) -> None:
        outputs = [out] if isinstance(out, Tensor) else list(out)
        refer = self._refer
        plain, named = refer(args), {key: refer(arg) for key, arg in kwargs.items()}
        number = self._num_inputs + len(self.calls)
        for output, tensor in enumerate(outputs):
            if isinstance(tensor, Tensor):
                self._alive.append(tensor)
                self._values[id(tensor)] = Value(number, output)
        self.calls.append(
            Call(
                op=func,
                args=plain,
                kwargs=named,
                outputs=tuple(type_of(t) if isinstance(t, Tensor) else None for t in outputs),
                position=place[0],
                source=place[1],
            )
        )

    def _refer(self, arg: Any) -> Any:
        if isinstance(arg, Tensor):
            return self.value_of(arg)
        if isinstance(arg, list | tuple):
            return tuple(self._refer(a) for a in arg)
        return arg

    def _constant(self, tensor: Tensor) -> Value:
        """A tensor that the step did not make: its elements go into the program if few."""
        position, source = self._place()
        if isinstance(tensor, FakeTensor) and tensor.constant is not None:
            tensor = tensor.constant
        if isinstance(tensor, FakeTensor) or tensor.is_meta:
            raise CaptureError(
                need="tensors that are inputs of the step or made by it",
                got=f"{type_of(tensor)} from outside{_in(position.scope)}{_at(source)}",
                hint="make it a registered buffer or an attribute of the module",
            )
        if tensor.numel() > _MAX_CONSTANT_ELEMENTS:
            raise CaptureError(
                need=f"constants of at most {_MAX_CONSTANT_ELEMENTS} elements in a forward",
                got=f"{type_of(tensor)}{_in(position.scope)}{_at(source)}",
                hint="register it as a buffer of the module",
            )
        value = Value(self._num_inputs + len(self.calls))
        self._alive.append(tensor)
        self._values[id(tensor)] = value
        self.calls.append(
            Call(
                op=None,
                args=tuple(tensor.flatten().tolist()),
                kwargs={},
                outputs=(type_of(tensor),),
                position=position,
                source=source,
            )
        )
        return value

    def _place(self) -> tuple[Position, str]:
        """Position and source line of the call, in backward those of its forward."""
        if self._in_decomposition is not None:
            return self._in_decomposition
        position = here()
        if position.phase is Phase.BACKWARD:
            node = torch._C._current_autograd_node()
            number = -1 if node is None else node._sequence_nr()
            forward = self._forward.get(number)
            if forward is None:
                return position, ""
            return Position(Phase.BACKWARD, forward[0].scope), forward[1]
        place = (position, _user_line(sys._getframe(1)))
        if position.phase is Phase.FORWARD:
            # The newest autograd node belongs to the first call that follows its making.
            self._forward.setdefault(torch.autograd._get_sequence_nr() - 1, place)
        return place


_DATA_DEPENDENT = {
    "aten::_local_scalar_dense": ".item(), bool(tensor) or a branch on a tensor",
    "aten::equal": "torch.equal",
    "aten::nonzero": "nonzero, or an index by a mask",
    "aten::masked_select": "masked_select",
    "aten::_unique2": "unique",
    "aten::unique_dim": "unique",
    "aten::bincount": "bincount",
    "aten::repeat_interleave.Tensor": "repeat_interleave by a tensor",
}


def _require_traceable(func: OpOverload, place: tuple[Position, str]) -> None:
    position, source = place
    if func.name() in _DATA_DEPENDENT or func._schema.name in _DATA_DEPENDENT:
        words = _DATA_DEPENDENT.get(func.name()) or _DATA_DEPENDENT[func._schema.name]
        raise CaptureError(
            need="a step whose operators and shapes do not depend on values",
            got=f"{words}{_in(position.scope)}{_at(source)}",
            hint="use torch.where or one-hot products in place of branches and masks",
        )
    if func._schema.is_mutable:
        raise CaptureError(
            need="operators that change nothing in place",
            got=f"{func}{_in(position.scope)}{_at(source)}",
            hint="use the form of the operator that returns its result",
        )


@contextmanager
def _wrapped_errors() -> Iterator[None]:
    """Turn what goes wrong in the traced step into a capture error with the user's line."""
    try:
        yield
    except WeftError:
        raise
    except Exception as error:
        raise CaptureError(
            need="a training step that runs on tensors without values",
            got=f"{type(error).__name__}: {_first_line(error)}{_at(_source_of(error.__traceback__))}",
            hint="run the same step on real tensors with weft.capture.make_step to see if it "
            "is the model or the capture that fails",
        ) from error


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


def _user_line(frame: FrameType | None) -> str:
    """The innermost line outside torch and weft, as "file.py:12"; empty if there is none."""
    while frame is not None and frame.f_code is not _functionalized.__code__:
        if not _is_ours(frame):
            return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _source_of(traceback: TracebackType | None) -> str:
    """The same for an exception: the innermost line on its way that is the user's."""
    found = ""
    while traceback is not None:
        frame = traceback.tb_frame
        if not _is_ours(frame):
            found = f"{frame.f_code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return found


def _is_ours(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__", "")
    return module.partition(".")[0] in ("torch", "weft", "contextlib", "functools")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _in(scope: str) -> str:
    return f" in {scope}" if scope else ""


def _at(source: str) -> str:
    return f" at {source}" if source else ""
