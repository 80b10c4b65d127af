"""The recorder: writes down every ATen call below autograd and functionalization."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses import FakeTensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode

from weft.capture.decompose import decomposition
from weft.capture.dtypes import type_of
from weft.capture.position import Position, here
from weft.capture.source import describe, line_of_frame
from weft.core.errors import CaptureError
from weft.program.graph import Phase, Value
from weft.program.types import TensorType

__all__ = ["Call", "Recorder"]

_MAX_CONSTANT_ELEMENTS = 64
_MAX_KNOWN_ELEMENTS = 2**22


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


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a call stands: its position in the step and the user's line."""

    position: Position
    source: str

    def __str__(self) -> str:
        return describe(self.position.scope, self.source)


class Recorder(TorchDispatchMode):
    """Writes down each call that reaches the back end, with its place in the step.

    Args:
        inputs: tensors that the step is given; values count from the first of them.
        outermost: code of the function that runs the step; no user's line is outside it.
    """

    def __init__(self, inputs: Sequence[Tensor], outermost: CodeType) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._outermost = outermost
        # Tensors are told apart by identity, so all of them have to stay alive.
        self._alive: list[Tensor] = list(inputs)
        self._values = {id(tensor): Value(number) for number, tensor in enumerate(inputs)}
        self._num_inputs = len(inputs)
        self._forward: dict[int, _Place] = {}
        self._rewriting: _Place | None = None

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
        if func is torch.ops.aten._local_scalar_dense.default:
            return self._item(args[0], place)
        _require_seedless(func, place)
        rule = decomposition(func)
        if rule is None:
            return self._record(func, args, given, place)
        outer, self._rewriting = self._rewriting, place
        try:
            with self:
                out = rule(*args, **given)
        finally:
            self._rewriting = outer
        return self._record(func, args, given, place) if out is NotImplemented else out

    def value_of(self, tensor: Tensor) -> Value:
        """The value that a tensor of the trace stands for."""
        found = self._values.get(id(tensor))
        return self._constant(tensor) if found is None else found

    def _record(
        self, func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any], place: _Place
    ) -> Any:
        _require_traceable(func, place)
        try:
            out = func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise _data_dependent(str(func), place) from error
        refer = self._refer
        plain, named = refer(args), {key: refer(arg) for key, arg in kwargs.items()}
        outputs = [out] if isinstance(out, Tensor) else list(out)
        self._add(
            outputs,
            Call(
                op=func,
                args=plain,
                kwargs=named,
                outputs=tuple(type_of(t) if isinstance(t, Tensor) else None for t in outputs),
                position=place.position,
                source=place.source,
            ),
        )
        return out

    def _add(self, outputs: Sequence[Any], call: Call) -> int:
        number = self._num_inputs + len(self.calls)
        for output, tensor in enumerate(outputs):
            if isinstance(tensor, Tensor):
                self._alive.append(tensor)
                self._values[id(tensor)] = Value(number, output)
        self.calls.append(call)
        return number

    def _refer(self, arg: Any) -> Any:
        if isinstance(arg, Tensor):
            return self.value_of(arg)
        if isinstance(arg, list | tuple):
            return tuple(self._refer(a) for a in arg)
        return arg

    def _constant(self, tensor: Tensor) -> Value:
        """A tensor that the step did not make: its elements go into the program if few."""
        place = self._place()
        original = tensor
        if isinstance(tensor, FakeTensor) and tensor.constant is not None:
            tensor = tensor.constant
        if isinstance(tensor, FakeTensor) or tensor.is_meta:
            raise CaptureError(
                need="tensors that are inputs of the step or made by it",
                got=f"{type_of(tensor)} from outside{place}",
                hint="make it a registered buffer or an attribute of the module",
            )
        if tensor.numel() > _MAX_CONSTANT_ELEMENTS:
            raise CaptureError(
                need=f"constants of at most {_MAX_CONSTANT_ELEMENTS} elements in a forward",
                got=f"{type_of(tensor)}{place}",
                hint="register it as a buffer of the module",
            )
        with unset_fake_temporarily():
            elements = tuple(tensor.flatten().tolist())
        return Value(
            self._add(
                [original],
                Call(
                    op=None,
                    args=elements,
                    kwargs={},
                    outputs=(type_of(tensor),),
                    position=place.position,
                    source=place.source,
                ),
            )
        )

    def _item(self, tensor: Tensor, place: _Place) -> Any:
        """The element of a tensor that depends on constants only."""
        with unset_fake_temporarily():
            known = self._known(self.value_of(tensor), {})
            if known is not None:
                return known.item()
        raise _data_dependent(".item(), bool(tensor) or a branch on a tensor", place)

    def _known(self, value: Value, found: dict[int, Any]) -> Tensor | None:
        """The value of a tensor if it follows from constants, by running its calls for real."""
        if value.node not in found:
            found[value.node] = self._run(value.node, found)
        made = found[value.node]
        return made if made is None or isinstance(made, Tensor) else made[value.output]

    def _run(self, node: int, found: dict[int, Any]) -> Any:
        if node < self._num_inputs:
            return None
        call = self.calls[node - self._num_inputs]
        if any(t is None or t.num_elements > _MAX_KNOWN_ELEMENTS for t in call.outputs):
            return None
        if call.op is None:
            (made,) = call.outputs
            return torch.tensor(call.args).view(made.shape) if made is not None else None
        missing = False

        def fill(arg: Any) -> Any:
            nonlocal missing
            if isinstance(arg, Value):
                tensor = self._known(arg, found)
                missing |= tensor is None
                return tensor
            return [fill(a) for a in arg] if isinstance(arg, tuple) else arg

        args, kwargs = fill(call.args), {key: fill(arg) for key, arg in call.kwargs.items()}
        return None if missing else call.op(*args, **kwargs)

    def _place(self) -> _Place:
        """Position and source line of the call; in backward, those of its forward."""
        if self._rewriting is not None:
            return self._rewriting
        position = here()
        if position.phase is Phase.UPDATE:
            return _Place(position, "")
        if position.phase is Phase.BACKWARD:
            node = torch._C._current_autograd_node()
            forward = None if node is None else self._forward.get(node._sequence_nr())
            if forward is None:
                return _Place(position, "")
            return _Place(Position(Phase.BACKWARD, forward.position.scope), forward.source)
        place = _Place(position, line_of_frame(sys._getframe(1), self._outermost))
        # The newest autograd node belongs to the first call that follows its making.
        self._forward.setdefault(torch.autograd._get_sequence_nr() - 1, place)
        return place


