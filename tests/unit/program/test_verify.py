from dataclasses import replace

import pytest

from tests.programs import mlp, transformer
from weft.core.errors import VerifyError
from weft.program.graph import Input, Node, Phase, Program, Role, Value
from weft.program.types import DType, TensorType
from weft.program.verify import verify

GOOD = mlp(2, slots=("momentum",))


def with_node(program: Program, number: int, **changes: object) -> Program:
    nodes = list(program.nodes)
    nodes[number] = replace(nodes[number], **changes)
    return replace(program, nodes=tuple(nodes))


def find(program, op, phase=Phase.FORWARD):
    return next(n for n, x in enumerate(program.nodes) if x.op == op and x.phase is phase)


@pytest.mark.parametrize("program", [GOOD, transformer(3, dropout=0.1)], ids=["mlp", "transformer"])
def test_programs_built_by_hand_are_legal(program):
    verify(program)


RELU = find(GOOD, "relu.default")
LAST = len(GOOD.nodes) - 1
PARAMETER = GOOD.input_by_name["layers.0.up"]
Y = GOOD.input_by_name["batch.y"]

BROKEN = {
    "reads itself": (with_node(GOOD, RELU, args=(Value(RELU),)), "earlier nodes made"),
    "reads later": (with_node(GOOD, RELU, args=(Value(LAST),)), "earlier nodes made"),
    "reads before the start": (with_node(GOOD, RELU, args=(Value(-1),)), "earlier nodes made"),
    "no such output": (with_node(GOOD, RELU, args=(Value(0, 1),)), "the program makes"),
    "unknown operator": (with_node(GOOD, RELU, op="sinh.default"), "operator of the table"),
    "wrong shape": (
        with_node(GOOD, RELU, outputs=(TensorType(DType.F32, (4, 16)),)),
        r"outputs f32\[4,1,16\]",
    ),
    "wrong type": (
        with_node(GOOD, RELU, outputs=(TensorType(DType.BF16, (4, 1, 16)),)),
        r"bf16\[4,1,16\] from",
    ),
    "one output too many": (
        with_node(GOOD, RELU, outputs=GOOD.nodes[RELU].outputs * 2),
        r"outputs f32\[4,1,16\]",
    ),
    "phase goes back": (with_node(GOOD, LAST, phase=Phase.FORWARD), "forward after update"),
    "input in backward": (with_node(GOOD, 0, phase=Phase.BACKWARD), "inputs in the forward"),
    "unlisted input": (replace(GOOD, inputs=GOOD.inputs[1:]), "difference at %0"),
    "listed twice": (
        replace(GOOD, inputs=(*GOOD.inputs, GOOD.inputs[0])),
        "difference at %0",
    ),
    "listed node that is none": (
        replace(GOOD, inputs=(*GOOD.inputs, Input(name="x", role=Role.BATCH, node=RELU))),
        f"difference at %{RELU}",
    ),
    "name of its own": (with_node(GOOD, PARAMETER.node, args=("other",)), "'layers.0.up' at"),
    "same name": (
        replace(
            with_node(GOOD, Y.node, args=("batch.x",)),
            inputs=tuple(replace(i, name="batch.x") if i is Y else i for i in GOOD.inputs),
        ),
        "a name of their own",
    ),
    "state of nothing": (
        replace(
            GOOD,
            inputs=tuple(replace(i, parameter="lost") if i.parameter else i for i in GOOD.inputs),
        ),
        "belong to a parameter",
    ),
    "other dims than the model's": (
        replace(GOOD, inputs=(replace(GOOD.inputs[0], shape=(5, 7)), *GOOD.inputs[1:])),
        r"factors of the model's",
    ),
    "update of no input": (
        replace(GOOD, updates=((RELU, Value(RELU)),)),
        "each update for one input",
    ),
    "updated twice": (replace(GOOD, updates=GOOD.updates * 2), "for one input, once"),
    "update of another type": (
        replace(GOOD, updates=((PARAMETER.node, GOOD.loss),)),
        r"next value of layers\.0\.up of its own type",
    ),
    "update with nothing": (
        replace(GOOD, updates=((PARAMETER.node, Value(LAST + 1)),)),
        "the program makes",
    ),
    "loss that is not there": (replace(GOOD, loss=Value(LAST, 3)), "the program makes"),
    "loss with dims": (replace(GOOD, loss=Value(RELU)), "floating-point scalar"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_law_is_found(name):
    program, words = BROKEN[name]
    with pytest.raises(VerifyError, match=words):
        verify(program)


def test_an_integer_loss_is_refused():
    nodes = (Node(op="full", args=((), 1, "i64"), outputs=(TensorType(DType.I64, ()),)),)
    program = Program(name="count", nodes=nodes, inputs=(), loss=Value(0))
    with pytest.raises(VerifyError, match="floating-point scalar"):
        verify(program)


def test_the_error_names_node_operator_scope_and_line():
    broken = with_node(GOOD, RELU, outputs=(TensorType(DType.F32, (1,)),))
    with pytest.raises(VerifyError) as caught:
        verify(broken)
    assert caught.value.where == (
        f"program mlp: node %{RELU} (relu.default) in layers.0 at model.py:1"
    )
