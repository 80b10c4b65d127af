from dataclasses import replace

import pytest

from tests.programs import Tape, mlp, transformer
from weft.core.errors import VerifyError
from weft.program.builder import Builder
from weft.program.fold import Folding, fold, verify_folding
from weft.program.graph import Phase, Program, Role, Value, map_values
from weft.program.types import DType, TensorType


def folded_layers(program, stack="layers"):
    """For each layer of a stack the layer that stands for it."""
    return [layer.representative for layer in fold(program).layers if layer.stack == stack]


MODELS = {
    "mlp": mlp,
    "mlp with momentum": lambda n: mlp(n, slots=("momentum",)),
    "transformer": transformer,
    "transformer with two slots and dropout": lambda n: transformer(
        n, slots=("exp_avg", "exp_avg_sq"), dropout=0.1
    ),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_number_of_representatives_does_not_depend_on_depth(model):
    assert len({fold(model(depth)).num_representatives for depth in range(4, 13)}) == 1


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_second_layer_stands_for_all_but_the_first_and_the_last(model):
    assert folded_layers(model(7)) == [0, 1, 1, 1, 1, 1, 6]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_up_to_three_layers_all_stand_for_themselves(depth):
    program = transformer(depth)
    assert fold(program).representative == tuple(range(len(program.nodes)))


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_multiplicities_count_every_node_once(model):
    program = model(6)
    folding = fold(program)
    assert sum(folding.multiplicity) == len(program.nodes)
    assert set(folding.multiplicity) == {0, 1, 4}
    for node, other in enumerate(folding.representative):
        assert folding.representative[other] == other
        assert (folding.multiplicity[node] > 0) == (node == other)


def test_sums_of_gradients_without_a_scope_are_folded():
    program = transformer(8)
    folding = fold(program)
    sums = [
        number
        for number, node in enumerate(program.nodes)
        if node.op == "add.Tensor" and node.phase is Phase.BACKWARD and not node.scope
    ]
    per_layer = 4  # query, key and value add up; so does each of the two residuals
    assert len(sums) == 8 * per_layer
    assert len({folding.representative[n] for n in sums}) == 3 * per_layer


def test_updates_and_states_are_folded():
    program = mlp(6, slots=("momentum",))
    folding = fold(program)
    for slot in ("layers.{}.up", "optimizer.momentum.layers.{}.down"):
        nodes = [program.input_by_name[slot.format(n)].node for n in range(6)]
        assert [folding.representative[n] for n in nodes] == [
            nodes[0],
            *[nodes[1]] * 4,
            nodes[5],
        ]
    updates = [n for n, node in enumerate(program.nodes) if node.phase is Phase.UPDATE]
    assert len({folding.representative[n] for n in updates}) == len(updates) // 2


# --- patterns of layers ---


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("ABABABAB", [0, 1, 2, 1, 2, 1, 2, 7]),
        ("AABAABAAB", [0, 1, 2, 3, 1, 2, 3, 1, 8]),
        ("AAAABAAAA", [0, 1, 1, 3, 4, 5, 1, 1, 8]),
        ("ABCDEFGH", []),
    ],
)
def test_only_layers_of_one_kind_with_like_neighbours_are_folded(pattern, expected):
    program = mlp(len(pattern), hidden=lambda layer: 8 * (ord(pattern[layer]) - ord("A") + 1))
    assert folded_layers(program) == expected


@pytest.mark.parametrize("period", [2, 3])
def test_repeating_patterns_fold_to_one_period(period):
    def representatives(periods):
        def hidden(layer):
            return 8 if layer % period else 16

        return fold(mlp(period * periods, hidden=hidden)).num_representatives

    assert representatives(4) == representatives(5) == representatives(8)


def find(program, op, scope, phase=Phase.FORWARD):
    return next(
        n
        for n, node in enumerate(program.nodes)
        if (node.op, node.scope, node.phase) == (op, scope, phase)
    )


def change(program: Program, number: int, **changes) -> Program:
    nodes = list(program.nodes)
    nodes[number] = replace(nodes[number], **changes)
    return replace(program, nodes=tuple(nodes))