_DATA_DEPENDENT = {
    "aten::equal": "torch.equal",
    "aten::nonzero": "nonzero, or an index by a mask",
    "aten::masked_select": "masked_select",
    "aten::_unique2": "unique",
    "aten::unique_dim": "unique",
    "aten::unique_consecutive": "unique_consecutive",
    "aten::bincount": "bincount",
    "aten::repeat_interleave": "repeat_interleave by a tensor",
}


def _data_dependent(what: str, place: _Place) -> CaptureError:
    return CaptureError(
        need="a step whose operators and shapes do not depend on values",
        got=f"{what}{place}",
        hint="use torch.where or one-hot products in place of branches and masks",
    )


def _require_seedless(func: OpOverload, place: _Place) -> None:
    if torch.Tag.nondeterministic_seeded in func.tags:
        raise CaptureError(
            need="random numbers that follow from the step's seed",
            got=f"{func}{place}",
            hint="use dropout, torch.rand, torch.rand_like or torch.bernoulli",
        )


def _require_traceable(func: OpOverload, place: _Place) -> None:
    name = func._schema.name
    if name in _DATA_DEPENDENT:
        raise _data_dependent(_DATA_DEPENDENT[name], place)
    if func._schema.is_mutable:
        raise CaptureError(
            need="operators that change nothing in place",
            got=f"{func}{place}",
            hint="use the form of the operator that returns its result",
        )
