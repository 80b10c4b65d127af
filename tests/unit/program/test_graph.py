from dataclasses import replace

import pytest

from tests.programs import mlp, transformer
from weft.core.errors import InputError
from weft.program.builder import Builder
from weft.program.evaluate import evaluate
from weft.program.graph import Role, Value, compact, map_values, require_input, values_in
from weft.program.types import DType, TensorType
from weft.program.verify import verify


def masked(fill):
    b = Builder("masked")
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (2,)))
    filled = b.add("masked_fill.Scalar", x, b.add("gt.Scalar", x, 0.0), fill)
    return b.build(b.add("sum", filled, (0,)))


def test_values_are_found_depth_first():
    assert list(values_in((Value(1), 2, ((Value(3), "x"), Value(0))))) == [
        Value(1),
        Value(3),
        Value(0),
    ]


def test_mapping_values_keeps_everything_else():
    args = (Value(1), 2, ((Value(3), "x"), None))
    assert map_values(args, lambda v: Value(v.node + 1)) == (
        Value(2),
        2,
        ((Value(4), "x"), None),
    )


def test_users_are_the_inverse_of_operands():
    program = transformer(2)
    edges = {
        (value.node, reader, position)
        for reader in range(len(program.nodes))
        for position, value in enumerate(program.operands(reader))
    }
    assert edges == {
        (made, reader, position)
        for made, users in enumerate(program.users)
        for reader, position in users
    }


def test_compacting_drops_what_nothing_reads_and_computes_the_same():
    b = Builder("waste")
    unread = b.input("unread", Role.BUFFER, TensorType(DType.F64, (3,)))
    x = b.input("x", Role.BATCH, TensorType(DType.F64, (3,)))
    b.add("exp.default", unread)
    square = b.add("mul.Tensor", x, x)
    b.add("neg.default", square)
    program = b.build(b.add("sum", square, (0,)))
    small = compact(program)
    verify(small)
    assert [node.op for node in small.nodes] == ["input", "input", "mul.Tensor", "sum"]
    inputs = {"x": [1.0, 2.0, 3.0], "unread": [0.0, 0.0, 0.0]}
    assert evaluate(small, inputs) == evaluate(program, inputs) == (14.0, {})


def test_the_digest_ignores_names_scopes_and_sources_only():
    program = mlp(2)
    renamed = replace(
        program,
        name="other",
        nodes=tuple(replace(node, scope="s", source="f.py:1") for node in program.nodes),
    )
    assert renamed.digest == program.digest
    assert mlp(2, batch=5).digest != program.digest
    assert replace(program, updates=program.updates[1:]).digest != program.digest


def test_nodes_of_one_kind_differ_in_their_operands_only():
    program = mlp(3)
    by_kind = {}
    for node, kind in zip(program.nodes, program.kinds, strict=True):
        by_kind.setdefault(kind, []).append(node)
    assert max(map(len, by_kind.values())) >= 3
    for alike in by_kind.values():
        constants = {(n.op, n.outputs, map_values(n.args, lambda _: None)) for n in alike}
        assert len(constants) == 1


def test_one_in_three_types_makes_three_kinds():
    b = Builder("ones")
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (2,)))
    made = [b.add("add.Scalar", x, one) for one in (1, 1.0, True, 1.0)]
    kinds = b.build(b.add("sum", made[-1], (0,))).kinds
    one, real, true, again = (kinds[value.node] for value in made)
    assert len({one, real, true}) == 3
    assert again == real


def test_infinite_constants_have_a_digest_of_their_own():
    digests = {masked(fill).digest for fill in (float("-inf"), float("inf"), -1e30)}
    assert len(digests) == 3


def test_a_missing_input_suggests_names_like_it():
    with pytest.raises(InputError, match=r"did you mean layers\.0\.up"):
        require_input(mlp(1), "layer.0.up")


def test_trainable_elements_are_counted():
    assert mlp(3, width=8).num_parameters == 3 * 2 * 16 * 8
