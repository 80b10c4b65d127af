"""Which values and operators of a program its pins name.

Pins come from two sides: from whoever asks for a plan, by path, and from the model's own code,
whose blocks of `weft.pinned` are on the nodes. Both end up here, by value and node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import TypeVar

from weft.core.errors import InputError
from weft.parallel.pins import Pin, matches
from weft.parallel.weights import weight_values
from weft.program.annotation import Annotation, Wish
from weft.program.graph import Phase, Program, Role, Value

__all__ = ["Asked", "Pinning", "describe", "listed", "resolve"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What one pin asks, and the pin as its author knows it."""

    text: str
    wish: Wish


@dataclass(frozen=True)
class Pinning:
    """The pins of a program.

    Attributes:
        values: for each pinned value, what is asked of its placement.
        stages: for each pinned node of the forward pass, what is asked of its stage.
    """

    values: Mapping[Value, tuple[Asked, ...]] = field(
        default_factory=dict[Value, tuple[Asked, ...]]
    )
    stages: Mapping[int, tuple[Asked, ...]] = field(default_factory=dict[int, tuple[Asked, ...]])

    def __bool__(self) -> bool:
        return bool(self.values or self.stages)

    @cached_property
    def marks(self) -> dict[int, tuple[Wish, ...]]:
        """What tells nodes apart when layers are folded: the placements asked."""
        return {v.node: tuple(asked.wish for asked in of) for v, of in self.values.items()}

    @cached_property
    def counts(self) -> dict[str, int]:
        """For each pin how many values or nodes it names."""
        found: dict[str, int] = {}
        for of in (*self.values.values(), *self.stages.values()):
            for asked in of:
                found[asked.text] = found.get(asked.text, 0) + 1
        return found

    @property
    def num_stages(self) -> int:
        """Stages that a pipeline has at least if it keeps the pins; 1 if any number does."""
        asked = (one.wish.stage or 0 for of in self.stages.values() for one in of)
        return max(asked, default=0) + 1

    @property
    def text(self) -> str:
        """All pins, for messages."""
        return " and ".join(self.counts)

    def only(self, texts: Iterable[str]) -> Pinning:
        """These pins alone."""
        kept = frozenset(texts)

        def some(of: tuple[Asked, ...]) -> tuple[Asked, ...]:
            return tuple(asked for asked in of if asked.text in kept)

        return Pinning(
            {value: some(of) for value, of in self.values.items() if some(of)},
            {node: some(of) for node, of in self.stages.items() if some(of)},
        )

    def through(self, origin: Sequence[int], program: Program) -> Pinning:
        """The pins of a program that was made from this one.

        Args:
            origin: for each of its nodes, the node of this program, -1 for none.
            program: it. What repeats in its backward pass, or comes from another stage, is free.
        """
        if not self:
            return self
        new: dict[int, int] = {}
        for number, old in enumerate(origin):
            source = program.input_by_node.get(number)
            moved = source is not None and source.role in (Role.RECEIVED, Role.SHARED)
            if program.nodes[number].phase is Phase.FORWARD and not moved:
                new[old] = number
        return Pinning(
            {Value(new[v.node]): of for v, of in self.values.items() if v.node in new},
            {new[node]: of for node, of in self.stages.items() if node in new},
        )


def resolve(program: Program, pins: Sequence[Pin] = ()) -> Pinning:
    """The pins of a program: its own, and those given.

    Args:
        program: one step, or one micro-batch of it.
        pins: by path.

    Raises:
        InputError: a pin names nothing; says what resembles it.
    """
    given = listed(pins)
    if not given and not any(node.pins for node in program.nodes):
        return Pinning()
    return _Resolving(program).run(given)


def listed(pins: Sequence[Pin]) -> tuple[Pin, ...]:
    """The pins that somebody gave.

    Raises:
        InputError: it is one pin and no list, or something in it is none.
    """
    if isinstance(pins, Pin):
        raise InputError(
            need="pins in a list", got=f"one pin, {pins}", hint=f"write pins=[...] around {pins}"
        )
    return tuple(map(_require_pin, pins))


def describe(program: Program, node: int) -> str:
    """An operator in a message: number, name, module and source line."""
    this, source = program.nodes[node], program.input_by_node.get(node)
    name = source.name if source is not None else this.op
    where = f" in {this.scope}" if this.scope and source is None else ""
    return f"%{node} {name} {this.outputs[0]}{where}" + (
        f" at {this.source}" if this.source else ""
    )


