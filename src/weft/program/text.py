"""Programs as text that people read and diff, and that parses back exactly.

One line a node, in execution order:

    program "square"
    %0 = input("batch.x") : f32[4]  # batch
    %1 = mul.Tensor(%0, %0) : f32[4]  # forward layers.0 model.py:12
    %2 = sum(%1, (0,), False) : f32[]  # forward
    loss %2

A value is the node that made it, `%7`, or one of its further outputs, `%7.1`. After `#` stand
the phase, the scope and the source line, where known; `-` is an empty scope before a source.
Pins follow, a quoted text each, with `-` for an unknown source before them. Inputs show their
role, states also their parameter, those with a dim in factors (`%2 = input("w") : f32[3,8]  #
parameter as (24,)`) the shape by which the model knows them, and, after `|`, what else they have.
Text with spaces or signs stands in quotes. `update %0 = %9` gives the next value of an input.
Blank lines and lines that start with `#` mean nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TypeVar

from weft.core.errors import InputError, VerifyError
from weft.program.annotation import Annotation
from weft.program.graph import Arg, Input, Node, Phase, Program, Role, Value
from weft.program.types import TensorType

__all__ = ["from_text", "to_text"]

_BARE = re.compile(r"[A-Za-z0-9_./:~][A-Za-z0-9_./:~-]*")


def to_text(program: Program) -> str:
    """The program as text, one line a node.

    Raises:
        VerifyError: the list of inputs and the input nodes disagree.

    Example:
        >>> from weft.program.builder import Builder
        >>> from weft.program.types import DType
        >>> b = Builder("square")
        >>> x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (4,)))
        >>> print(to_text(b.build(b.add("sum", b.add("mul.Tensor", x, x), (0,)))))
        program "square"
        %0 = input("batch.x") : f32[4]  # batch
        %1 = mul.Tensor(%0, %0) : f32[4]  # forward
        %2 = sum(%1, (0,)) : f32[]  # forward
        loss %2
        <BLANKLINE>
    """
    listed = [given.node for given in program.inputs]
    nodes = [n for n, node in enumerate(program.nodes) if node.op == "input"]
    named = all(program.nodes[given.node].args == (given.name,) for given in program.inputs)
    if sorted(listed) != nodes or not named:
        raise VerifyError(
            need="one entry in the list of inputs for each input node, of the same name",
            got=f"entries for {len(set(listed))} nodes, and {len(nodes)} input nodes",
            hint="`weft.program.verify` says which",
        )
    lines = [f"program {json.dumps(program.name)}"]
    lines += [_node_line(program, number, node) for number, node in enumerate(program.nodes)]
    if listed != nodes:
        lines.append("inputs " + " ".join(f"%{node}" for node in listed))
    lines.append(f"loss {program.loss}")
    lines += [f"update %{node} = {value}" for node, value in program.updates]
    return "\n".join(lines) + "\n"


def _node_line(program: Program, number: int, node: Node) -> str:
    made = ", ".join(map(str, node.outputs))
    call = f"%{number} = {node.op}({', '.join(map(_arg_text, node.args))}) : {made}"
    given = program.input_by_node.get(number)
    origin = " ".join(_origin(node))
    if given is None:
        return f"{call}  # {origin}"
    role = given.role.value + (f" of {_word(given.parameter)}" if given.parameter else "")
    if given.shape is not None:
        role += f" as {_arg_text(given.shape)}"
    return f"{call}  # {role}" + (f" | {origin}" if origin != Phase.FORWARD.value else "")


def _origin(node: Node) -> Iterator[str]:
    yield node.phase.value
    if node.scope or node.source or node.pins:
        yield _word(node.scope) if node.scope else "-"
    if node.source or node.pins:
        yield _word(node.source) if node.source else "-"
    for pin in node.pins:
        yield json.dumps(str(pin))


def _word(text: str) -> str:
    return text if _BARE.fullmatch(text) else json.dumps(text)


def _arg_text(arg: Arg) -> str:
    if isinstance(arg, tuple):
        inner = ", ".join(map(_arg_text, arg))
        return f"({inner},)" if len(arg) == 1 else f"({inner})"
    return json.dumps(arg) if isinstance(arg, str) else str(arg)


def from_text(text: str) -> Program:
    """Inverse of `to_text`.

    Checks the form, not the laws of programs: that is `weft.program.verify`.

    Raises:
        InputError: a line that is not of the form; the error says which and where.
    """
    parser = _Parser()
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not line.startswith("#"):
            try:
                parser.read(_Line(line))
            except InputError as error:
                raise error.within(f"line {number}") from error.__cause__
    return parser.program()


_TOKEN = re.compile(
    r"""(?P<value>%(\d+)(?:\.(\d+))?)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<float>-?(?:inf|nan|\d+\.\d+(?:e[+-]?\d+)?|\d+e[+-]?\d+))
      | (?P<int>-?\d+)
      | (?P<name>True|False|None)""",
    re.VERBOSE,
)
_NAMES: dict[str, bool | None] = {"True": True, "False": False, "None": None}
_TYPE = re.compile(r"[a-z]\w*\[[\d,]*\]")
_OPERATOR = re.compile(r"\w+(\.\w+)?")


class _Line:
    """A line and how much of it has been read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def wrong(self, need: str) -> InputError:
        rest = self.text[self.position :]
        return InputError(
            need=need,
            got=f"{rest[:60]!r} at column {self.position + 1}",
            hint="the form is described in weft.program.text",
        )

    def at_end(self) -> bool:
        return not self.text[self.position :].strip()

    def skip(self, literal: str) -> bool:
        """Step over a literal and the spaces around it, if it is there."""
        spaces = len(self.text) - self.position - len(self.text[self.position :].lstrip(" "))
        if not self.text.startswith(literal, self.position + spaces):
            return False
        self.position += spaces + len(literal)
        while self.text[self.position : self.position + 1] == " ":
            self.position += 1
        return True

    def expect(self, literal: str) -> None:
        if not self.skip(literal):
            raise self.wrong(f"{literal!r}")

    def match(self, pattern: re.Pattern[str], need: str) -> re.Match[str]:
        found = pattern.match(self.text, self.position)
        if found is None:
            raise self.wrong(need)
        self.position = found.end()
        return found

    def word(self) -> str:
        """A bare word or a quoted text, and the spaces after it."""
        if self.text.startswith('"', self.position):
            arg = self.arg()
            word = str(arg)
        else:
            word = self.match(_BARE, "a word").group()
        self.skip("")
        return word

    def value(self) -> Value:
        arg = self.arg()
        if not isinstance(arg, Value):
            raise self.wrong("a value such as %7 or %7.1")
        return arg

    def sizes(self) -> tuple[int, ...]:
        arg = self.arg()
        if not isinstance(arg, tuple):
            raise self.wrong("sizes in brackets before this")
        return tuple(n for n in arg if isinstance(n, int))

    def arg(self) -> Arg:
        if self.skip("("):
            items: list[Arg] = []
            while not self.skip(")"):
                items.append(self.arg())
                if not self.skip(","):
                    self.expect(")")
                    break
            return tuple(items)
        start = self.position
        found = self.match(_TOKEN, "a value, a number, a quoted text, True, False or None")
        try:
            constant = _constant(found)
        except ValueError:  # an escape that JSON does not have, or thousands of digits
            self.position = start
            raise self.wrong("a constant that Python can hold") from None
        self.skip("")
        return constant


