import pytest

from tests.programs import mlp, transformer
from weft.core.errors import InputError
from weft.parallel.placement import PARTIAL, REPLICATED
from weft.parallel.plan import Strategy
from weft.parallel.propagate import Axis, AxisRules, combine, propagate
from weft.program.builder import Builder
from weft.program.graph import Phase, Role, Value
from weft.program.types import DType, TensorType


def nodes_of(program, op, phase=Phase.FORWARD):
    return [n for n, node in enumerate(program.nodes) if node.op == op and node.phase is phase]


def input_value(program, name):
    return Value(program.input_by_name[name].node)


def everything_whole(program, size):
    return AxisRules(
        size=size, rules=tuple(Axis(program, 1).rules(n)[0] for n in range(len(program.nodes)))
    )


def test_a_cut_batch_forces_whole_weights_and_cut_activations():
    program = mlp(num_layers=1)
    seeds = {input_value(program, "batch.x"): 0}
    found = propagate(program, seeds, 2).placements
    assert found[input_value(program, "layers.0.up")] == REPLICATED
    assert found[input_value(program, "layers.0.down")] == REPLICATED
    assert found[input_value(program, "batch.y")] == 0
    assert all(found[Value(n)] == 0 for n in nodes_of(program, "einsum"))


def test_a_cut_batch_clashes_only_where_its_gradients_meet_whole_weights():
    program = mlp(num_layers=1)
    found = propagate(program, {input_value(program, "batch.x"): 0}, 2)
    assert len(found.conflicts) > 0
    assert {program.nodes[c.node].phase for c in found.conflicts} == {Phase.UPDATE}
    assert {c.operands for c in found.conflicts} == {(PARTIAL,)}


def test_columns_force_rows_in_the_second_product():
    program = mlp(num_layers=1)
    found = propagate(program, {input_value(program, "layers.0.up"): 0}, 2)
    assert found.placements[input_value(program, "layers.0.down")] == 1
    assert found.placements[input_value(program, "batch.x")] == REPLICATED
    (joined,) = [c for c in found.conflicts if program.nodes[c.node].phase is Phase.FORWARD]
    # The residual sum wants the product whole, which its summands are not.
    assert str(joined) == f"%{joined.node} einsum (layers.0): no rule makes R from S2,?"


def test_placements_travel_backward_from_a_result_to_its_sources():
    program = mlp(num_layers=1)
    (wide,) = nodes_of(program, "relu.default")
    found = propagate(program, {Value(wide): 2}, 2).placements
    assert found[input_value(program, "layers.0.up")] == 0
    assert found[input_value(program, "layers.0.down")] == 1


def test_a_value_that_is_read_twice_lies_in_one_place():
    b = Builder("square")
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (4,)))
    square = b.add("mul.Tensor", x, x)
    program = b.build(b.add("sum", square, (0,), False))
    found = propagate(program, {square: PARTIAL}, 2)
    assert [conflict.node for conflict in found.conflicts] == [square.node]
    assert "no rule makes P from ?,?" in str(found.conflicts[0])


def test_nothing_follows_from_nothing():
    program = mlp(num_layers=1)
    found = propagate(program, {}, 2)
    assert (found.placements, found.conflicts) == ({}, ())


def test_what_is_forced_agrees_with_a_rule_at_every_node_without_conflict():
    program = transformer(num_layers=1)
    seeds = {input_value(program, name): 0 for name in ("batch.ids", "batch.target")}
    found = propagate(program, seeds, 2)
    clashing = {conflict.node for conflict in found.conflicts}
    for node in set(range(len(program.nodes))) - clashing:
        outputs = tuple(Value(node, k) for k in range(len(program.nodes[node].outputs)))
        values = (*outputs, *program.operands(node))
        assert any(
            all(
                found.placements.get(v, p) == p
                for v, p in zip(values, r.outputs + r.operands, strict=True)
            )
            for r in Axis(program, 2).rules(node)
        )


def test_a_cut_that_does_not_divide_is_no_rule():
    program = mlp(num_layers=1, batch=4)
    node = program.input_by_name["batch.x"].node
    assert {r.outputs[0] for r in Axis(program, 4).rules(node)} == {REPLICATED, 0, 2}
    assert {r.outputs[0] for r in Axis(program, 8).rules(node)} == {REPLICATED, 2}


def test_an_axis_divides_what_outer_axes_left():
    program = mlp(num_layers=1, batch=4)
    node = program.input_by_name["batch.x"].node
    axis = Axis(program, 2)
    cut = tuple(
        next((r for r in axis.rules(n) if r.outputs[0] == 0), axis.rules(n)[0])
        for n in range(len(program.nodes))
    )
    outer = AxisRules(size=2, rules=cut)
    assert 0 in {r.outputs[0] for r in Axis(program, 2, (outer,)).rules(node)}
    assert 0 not in {r.outputs[0] for r in Axis(program, 4, (outer,)).rules(node)}
    assert Axis(program, 2, (outer,)).num_bytes(Value(node)) == 4 * 8 * 4 / 2


def test_strategies_join_the_rules_of_the_axes_in_order():
    b = Builder("twice")
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (4, 4)))
    program = b.build(b.add("sum", x, (0, 1), False))
    by_dim = [Axis(program, 2).rules(n) for n in range(2)]
    axes = [AxisRules(size=2, rules=(by_dim[0][1 + d], by_dim[1][1 + d])) for d in range(2)]
    assert combine(axes) == (
        Strategy(outputs=((0, 1),), operands=()),
        Strategy(outputs=((-2, -2),), operands=((0, 1),)),
    )


def test_a_seed_outside_the_program_is_named():
    program = mlp(num_layers=1)
    with pytest.raises(InputError, match="%9999"):
        propagate(program, {Value(9999): 0}, 2)


def test_rules_of_another_program_are_refused():
    outer = everything_whole(mlp(num_layers=1), 2)
    with pytest.raises(InputError, match="same program"):
        Axis(mlp(num_layers=2), 2, (outer,))
