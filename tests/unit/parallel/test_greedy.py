from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.programs import Tape, mlp, transformer
from weft.core.errors import InputError
from weft.parallel.greedy import greedy_axis, moved_bytes
from weft.parallel.placement import PARTIAL, PARTIAL_MAX, REPLICATED
from weft.parallel.propagate import Axis, AxisRules
from weft.program.graph import Phase, Role, Value
from weft.program.types import DType, TensorType

DDP = {"batch.x": 0, "batch.y": 0}


def pins(program, **by_name):
    return {program.input_by_name[name].node: place for name, place in by_name.items()}


def pinned_batch(program):
    return {i.node: 0 for i in program.inputs if i.role is Role.BATCH}


def stored(program, dim):
    return {i.node: dim for i in program.inputs if i.role in (Role.PARAMETER, Role.STATE)}


def weights(program):
    return {i.node for i in program.inputs if i.role is Role.PARAMETER}


def movements(program, rules, size=2):
    """Distinct (value, phase, placement read) that cost bytes, with the bytes of each."""
    axis, found = Axis(program, size), {}
    for node, rule in enumerate(rules):
        for value, place in zip(program.operands(node), rule.operands, strict=True):
            made = rules[value.node].outputs[value.output]
            cost = moved_bytes(made, place, axis.num_bytes(value), size)
            if cost > 0:
                found[value, program.nodes[node].phase, place] = cost
    return found


def gradients(program):
    """Values of the backward pass that the update reads."""
    return {
        value
        for node, this in enumerate(program.nodes)
        if this.phase is Phase.UPDATE
        for value in program.operands(node)
        if program.nodes[value.node].phase is Phase.BACKWARD
    }


def test_data_parallel_moves_each_gradient_once_and_nothing_else_of_size():
    program = transformer(num_layers=2, slots=("momentum",))
    rules = greedy_axis(program, pinned_batch(program), 2)
    moved = movements(program, rules)
    large = {key for key in moved if program.type_of(key[0]).num_elements > 1}
    assert large == {(value, Phase.UPDATE, REPLICATED) for value in gradients(program)}


def test_an_adam_like_update_still_moves_each_gradient_once():
    # A gradient that is read by a linear and by a quadratic node, as Adam reads it.
    tape = Tape("adam")
    tape.parameter("w", 8, 4, slots=("first", "second"))
    b, w = tape.builder, tape.parameters["w"]
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (6, 4)))
    y = b.add("einsum", "bd,ed->be", x, w)
    g = b.add("einsum", "be,bd->ed", y, x, phase=Phase.BACKWARD)

    def update(op, *args):
        return b.add(op, *args, phase=Phase.UPDATE)

    states = tape.states["w"]
    first = update(
        "add.Tensor", update("mul.Scalar", states["first"], 0.9), update("mul.Scalar", g, 0.1)
    )
    second = update("add.Tensor", states["second"], update("mul.Tensor", g, g))
    step = update("div.Tensor", first, update("sqrt.default", second))
    program = b.build(
        b.add("sum", y, (0, 1), False),
        ((states["first"], first), (states["second"], second), (w, update("sub.Tensor", w, step))),
    )
    for dim, pinned in ((REPLICATED, {}), (0, stored(program, 0))):
        rules = greedy_axis(program, pinned_batch(program) | pinned, 2, (), weights(program))
        at_update = [key for key in movements(program, rules) if key[1] is Phase.UPDATE]
        assert at_update == [(g, Phase.UPDATE, dim)]


def test_fully_sharded_weights_are_read_whole_and_updated_where_they_lie():
    program = mlp(num_layers=2, slots=("momentum",))
    rules = greedy_axis(
        program, pinned_batch(program) | stored(program, 0), 2, (), weights(program)
    )
    for weight in map(Value, weights(program)):
        assert rules[weight.node].outputs == (0,)
        for reader, position in program.users[weight.node]:
            whole = program.nodes[reader].phase is not Phase.UPDATE
            assert rules[reader].operands[position] == (REPLICATED if whole else 0)
    for node, value in program.updates:
        assert rules[value.node].outputs[value.output] == rules[node].outputs[0] == 0
    moved = movements(program, rules)
    assert {key for key in moved if key[1] is Phase.UPDATE} == {
        (value, Phase.UPDATE, 0) for value in gradients(program)
    }


def test_the_update_works_on_the_part_of_a_weight_that_is_stored():
    tape = Tape("norm")
    tape.parameter("w", 8, 4)
    b, w = tape.builder, tape.parameters["w"]
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (6, 4)))
    loss = b.add("sum", b.add("einsum", "bd,ed->be", x, w), (0, 1), False)
    square = b.add("mul.Tensor", w, w, phase=Phase.UPDATE)
    norm = b.add("sum", square, (0, 1), False, phase=Phase.UPDATE)
    program = b.build(loss, ((w, b.add("mul.Tensor", w, norm, phase=Phase.UPDATE)),))
    rules = greedy_axis(program, pins(program, **{"batch.x": 0, "w": 0}), 2, (), {w.node})
    assert str(rules[square.node]) == "S0 <- S0,S0"
    assert str(rules[norm.node]) == "P <- S0"


