"""Builds a program node by node, inferring the type of every output.

The only mutable thing in this layer: a shell around two growing lists. What it returns is
plain frozen data.
"""

from __future__ import annotations

from dataclasses import replace

from weft.core.errors import VerifyError
from weft.program.annotation import Annotation
from weft.program.graph import Arg, Input, Node, Phase, Program, Role, Value, values_in
from weft.program.infer import infer_types
from weft.program.types import TensorType

__all__ = ["Builder"]


class Builder:
    """Grows a program in execution order.

    Args:
        name: what people call the program.

    Example:
        >>> from weft.program.types import DType
        >>> b = Builder("square")
        >>> x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (4,)))
        >>> loss = b.add("sum", b.add("mul.Tensor", x, x), (0,))
        >>> str(b.type_of(loss)), len(b.build(loss).nodes)
        ('f32[]', 3)
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[Node] = []
        self._inputs: list[Input] = []

    def input(
        self,
        name: str,
        role: Role,
        tensor_type: TensorType,
        parameter: str = "",
        scope: str = "",
        shape: tuple[int, ...] | None = None,
    ) -> Value:
        """Add an input; `parameter` and `shape` as in `weft.program.graph.Input`."""
        value = Value(len(self._nodes))
        self._nodes.append(Node(op="input", args=(name,), outputs=(tensor_type,), scope=scope))
        self._inputs.append(
            Input(name=name, role=role, node=value.node, parameter=parameter, shape=shape)
        )
        return value

    def add(
        self, op: str, *args: Arg, phase: Phase = Phase.FORWARD, scope: str = "", source: str = ""
    ) -> Value:
        """Add an operator with one output and return that.

        Raises:
            VerifyError: as `add_all`, or the operator has several outputs.
        """
        values = self.add_all(op, *args, phase=phase, scope=scope, source=source)
        if len(values) != 1:
            raise VerifyError(
                need="an operator with one output",
                got=f"{op}, which has {len(values)}",
                hint="use add_all, which returns a tuple",
            )
        return values[0]

    def add_all(
        self, op: str, *args: Arg, phase: Phase = Phase.FORWARD, scope: str = "", source: str = ""
    ) -> tuple[Value, ...]:
        """Add an operator and return all its outputs.

        Raises:
            VerifyError: no such operator, a value that does not exist yet, or arguments that
                the operator does not take; the error names the node and the source line.
        """
        number = len(self._nodes)
        try:
            outputs = infer_types(op, args, tuple(map(self.type_of, values_in(args))))
        except VerifyError as error:
            raise error.within(
                f"node %{number}" + (f" at {source}" if source else "")
            ) from error.__cause__
        self._nodes.append(
            Node(op=op, args=args, outputs=outputs, phase=phase, scope=scope, source=source)
        )
        return tuple(Value(number, output) for output in range(len(outputs)))

    def copy(self, node: Node, args: tuple[Arg, ...]) -> tuple[Value, ...]:
        """Add a node of a legal program again, with other values of the same types as arguments.

        Its types are taken as they are; its pins are not copied.

        Args:
            node: what to copy.
            args: its arguments, values replaced.
        """
        number = len(self._nodes)
        self._nodes.append(replace(node, args=args, pins=()))
        return tuple(Value(number, output) for output in range(len(node.outputs)))

    @property
    def num_nodes(self) -> int:
        """Nodes so far."""
        return len(self._nodes)

    def pin(self, value: Value, pins: tuple[Annotation, ...]) -> None:
        """Add pins to the node that made a value.

        Raises:
            VerifyError: the value is a further output of its node, which has no pins.
        """
        node = self._nodes[value.node]
        if value.output:
            raise VerifyError(
                need="pins of first outputs",
                got=f"{value} of {node.op}",
                hint="pin what is computed from it",
            )
        self._nodes[value.node] = replace(node, pins=tuple(dict.fromkeys(node.pins + pins)))

    def type_of(self, value: Value) -> TensorType:
        """Type of a value added before.

        Raises:
            VerifyError: there is no such value yet.
        """
        if value.node < len(self._nodes) and value.output < len(self._nodes[value.node].outputs):
            return self._nodes[value.node].outputs[value.output]
        raise VerifyError(
            need="a value that was added before",
            got=f"{value} of a program with {len(self._nodes)} nodes so far",
            hint="values belong to the builder that made them",
        )

    def build(self, loss: Value, updates: tuple[tuple[Value, Value], ...] = ()) -> Program:
        """The program.

        Args:
            loss: the scalar that was differentiated.
            updates: for each input that the step changes, the input and its next value.
        """
        return Program(
            name=self._name,
            nodes=tuple(self._nodes),
            inputs=tuple(self._inputs),
            loss=loss,
            updates=tuple((old.node, new) for old, new in updates),
        )
