"""Whether a program is legal: its structure, and the type of every value.

Called on entry and exit of whatever makes or changes programs. Structural laws:

1. arguments refer to outputs of earlier nodes;
2. every operator stands in the table;
3. input nodes and the list of inputs agree, names are unique, the parameter that a state
   belongs to is one, and dims that are held in factors are those of the model's shape;
4. an update names an input once, and keeps its type;
5. the loss is a floating-point scalar;
6. the phases never go back: forward, backward, update. Inputs belong to forward;
7. only nodes of the forward phase have pins.

The type law: a node's outputs have the types that its signature gives for its operands.
"""

from __future__ import annotations

from weft.core.errors import VerifyError
from weft.program.factors import factored_dims
from weft.program.graph import Node, Phase, Program, Role, Value
from weft.program.infer import infer_types
from weft.program.operators import operator

__all__ = ["infer_types", "verify"]

_ORDER = {phase: order for order, phase in enumerate(Phase)}


def verify(program: Program) -> None:
    """Check every law.

    Raises:
        VerifyError: the first law that is broken, with the node's number, operator and the
            user's source line where known.

    Example:
        >>> from weft.program.builder import Builder
        >>> from weft.program.types import DType, TensorType
        >>> b = Builder("square")
        >>> x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (4,)))
        >>> verify(b.build(b.add("mul.Tensor", x, x)))
        Traceback (most recent call last):
        weft.core.errors.VerifyError: program square: this is not a legal program or plan.
          need  a loss that is a floating-point scalar
          got   %1 : f32[4]
          try   reduce the loss with a mean or a sum
    """
    try:
        _verify_inputs(program)
        for number in range(len(program.nodes)):
            _verify_node(program, number)
        _verify_phases(program)
        _verify_results(program)
    except VerifyError as error:
        raise error.within(f"program {program.name}") from error.__cause__


def _place(number: int, node: Node) -> str:
    source = f" at {node.source}" if node.source else ""
    scope = f" in {node.scope}" if node.scope else ""
    return f"node %{number} ({node.op}){scope}{source}"


def _broken(need: str, got: str, hint: str = "") -> VerifyError:
    return VerifyError(need=need, got=got, hint=hint)


def _verify_inputs(program: Program) -> None:
    nodes = [n for n, node in enumerate(program.nodes) if node.op == "input"]
    listed = [i.node for i in program.inputs]
    if sorted(listed) != nodes:
        odd = sorted(set(listed) ^ set(nodes)) or sorted(n for n in listed if listed.count(n) > 1)
        raise _broken(
            "one entry in the list of inputs for each input node",
            f"a difference at {', '.join(f'%{n}' for n in odd[:5])}",
        )
    names: set[str] = set()
    parameters = {i.name for i in program.inputs if i.role is Role.PARAMETER}
    for given in program.inputs:
        node = program.nodes[given.node]
        if given.name in names or node.args != (given.name,) or len(node.outputs) != 1:
            raise _broken(
                "inputs with a name of their own, which their node repeats, and one output",
                f"input {given.name!r} at node %{given.node} {node.args}",
            )
        names.add(given.name)
        if given.parameter and given.parameter not in parameters:
            raise _broken(
                "states that belong to a parameter of the program",
                f"input {given.name!r} of parameter {given.parameter!r}",
            )
        held = node.outputs[0].shape
        if given.shape is not None and factored_dims(held, given.shape) is None:
            raise _broken(
                "inputs whose dims are factors of the model's",
                f"input {given.name!r} of shape {list(given.shape)} held as {list(held)}",
            )


def _verify_node(program: Program, number: int) -> None:
    node = program.nodes[number]
    try:
        operator(node.op)
        for value in program.operands(number):
            if not 0 <= value.node < number:
                raise _broken(
                    "arguments that earlier nodes made",
                    f"{value} at node %{number}",
                    "order the nodes by their dependencies",
                )
            _require_output(program, value)
        if node.op == "input":
            return
        operands = tuple(program.type_of(value) for value in program.operands(number))
        expected = infer_types(node.op, node.args, operands)
        if expected != node.outputs:
            raise _broken(
                f"outputs {', '.join(map(str, expected))}",
                f"{', '.join(map(str, node.outputs))} from {', '.join(map(str, operands))}",
                "record the types that weft.program.infer_types gives",
            )
    except VerifyError as error:
        raise error.within(_place(number, node)) from error.__cause__


def _require_output(program: Program, value: Value) -> None:
    if not (
        0 <= value.node < len(program.nodes)
        and 0 <= value.output < len(program.nodes[value.node].outputs)
    ):
        raise _broken("a value that the program makes", f"{value}")


def _verify_phases(program: Program) -> None:
    reached = Phase.FORWARD
    for number, node in enumerate(program.nodes):
        if node.pins and node.phase is not Phase.FORWARD:
            raise _broken("pins in the forward phase", _place(number, node))
        if node.op == "input":
            if node.phase is not Phase.FORWARD:
                raise _broken("inputs in the forward phase", _place(number, node))
            continue
        if _ORDER[node.phase] < _ORDER[reached]:
            raise _broken(
                "phases that never go back",
                f"{node.phase.value} after {reached.value} at {_place(number, node)}",
                "order the nodes forward, backward, update",
            )
        reached = node.phase


def _verify_results(program: Program) -> None:
    _require_output(program, program.loss)
    loss = program.type_of(program.loss)
    if loss.shape or not loss.dtype.is_float:
        raise _broken(
            "a loss that is a floating-point scalar",
            f"{program.loss} : {loss}",
            "reduce the loss with a mean or a sum",
        )
    changed: set[int] = set()
    for node, value in program.updates:
        _require_output(program, value)
        given = program.input_by_node.get(node)
        if given is None or node in changed:
            raise _broken("each update for one input, once", f"%{node} = {value}")
        changed.add(node)
        old, new = program.nodes[node].outputs[0], program.type_of(value)
        if old != new:
            raise _broken(f"a next value of {given.name} of its own type {old}", f"{value} : {new}")