def test_a_layer_with_another_constant_stands_for_itself():
    program = mlp(8)
    number = find(program, "threshold_backward.default", "layers.4", Phase.BACKWARD)
    *values, _ = program.nodes[number].args
    odd = change(program, number, args=(*values, 0.5))
    assert folded_layers(odd)[4] == 4
    assert folded_layers(odd).count(4) == 1


def test_true_one_and_one_point_zero_are_different_constants():
    program = mlp(6)
    number = find(program, "threshold_backward.default", "layers.3", Phase.BACKWARD)
    *values, zero = program.nodes[number].args
    assert zero == 0
    odd = change(program, number, args=(*values, 0.0))
    assert folded_layers(odd)[3] == 3


def test_a_layer_wired_differently_stands_for_itself():
    program = mlp(8)
    block = find(program, "add.Tensor", "layers.4")
    skipped, _ = program.nodes[find(program, "add.Tensor", "layers.3")].args
    _, narrow = program.nodes[block].args
    odd = change(program, block, args=(skipped, narrow))
    assert folded_layers(odd)[4] == 4


def test_a_parameter_that_is_not_updated_keeps_its_layer_apart():
    program = mlp(8)
    frozen = program.input_by_name["layers.4.up"].node
    updates = tuple(u for u in program.updates if u[0] != frozen)
    assert folded_layers(replace(program, updates=updates))[4] == 4


# --- what layers share ---


def with_shared(depth: int, shared_scope: str) -> Program:
    """Layers that all scale by one table, which a node in `shared_scope` makes."""
    b = Builder("shared")
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (4,)))
    weights = [
        b.input(f"layers.{n}.w", Role.PARAMETER, TensorType(DType.F32, (4,))) for n in range(depth)
    ]
    table = None
    for n, weight in enumerate(weights):
        x = b.add("mul.Tensor", x, weight, scope=f"layers.{n}")
        if table is None:
            table = b.add("exp.default", weights[0], scope=shared_scope)
        x = b.add("mul.Tensor", x, table, scope=f"layers.{n}")
    return b.build(b.add("sum", x, (0,)))


@pytest.mark.parametrize("scope", ["layers.0", "rotary", ""])
def test_a_value_that_the_first_layer_makes_for_all_does_not_keep_them_apart(scope):
    assert folded_layers(with_shared(7, scope)) == [0, 1, 1, 1, 1, 1, 6]


def test_layers_that_share_their_weights_are_folded_but_where_their_gradients_start():
    tape = Tape("tied")
    tape.parameter("up", 8, 8)
    of = TensorType(DType.F32, (2, 1, 8))
    x, y = (tape.builder.input(f"batch.{name}", Role.BATCH, of) for name in "xy")
    for layer in range(7):
        tape.scope = f"layers.{layer}"
        x = tape.add(x, tape.relu(tape.linear(x, "up")))
    tape.scope = "loss"
    # Layer 5 adds the gradient of layer 6 to its own; the others add to a sum.
    assert folded_layers(tape.finish(tape.mean_square(x, y))) == [0, 1, 1, 1, 1, 5, 6]


# --- where stacks stand ---


def rescope(program: Program, renamed) -> Program:
    nodes = tuple(replace(node, scope=renamed(node.scope)) for node in program.nodes)
    return replace(program, nodes=nodes)


def rename_inputs(program: Program, renamed) -> Program:
    nodes = tuple(
        replace(n, args=(renamed(n.args[0]),)) if n.op == "input" else n for n in program.nodes
    )
    inputs = tuple(
        replace(i, name=renamed(i.name), parameter=renamed(i.parameter)) for i in program.inputs
    )
    return replace(program, nodes=nodes, inputs=inputs)


def test_a_stack_inside_a_list_of_different_modules_is_found():
    # As in Sequential(embed, decoder, norm, head), whose members differ.
    places = {"embed": "net.0", "layers": "net.1.layers", "norm": "net.2", "head": "net.3"}

    def renamed(path):
        for old, new in places.items():
            path = ".".join(new if word == old else word for word in path.split("."))
        return path

    program = rename_inputs(rescope(transformer(7), renamed), renamed)
    assert folded_layers(program, "net.1.layers") == [0, 1, 1, 1, 1, 1, 6]
    assert fold(program).num_representatives == fold(transformer(7)).num_representatives