def _constant(found: re.Match[str]) -> Arg:
    text = found.group()
    if found["value"]:
        return Value(int(found[2]), int(found[3] or 0))
    if found["string"]:
        return str(json.loads(text))
    if found["name"]:
        return _NAMES[text]
    return float(text) if found["float"] else int(text)


class _Parser:
    """Collects the parts of a program line by line."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._nodes: list[Node] = []
        self._inputs: dict[int, Input] = {}
        self._order: list[int] | None = None
        self._loss: Value | None = None
        self._updates: list[tuple[int, Value]] = []

    def read(self, line: _Line) -> None:
        if line.skip("program "):
            self._name = line.word()
        elif line.skip("loss "):
            self._loss = line.value()
        elif line.skip("update "):
            node = line.value().node
            line.expect("=")
            self._updates.append((node, line.value()))
        elif line.skip("inputs "):
            self._order = []
            while not line.at_end():
                self._order.append(line.value().node)
        else:
            self._node(line)
        if not line.at_end():
            raise line.wrong("the end of the line")

    def _node(self, line: _Line) -> None:
        number = line.value()
        if number != Value(len(self._nodes)):
            raise InputError(
                need=f"node %{len(self._nodes)}, as nodes are numbered from 0",
                got=str(number),
                hint="renumber the nodes",
            )
        line.expect("=")
        op = line.match(_OPERATOR, "an operator").group()
        args = line.arg()
        if not isinstance(args, tuple):
            raise line.wrong("arguments in brackets before this")
        line.expect(":")
        outputs: list[TensorType] = []
        while not line.skip("#"):
            outputs.append(TensorType.parse(line.match(_TYPE, "a type or #").group()))
            line.skip(",")
        if op == "input":
            self._input(line, str(args[0]) if args else "")
        phase = Phase.FORWARD if line.at_end() else _choice(line, Phase)
        scope = "" if line.at_end() or line.skip("-") else line.word()
        source = "" if line.at_end() or line.skip("-") else line.word()
        self._nodes.append(
            Node(
                op=op,
                args=args,
                outputs=tuple(outputs),
                phase=phase,
                scope=scope,
                source=source,
                pins=_pins(line),
            )
        )

    def _input(self, line: _Line, name: str) -> None:
        role = _choice(line, Role)
        parameter = line.word() if line.skip("of ") else ""
        shape = line.sizes() if line.skip("as ") else None
        line.skip("|")
        number = len(self._nodes)
        self._inputs[number] = Input(
            name=name, role=role, node=number, parameter=parameter, shape=shape
        )

    def program(self) -> Program:
        if self._name is None or self._loss is None:
            raise InputError(
                need="a line that starts with program and one that starts with loss",
                got="neither" if self._name is None and self._loss is None else "only one",
                hint="write programs with weft.program.to_text",
            )
        order = list(self._inputs) if self._order is None else self._order
        if sorted(order) != sorted(self._inputs):
            raise InputError(
                need="each input once in the line of inputs",
                got=" ".join(f"%{node}" for node in order),
                hint="leave the line out if the inputs stand in order",
            )
        return Program(
            name=self._name,
            nodes=tuple(self._nodes),
            inputs=tuple(self._inputs[node] for node in order),
            loss=self._loss,
            updates=tuple(self._updates),
        )


def _pins(line: _Line) -> tuple[Annotation, ...]:
    pins: list[Annotation] = []
    while line.text.startswith('"', line.position):
        pins.append(Annotation.parse(line.word()))
    return tuple(pins)


_Word = TypeVar("_Word", Phase, Role)


def _choice(line: _Line, kind: type[_Word]) -> _Word:
    word = line.word()
    try:
        return kind(word)
    except ValueError:
        raise line.wrong(f"one of {', '.join(k.value for k in kind)}, not {word!r}") from None
