"""Whatever scopes say, a folding maps the program onto itself."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.programs import mlp, transformer
from weft.program.fold import fold, verify_folding

PROGRAMS = st.sampled_from([mlp(5, slots=("m",)), mlp(7), transformer(4, dropout=0.1)])
SCOPES = st.sampled_from(["", *(f"layers.{n}" for n in range(6)), *(f"x.{n}.y" for n in range(4))])


@settings(max_examples=60)
@given(program=PROGRAMS, data=st.data())
def test_scopes_that_lie_cost_folding_and_never_its_truth(program, data):
    nodes = list(program.nodes)
    for number in data.draw(st.lists(st.integers(0, len(nodes) - 1), max_size=8)):
        nodes[number] = replace(nodes[number], scope=data.draw(SCOPES))
    lied = replace(program, nodes=tuple(nodes))
    folding = fold(lied)
    verify_folding(lied, folding)
    for node, other in enumerate(folding.representative):
        assert lied.nodes[node].op == lied.nodes[other].op
        assert lied.nodes[node].outputs == lied.nodes[other].outputs
    assert folding.num_representatives >= fold(program).num_representatives


@settings(max_examples=20)
@given(depth=st.integers(4, 10), shift=st.integers(1, 5))
def test_the_numbers_of_layers_need_not_start_at_zero(depth, shift):
    program = mlp(depth)

    def moved(path):
        words = path.split(".")
        return ".".join(str(int(w) + shift) if w.isdecimal() else w for w in words)

    nodes = tuple(
        replace(n, scope=moved(n.scope), args=(moved(n.args[0]),) if n.op == "input" else n.args)
        for n in program.nodes
    )
    inputs = tuple(replace(i, name=moved(i.name)) for i in program.inputs)
    shifted = replace(program, nodes=nodes, inputs=inputs)
    assert fold(shifted).representative == fold(program).representative