class _Resolving:
    """Finds what pins name; lives only inside `resolve`."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._values: dict[Value, list[Asked]] = {}
        self._stages: dict[int, list[Asked]] = {}
        self._names = {
            i.name: i.node for i in program.inputs if i.role not in (Role.RECEIVED, Role.SHARED)
        }
        self._computed = _computed(program)
        self._modules = _modules(program, self._computed)

    def run(self, pins: Sequence[Pin]) -> Pinning:
        for pin in dict.fromkeys(pins):
            asked = Asked(str(pin), pin.wish)
            if pin.is_stage:
                for node in self._nodes_of(pin):
                    _note(self._stages, node, asked)
            else:
                for value in self._outputs_of(pin) if pin.output else self._inputs_of(pin):
                    _note(self._values, value, asked)
        for number, node in enumerate(self._program.nodes):
            source = self._program.input_by_node.get(number)
            if number in self._computed or (source is not None and source.role is Role.BATCH):
                for annotation in node.pins:
                    self._annotate(number, annotation)
        return Pinning(
            {value: tuple(of) for value, of in self._values.items()},
            {node: tuple(of) for node, of in self._stages.items()},
        )

    def _annotate(self, number: int, annotation: Annotation) -> None:
        at = f" at {annotation.source}" if annotation.source else ""
        asked = Asked(f"with weft.pinned({annotation.wish.arguments}){at}", annotation.wish)
        if annotation.is_stage:
            _note(self._stages, number, asked)
        else:
            _note(self._values, Value(number), asked)

    def _inputs_of(self, pin: Pin) -> list[Value]:
        found = [Value(node) for name, node in self._names.items() if matches(pin.path, name)]
        if not found:
            modules = [path for path in self._modules if matches(pin.path, path)]
            other = f"to pin what {modules[0]} returns, name no tensor" if modules else ""
            raise self._nothing(pin, "parameter, buffer, batch entry or state", self._names, other)
        return found

    def _nodes_of(self, pin: Pin) -> list[int]:
        modules = self._modules_of(pin)
        return [node for path in modules for node in self._modules[path]]

    def _outputs_of(self, pin: Pin) -> list[Value]:
        return [value for path in self._modules_of(pin) for value in self._returned(pin, path)]

    def _modules_of(self, pin: Pin) -> list[str]:
        found = [path for path in self._modules if matches(pin.path, path)]
        if not found:
            tensors = [name for name in self._names if matches(pin.path, name)]
            other = f"{tensors[0]} is a tensor: name its module and the tensor" if tensors else ""
            raise self._nothing(pin, "module that computes something", self._modules, other)
        return found

    def _returned(self, pin: Pin, path: str) -> list[Value]:
        """What is computed in a module and read outside of it in the forward pass."""
        program, inside = self._program, frozenset(self._modules[path])
        found = [
            Value(node)
            for node in self._modules[path]
            if node == program.loss.node
            or any(
                reader not in inside
                and program.nodes[reader].phase is Phase.FORWARD
                and program.operands(reader)[port].output == 0
                for reader, port in program.users[node]
            )
        ]
        if not found:
            raise InputError(
                need=f"a module whose result is read: {pin}",
                got=f"{path}, of which nothing is read outside of it",
                hint="pin a module inside it, or the one around it",
            )
        return found

    def _nothing(self, pin: Pin, kind: str, names: Iterable[str], other: str) -> InputError:
        near = get_close_matches(pin.path, list(names), n=3)
        return InputError(
            need=f"the path of a {kind} of {self._program.name}",
            got=f"the pin {pin}, which names none",
            hint=other
            or (f"did you mean {', '.join(near)}" if near else "see `weft capture --text`"),
        )


def _require_pin(pin: object) -> Pin:
    if isinstance(pin, Pin):
        return pin
    raise InputError(
        need="pins that weft.pin makes",
        got=repr(pin),
        hint="weft.parallel.pins.parse_pin makes one of a text",
    )


_Key = TypeVar("_Key")


def _note(where: dict[_Key, list[Asked]], key: _Key, asked: Asked) -> None:
    of = where.setdefault(key, [])
    if asked not in of:
        of.append(asked)


def _computed(program: Program) -> frozenset[int]:
    """Nodes of the forward pass that compute something: no constants, no weights in disguise."""
    weights, depends = weight_values(program), [False] * len(program.nodes)
    found: set[int] = set()
    for number, node in enumerate(program.nodes):
        if node.phase is not Phase.FORWARD:
            continue
        is_input = number in program.input_by_node
        depends[number] = is_input or any(depends[v.node] for v in program.operands(number))
        if depends[number] and not is_input and Value(number) not in weights:
            found.add(number)
    return frozenset(found)


def _modules(program: Program, computed: frozenset[int]) -> dict[str, list[int]]:
    """For each module path the nodes that it computes, those of its own modules included."""
    found: dict[str, list[int]] = {}
    for number in sorted(computed):
        parts = program.nodes[number].scope.split(".")
        for end in range(1, len(parts) + 1):
            if parts[0]:
                found.setdefault(".".join(parts[:end]), []).append(number)
    return found