def test_a_stored_weight_is_cast_before_it_is_gathered():
    tape = Tape("mixed")
    tape.parameter("w", 8, 4)
    b, w = tape.builder, tape.parameters["w"]
    x = b.input("batch.x", Role.BATCH, TensorType(DType.BF16, (6, 4)))
    small = b.add("cast", w, "bf16")
    y = b.add("einsum", "bd,ed->be", x, small)
    program = b.build(b.add("sum", y, (0, 1), False))
    rules = greedy_axis(program, pins(program, **{"batch.x": 0, "w": 0}), 2, (), {w.node})
    assert str(rules[small.node]) == "S0 <- S0"
    assert str(rules[y.node]) == "S0 <- S0,R"


def test_tensor_parallel_needs_one_all_reduce_for_each_pair_and_direction():
    program = mlp(num_layers=2)
    pinned = {
        program.input_by_name[f"layers.{layer}.{name}"].node: dim
        for layer in range(2)
        for name, dim in (("up", 0), ("down", 1))
    }
    rules = greedy_axis(program, pinned, 2)
    moved = Counter(phase for _, phase, _ in movements(program, rules))
    # The gradient of the batch itself is not wanted, so the first layer sends none back.
    assert moved == {Phase.FORWARD: 2, Phase.BACKWARD: 1}
    for node, value in program.updates:
        assert rules[value.node].outputs[value.output] == rules[node].outputs[0]


def test_megatrons_transformer_needs_two_all_reduces_a_layer_and_direction():
    program = transformer(num_layers=2)
    columns, rows = ("query", "key", "value", "up"), ("out", "down")
    dims = dict.fromkeys(columns, 0) | dict.fromkeys(rows, 1)
    pinned = {
        i.node: dims[i.name.split(".")[-1]] for i in program.inputs if i.name.split(".")[-1] in dims
    }
    moved = movements(program, greedy_axis(program, pinned, 2))
    assert {place for _, _, place in moved} == {REPLICATED}
    assert Counter(phase for _, phase, _ in moved) == {Phase.FORWARD: 4, Phase.BACKWARD: 4}


def test_tokens_go_to_cut_experts_by_an_all_to_all():
    # Gathering the experts would move less than gathering the tokens, but more than this.
    tape = Tape("experts")
    tape.parameter("w", 4, 8, 16)
    b = tape.builder
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (4, 24, 8)))
    routed = b.add("relu.default", x)
    y = b.add("einsum", "ecd,edf->ecf", routed, tape.parameters["w"])
    program = b.build(b.add("sum", y, (0, 1, 2), False))
    rules = greedy_axis(program, pins(program, **{"batch.x": 1, "w": 0}), 2)
    assert str(rules[y.node]) == "S0 <- S0,S0"
    assert movements(program, rules) == {(routed, Phase.FORWARD, 0): 4 * 24 * 8 * 4 / 4}


def test_what_was_gathered_once_is_at_hand_for_later_readers():
    def second_product(*sizes):
        tape = Tape("readers")
        for number, size in enumerate(sizes):
            tape.parameter(f"w{number}", size, 16)
        b = tape.builder
        x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (8, 16)))
        h = b.add("relu.default", x)
        made = [b.add("einsum", "bd,ed->be", h, w) for w in tape.parameters.values()]
        program = b.build(b.add("sum", made[-1], (0, 1), False))
        pinned = stored(program, 0) | pinned_batch(program)
        return str(greedy_axis(program, pinned, 2)[made[-1].node])

    assert second_product(4) == "S0 <- S0,R"  # a small weight is gathered
    assert second_product(32, 4) == "S1 <- R,S0"  # unless a large one had the data gathered


def test_zeros_are_summands_where_a_sum_passes():
    tape = Tape("selection")
    tape.parameter("w", 4, 8)
    b = tape.builder
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (6, 8)))
    y = b.add("einsum", "bd,ed->be", x, tape.parameters["w"])
    kept = b.input("batch.kept", Role.BATCH, TensorType(DType.BOOL, (6, 4)))
    zeros = b.add("full", (6, 4), 0.0, "f32")
    chosen = b.add("where.self", kept, y, zeros)
    program = b.build(b.add("sum", chosen, (0, 1), False))
    rules = greedy_axis(program, pins(program, **{"batch.x": 1, "w": 1}), 2)
    assert str(rules[chosen.node]) == "P <- R,P,P"
    assert rules[zeros.node].outputs == (PARTIAL,)


