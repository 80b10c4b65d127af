"""Every program has a text, and the text is the program."""

from hypothesis import given, settings
from hypothesis import strategies as st

from weft.program.graph import Input, Node, Phase, Program, Role, Value
from weft.program.text import from_text, to_text
from weft.program.types import DType, TensorType

TYPES = st.builds(
    TensorType, st.sampled_from(DType), st.lists(st.integers(0, 99), max_size=3).map(tuple)
)
WORDS = st.one_of(
    st.text(max_size=6), st.sampled_from(["", "-", "|", "of", "#", "a.0.b", "f.py:3"])
)
VALUES = st.builds(Value, st.integers(0, 30), st.integers(0, 3))
CONSTANTS = st.one_of(
    VALUES,
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.text(max_size=5),
)
ARGS = st.recursive(CONSTANTS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)
OPERATORS = st.sampled_from(["view", "add.Tensor", "_softmax.default", "not_in_the_table"])
NODES = st.builds(
    Node,
    op=OPERATORS,
    args=st.lists(ARGS, max_size=4).map(tuple),
    outputs=st.lists(TYPES, max_size=3).map(tuple),
    phase=st.sampled_from(Phase),
    scope=WORDS,
    source=WORDS,
)


@st.composite
def programs(draw):
    nodes, inputs = [], []
    for number in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            name = draw(WORDS)
            given_ = Input(
                name=name,
                role=draw(st.sampled_from(Role)),
                node=number,
                parameter=draw(WORDS),
                shape=draw(st.none() | st.lists(st.integers(0, 99), max_size=3).map(tuple)),
            )
            inputs.append(given_)
            node = draw(NODES)
            nodes.append(
                Node(
                    op="input",
                    args=(name,),
                    outputs=node.outputs,
                    phase=node.phase,
                    scope=node.scope,
                    source=node.source,
                )
            )
        else:
            nodes.append(draw(NODES))
    return Program(
        name=draw(WORDS),
        nodes=tuple(nodes),
        inputs=tuple(draw(st.permutations(inputs))),
        loss=draw(VALUES),
        updates=tuple(draw(st.lists(st.tuples(st.integers(0, 30), VALUES), max_size=2))),
    )


@settings(max_examples=200)
@given(program=programs())
def test_text_parses_back_to_the_same_program(program):
    text = to_text(program)
    again = from_text(text)
    assert again == program
    # Python's equality does not tell 1 from True; the text does.
    assert to_text(again) == text


@settings(max_examples=50)
@given(program=programs())
def test_each_node_is_one_line(program):
    assert to_text(program).count("\n%") == len(program.nodes)
