from tests.programs import mlp, transformer
from weft.program.builder import Builder
from weft.program.graph import Phase, Role
from weft.program.layers import assign_layers
from weft.program.types import DType, TensorType

F32 = TensorType(DType.F32, (4,))


def chain(scopes, phase=Phase.FORWARD):
    """One node a scope, each reading the one before; returns the layer index of each, or None."""
    b = Builder("chain")
    value = b.input("batch.x", Role.BATCH, F32)
    for scope in scopes:
        value = b.add("relu.default", value, scope=scope, phase=phase)
    program = b.build(value)
    assignment = assign_layers(program)
    return [assignment.layers[layer] if layer >= 0 else None for layer in assignment.layer[1:]]


LAYERS = [f"layers.{n}.mlp" for n in range(4)]


def test_a_scope_with_a_number_names_the_layer():
    assert chain(LAYERS) == [("layers", n) for n in range(4)]


def test_what_nothing_numbered_reaches_stays_outside():
    assert chain(["embed", *LAYERS])[0] is None


def test_forward_nodes_without_a_layer_join_the_highest_that_they_read():
    assert chain([*LAYERS[:2], "", *LAYERS[2:], "head"])[2:] == [
        ("layers", 1),
        ("layers", 2),
        ("layers", 3),
        ("layers", 3),
    ]


def test_sums_of_gradients_join_the_lowest_layer_that_they_read():
    program = mlp(6)
    assignment = assign_layers(program)
    sums = [
        number
        for number, node in enumerate(program.nodes)
        if node.op == "add.Tensor" and node.phase is Phase.BACKWARD
    ]
    assert len(sums) == 5
    for number in sums:
        read = {assignment.layer[v.node] for v in program.operands(number)}
        assert assignment.layer[number] == min(read)
        assert not assignment.named[number]


def test_three_layers_are_not_worth_folding():
    assert chain(LAYERS[:3]) == [None] * 3


def test_the_outermost_of_nested_stacks_counts():
    scopes = [f"blocks.{n}.experts.{m}" for n in range(4) for m in range(4)]
    assert chain(scopes) == [("blocks", n) for n in range(4) for _ in range(4)]


def test_a_banned_stack_gives_way_to_those_inside():
    b = Builder("nested")
    value = b.input("batch.x", Role.BATCH, F32)
    for scope in [f"net.{n}" for n in range(3)] + [f"net.3.layers.{m}" for m in range(4)]:
        value = b.add("relu.default", value, scope=scope)
    layers = assign_layers(b.build(value), banned={"net"}).layers
    assert layers == tuple(("net.3.layers", m) for m in range(4))


def test_states_and_updates_belong_to_the_layer_of_their_parameter():
    program = transformer(4, slots=("exp_avg",))
    assignment = assign_layers(program)
    for number, node in enumerate(program.nodes):
        path = node.args[0] if node.op == "input" else node.scope
        found = [index for index in range(4) if f"layers.{index}." in f"{path}."]
        if found:
            assert assignment.layers[assignment.layer[number]] == ("layers", found[0])


def test_addresses_are_unique_within_a_layer():
    program = transformer(5, slots=("a", "b"), dropout=0.1)
    assignment = assign_layers(program)
    for nodes in assignment.nodes:
        assert len({assignment.keys[n] for n in nodes}) == len(nodes)