def test_two_stacks_fold_each_for_itself():
    def halves(path):
        words = path.split(".")
        if "layers" in words:
            place = words.index("layers") + 1
            number = int(words[place])
            words[place - 1 : place + 1] = [("left" if number < 6 else "right"), str(number % 6)]
        return ".".join(words)

    program = rename_inputs(rescope(transformer(12), halves), halves)
    assert folded_layers(program, "left") == [0, 1, 1, 1, 1, 5]
    assert folded_layers(program, "right") == [0, 1, 1, 1, 1, 5]


def test_a_program_without_scopes_is_not_folded():
    program = rescope(mlp(6), lambda scope: "")
    assert fold(rename_inputs(program, lambda name: name.replace(".", "_"))).layers == ()


# --- the law of folding ---

PROGRAM = mlp(8, slots=("momentum",))
FOLDING = fold(PROGRAM)


def with_representative(node: int, other: int) -> Folding:
    stands_for = list(FOLDING.representative)
    counts = list(FOLDING.multiplicity)
    counts[stands_for[node]] -= 1
    counts[other] += 1
    stands_for[node] = other
    return replace(FOLDING, representative=tuple(stands_for), multiplicity=tuple(counts))


def test_a_true_folding_passes():
    verify_folding(PROGRAM, FOLDING)


def test_a_node_folded_onto_another_operator_is_found():
    node = find(PROGRAM, "relu.default", "layers.4")
    other = find(PROGRAM, "add.Tensor", "layers.1")
    with pytest.raises(VerifyError, match="folded node by node"):
        verify_folding(PROGRAM, with_representative(node, other))


def test_a_folded_node_outside_of_folded_layers_is_found():
    first = find(PROGRAM, "relu.default", "layers.0")
    with pytest.raises(VerifyError, match="folded nodes in folded layers"):
        verify_folding(
            PROGRAM, with_representative(first, find(PROGRAM, "relu.default", "layers.1"))
        )


def test_wrong_counts_are_found():
    counts = list(FOLDING.multiplicity)
    counts[0] += 1
    with pytest.raises(VerifyError, match="multiplicities that count"):
        verify_folding(PROGRAM, replace(FOLDING, multiplicity=tuple(counts)))


RELU = find(PROGRAM, "relu.default", "layers.4")
SUM = find(PROGRAM, "add.Tensor", "layers.4")
PRODUCT = find(PROGRAM, "einsum", "layers.4")
W = PROGRAM.input_by_name["layers.4.up"].node
W_OF_FIVE = PROGRAM.input_by_name["layers.5.up"].node

TAMPERED = {
    "operator": change(PROGRAM, RELU, op="neg.default"),
    "type": change(PROGRAM, RELU, outputs=(TensorType(DType.BF16, (4, 1, 16)),)),
    "phase": change(PROGRAM, RELU, phase=Phase.BACKWARD),
    "constant": change(PROGRAM, PRODUCT, args=("btd,ed->bet", *PROGRAM.nodes[PRODUCT].args[1:])),
    "operands swapped": change(PROGRAM, SUM, args=PROGRAM.nodes[SUM].args[::-1]),
    "weight of a neighbour": change(
        PROGRAM,
        PRODUCT,
        args=map_values(
            PROGRAM.nodes[PRODUCT].args, lambda v: Value(W_OF_FIVE) if v.node == W else v
        ),
    ),
    "an operand more": change(PROGRAM, SUM, args=(*PROGRAM.nodes[SUM].args, Value(W))),
    "no update": replace(PROGRAM, updates=tuple(u for u in PROGRAM.updates if u[0] != W)),
    "update swapped": replace(
        PROGRAM,
        updates=tuple((n, Value(W_OF_FIVE) if n == W else value) for n, value in PROGRAM.updates),
    ),
    "role": replace(
        PROGRAM,
        inputs=tuple(replace(i, role=Role.BUFFER) if i.node == W else i for i in PROGRAM.inputs),
    ),
}


@pytest.mark.parametrize("program", TAMPERED.values(), ids=TAMPERED)
def test_a_folding_of_another_program_is_found(program):
    with pytest.raises(VerifyError, match="folded onto"):
        verify_folding(program, FOLDING)


@pytest.mark.parametrize("program", TAMPERED.values(), ids=TAMPERED)
def test_the_tampered_layer_is_not_folded(program):
    assert folded_layers(program)[4] == 4
