"""From a trace to a program: every call through its rule, values followed by number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from weft.capture.canonical import RULES, Emit, constant
from weft.capture.record import Call
from weft.capture.source import describe
from weft.capture.trace import Trace
from weft.core.errors import CaptureError, VerifyError
from weft.program.builder import Builder
from weft.program.graph import Program, Value

__all__ = ["to_program"]


def to_program(trace: Trace) -> Program:
    """The program that does what the trace did, node for node and not yet simplified.

    Raises:
        CaptureError: a call has no form in the operators of a program, or a state would change
            its type; the error names the operator, the module and the user's line.
    """
    builder = Builder(trace.name)
    made: list[tuple[Value | None, ...]] = [
        (builder.input(i.name, i.role, i.type, parameter=i.parameter),) for i in trace.inputs
    ]
    zeros: set[Value] = set()
    needed = _needed(trace)
    for number, call in enumerate(trace.calls, start=len(trace.inputs)):
        if number not in needed:
            made.append(())
            continue
        emit = Emit(
            builder=builder,
            phase=call.position.phase,
            scope=call.position.scope,
            source=call.source,
            zeros=zeros,
        )
        first = builder.num_nodes
        results = _apply(emit, call, made)
        if call.position.pins:
            _pin(builder, call, results, range(first, builder.num_nodes))
        made.append(results)

    def find(value: Value) -> Value:
        found = made[value.node][value.output]
        assert found is not None, "a result that the operator did not make"
        return found

    updates: list[tuple[Value, Value]] = []
    for number, given in enumerate(trace.inputs):
        if given.name in trace.updates:
            old, new = Value(number), find(trace.updates[given.name])
            if new != old:
                _require_type(given.name, builder, old, new)
                updates.append((old, new))
    return builder.build(find(trace.loss), tuple(updates))


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


def _needed(trace: Trace) -> set[int]:
    """Numbers of the calls that the loss or a next state depends on."""
    needed: set[int] = set()
    stack = [trace.loss, *trace.updates.values()]
    while stack:
        number = stack.pop().node
        if number >= len(trace.inputs) and number not in needed:
            needed.add(number)
            call = trace.calls[number - len(trace.inputs)]
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