def test_a_lone_cut_weight_does_not_turn_the_rest_into_data_parallelism():
    # An all-to-all from columns to the batch moves less than a gather, here and now.
    program = transformer(num_layers=1, batch=4)
    rules = greedy_axis(program, pins(program, **{"embed.weight": 1}), 2)
    norm = next(r for r in rules if len(r.outputs) == 3)
    assert set(norm.outputs) == {REPLICATED}


def test_a_pinned_node_shards_the_sequence_between_two_products():
    program = transformer(num_layers=1, length=8)
    norm = next(n for n, node in enumerate(program.nodes) if node.op == "native_layer_norm.default")
    rules = greedy_axis(program, {norm: 1}, 2)
    assert rules[norm].outputs == (1, 1, 1)


def test_masks_are_made_in_the_placement_of_what_they_mask():
    program = transformer(num_layers=1, dropout=0.5)
    rules = greedy_axis(program, pinned_batch(program), 2)
    made = [str(rules[n]) for n, node in enumerate(program.nodes) if node.op == "uniform"]
    assert made == ["S0 <- R"]


def test_a_cut_vocabulary_reduces_rows_but_never_gathers_the_logits():
    program = transformer(num_layers=1, vocabulary=16, length=8)
    rules = greedy_axis(program, pins(program, **{"head.weight": 0}), 2)
    logits = TensorType(DType.F32, (2, 8, 16))
    assert not any(program.type_of(value) == logits for value, _, _ in movements(program, rules))


@settings(max_examples=30)
@given(data=st.data(), size=st.sampled_from((2, 4)))
def test_any_legal_pins_give_legal_rules_that_collectives_can_join(data, size):
    program = data.draw(st.sampled_from((mlp(1), transformer(1, batch=4, slots=("momentum",)))))
    axis, pinned = Axis(program, size), {}
    for given_input in program.inputs:
        options = [rule.outputs[0] for rule in axis.rules(given_input.node)]
        pinned[given_input.node] = data.draw(st.sampled_from(options))
    rules = greedy_axis(program, pinned, size)
    assert all(rules[node].outputs[0] == place for node, place in pinned.items())
    assert all(rule in axis.rules(node) for node, rule in enumerate(rules))
    assert all(cost < float("inf") for cost in movements(program, rules, size).values())


@pytest.mark.parametrize("size", [2, 4])
def test_nodes_in_one_situation_would_each_decide_the_same(size, monkeypatch):
    program = transformer(num_layers=3, batch=8, slots=("momentum",))
    fully_sharded = pinned_batch(program) | dict.fromkeys(stored(program, 0), 0)
    pinned = {
        node: place
        for node, place in fully_sharded.items()
        if any(rule.outputs[0] == place for rule in Axis(program, size).rules(node))
    }
    shared = greedy_axis(program, pinned, size, (), weights(program) & set(pinned))
    monkeypatch.setattr("weft.parallel.greedy._Greedy._situation", lambda *_: object())
    assert greedy_axis(program, pinned, size, (), weights(program) & set(pinned)) == shared


def test_an_inner_axis_cuts_what_the_outer_one_left():
    program = transformer(num_layers=1, batch=4)
    outer = AxisRules(size=2, rules=greedy_axis(program, pinned_batch(program), 2))
    inner = greedy_axis(program, pinned_batch(program), 2, (outer,))
    assert inner == outer.rules
    with pytest.raises(InputError, match="it can have"):
        greedy_axis(program, pinned_batch(program), 4, (outer,))


def test_a_pin_that_the_node_cannot_have_is_named_with_those_that_it_can():
    program = mlp(num_layers=1, batch=3)
    with pytest.raises(InputError) as caught:
        greedy_axis(program, pins(program, **{"batch.x": 0}), 2)
    assert "input f32[3,1,8]" in caught.value.need
    assert "S0" in caught.value.got
    assert caught.value.hint == "it can have R,S2"


@given(size=st.integers(2, 8), num_bytes=st.floats(1, 1e9))
def test_an_all_reduce_moves_a_reduce_scatter_and_a_gather(size, num_bytes):
    both = moved_bytes(PARTIAL, 0, num_bytes, size) + moved_bytes(0, REPLICATED, num_bytes, size)
    assert moved_bytes(PARTIAL, REPLICATED, num_bytes, size) == pytest.approx(both)


def test_only_collectives_that_exist_have_a_price():
    assert moved_bytes(REPLICATED, 1, 8.0, 2) == 0
    assert moved_bytes(0, 1, 8.0, 2) == 2.0
    assert moved_bytes(PARTIAL_MAX, REPLICATED, 8.0, 2) == 8.0
    for before, after in (
        (REPLICATED, PARTIAL),
        (0, PARTIAL),
        (PARTIAL_MAX, 0),
        (PARTIAL, PARTIAL_MAX),
    ):
        assert moved_bytes(before, after, 8.0, 2) == float("inf")
