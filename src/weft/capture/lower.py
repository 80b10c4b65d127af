"""From a trace to a program: every call through its rule, values followed by number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from weft.capture.canonical import RULES, Emit, constant
from weft.capture.record import Call
from weft.capture.source import describe
from weft.capture.trace import Trace, TracedInput
from weft.core.errors import CaptureError, VerifyError
from weft.program.builder import Builder
from weft.program.graph import Program, Value

__all__ = ["lower_calls", "to_program"]


def to_program(trace: Trace) -> Program:
    """The program that does what the trace did, node for node and not yet simplified.

    Raises:
        CaptureError: a call has no form in the operators of a program, or a state would change
            its type; the error names the operator, the module and the user's line.
    """
    lowered = _Lowered(trace.name, trace.inputs, trace.calls, (trace.loss, *trace.updates.values()))
    updates: list[tuple[Value, Value]] = []
    for number, given in enumerate(trace.inputs):
        if given.name in trace.updates:
            old, new = Value(number), lowered.find(trace.updates[given.name])
            if new != old:
                _require_type(given.name, lowered.builder, old, new)
                updates.append((old, new))
    return lowered.builder.build(lowered.find(trace.loss), tuple(updates))


def lower_calls(
    name: str, inputs: Sequence[TracedInput], calls: Sequence[Call], results: Sequence[Value]
) -> tuple[Program, tuple[Value, ...]]:
    """The program that some calls are, and what it has in place of their results.

    Its loss is the first result and means nothing.

    Raises:
        CaptureError: a call has no form in the operators of a program; names the operator.
    """
    lowered = _Lowered(name, inputs, calls, results)
    found = tuple(map(lowered.find, results))
    return lowered.builder.build(found[0]), found


class _Lowered:
    """Calls as nodes; those that no result depends on are left out."""

    def __init__(
        self,
        name: str,
        inputs: Sequence[TracedInput],
        calls: Sequence[Call],
        results: Sequence[Value],
    ) -> None:
        self.builder = builder = Builder(name)
        self._made: list[tuple[Value | None, ...]] = [
            (builder.input(i.name, i.role, i.type, parameter=i.parameter),) for i in inputs
        ]
        zeros: set[Value] = set()
        needed = _needed(calls, len(inputs), results)
        for number, call in enumerate(calls, start=len(inputs)):
            if number not in needed:
                self._made.append(())
                continue
            emit = Emit(
                builder=builder,
                phase=call.position.phase,
                scope=call.position.scope,
                source=call.source,
                zeros=zeros,
            )
            first = builder.num_nodes
            made = _apply(emit, call, self._made)
            if call.position.pins:
                _pin(builder, call, made, range(first, builder.num_nodes))
            self._made.append(made)

    def find(self, value: Value) -> Value:
        """What the program has in place of a value of the trace."""
        found = self._made[value.node][value.output]
        assert found is not None, "a result that the operator did not make"
        return found


def _pin(builder: Builder, call: Call, results: tuple[Value | None, ...], nodes: range) -> None:
    """Pin what the call returns first, and the stage of all that it runs."""
    placements = tuple(pin for pin in call.position.pins if not pin.is_stage)
    stages = tuple(pin for pin in call.position.pins if pin.is_stage)
    for number in nodes:
        builder.pin(Value(number), stages)
    if not placements or results[0] is None:
        return
    try:
        builder.pin(results[0], placements)
    except VerifyError as error:
        raise _unsupported(call, f"pinned {placements[0]}") from error


def _needed(calls: Sequence[Call], num_inputs: int, results: Sequence[Value]) -> set[int]:
    """Numbers of the calls that the results depend on."""
    needed: set[int] = set()
    stack = list(results)
    while stack:
        number = stack.pop().node
        if number >= num_inputs and number not in needed:
            needed.add(number)
            call = calls[number - num_inputs]
            stack.extend(_values((call.args, tuple(call.kwargs.values()))))
    return needed


def _values(arg: Any) -> Iterator[Value]:
    if isinstance(arg, Value):
        yield arg
    elif isinstance(arg, tuple):
        for a in arg:
            yield from _values(a)


def _apply(
    emit: Emit, call: Call, made: list[tuple[Value | None, ...]]
) -> tuple[Value | None, ...]:
    if call.op is None:
        (made_type,) = call.outputs
        assert made_type is not None
        return (constant(emit, call.args, made_type),)
    rule = RULES.get(call.op)
    try:
        args = _plain(call.args, made)
        named = {key: _plain(arg, made) for key, arg in call.kwargs.items()}
        result = NotImplemented if rule is None else rule(emit, *args, **named)
    except (VerifyError, TypeError) as error:
        raise _unsupported(call, str(error)) from error
    if result is NotImplemented:
        raise _unsupported(call, "")
    results = result if isinstance(result, tuple) else (result,)
    _require_same_types(emit, call, results)
    return results


def _plain(arg: Any, made: list[tuple[Value | None, ...]]) -> Any:
    if isinstance(arg, Value):
        return made[arg.node][arg.output]
    return tuple(_plain(a, made) for a in arg) if isinstance(arg, tuple) else arg


def _require_same_types(emit: Emit, call: Call, results: tuple[Value | None, ...]) -> None:
    """A rule that changed a shape or an element type would be a mistake of ours."""
    for result, expected in zip(results, call.outputs, strict=True):
        if result is not None and expected is not None and emit.type(result) != expected:
            raise _unsupported(call, f"made {emit.type(result)} in place of {expected}")


def _require_type(name: str, builder: Builder, old: Value, new: Value) -> None:
    before, after = builder.type_of(old), builder.type_of(new)
    if before != after:
        raise CaptureError(
            need="state that keeps its type from step to step",
            got=f"{name} goes from {before} to {after}",
            hint="cast or reshape what the forward assigns to it",
        )


def _unsupported(call: Call, why: str) -> CaptureError:
    where = describe(call.position.scope, call.source)
    operands = ", ".join(str(t) for t in call.outputs if t is not None)
    return CaptureError(
        need="operators that have a form in weft.program.operators",
        got=f"{call.op} -> {operands}{where}" + (f": {why}" if why else ""),
        hint="write it with other torch operations, or add the operator to the table, its "
        "sharding rules and its costs",
    )
