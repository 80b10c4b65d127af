"""What decisions about variables force, with and without the folding of layers."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.programs import mlp, transformer
from weft.parallel.linkage import Decision, ReducedAxis, certain, linkages
from weft.parallel.placement import REPLICATED, is_partial
from weft.parallel.propagate import Axis, spread
from weft.program.fold import Folding, fold
from weft.program.graph import Role, Value


def whole_batch(axis):
    """What follows from a batch that every device has in full."""
    batch = {Value(i.node): REPLICATED for i in axis.program.inputs if i.role is Role.BATCH}
    return spread(axis, batch).placements


def named(program, linkage):
    """Placements of variables that a decision forces, by name."""
    names = {i.node: i.name for i in program.inputs}
    return {names[v.node]: place for v, place in linkage.variables.items()}


def of(program, found, name, placement):
    node = program.input_by_name[name].node
    (one,) = [x for x in found if x.decision == Decision(Value(node), placement)]
    return one


def without_folding(program):
    nodes = range(len(program.nodes))
    return Folding(representative=tuple(nodes), multiplicity=(1,) * len(nodes), layers=())


@pytest.fixture(scope="module")
def program():
    return transformer(num_layers=4)


@pytest.fixture(scope="module")
def found(program):
    axis = ReducedAxis(program, 2)
    return linkages(axis, fold(program), whole_batch(axis))


def test_heads_are_cut_together(program, found):
    own = of(program, found, "layers.1.attention.query", 0)
    forced = named(program, own)
    assert own.conflicts == ()
    assert {name: place for name, place in forced.items() if place >= 0} == {
        "layers.1.attention.query": 0,
        "layers.1.attention.key": 0,
        "layers.1.attention.value": 0,
        "layers.1.attention.out": 1,
    }
    assert own.cuts == 4


def test_columns_force_rows_and_rows_columns(program, found):
    cut = {"layers.2.mlp.up": 0, "layers.2.mlp.down": 1}
    for name, place in cut.items():
        forced = named(program, of(program, found, name, place))
        assert {n: p for n, p in forced.items() if p >= 0} == cut


def test_cuts_that_a_norm_forbids_are_conflicts(program, found):
    conflicts = of(program, found, "layers.1.mlp.up", 1).conflicts
    assert conflicts[0].op.startswith("native_layer_norm")
    assert {c.scope for c in conflicts} == {"layers.1.norm2"}


def test_to_leave_a_matrix_whole_forces_nothing_else(program, found):
    assert named(program, of(program, found, "layers.1.mlp.up", REPLICATED)) == {
        "layers.1.mlp.up": REPLICATED
    }


def test_the_decision_that_decides_most_comes_first(found):
    sizes = [len(one.variables) for one in found]
    assert all(a >= b for a, b in pairwise(sizes)) and sizes[0] > sizes[-1]


def test_layers_that_are_alike_are_moved_and_not_computed_anew(program, found):
    axis = ReducedAxis(program, 2)
    every = linkages(axis, without_folding(program), whole_batch(axis))
    assert {x.decision: (x.variables, x.conflicts) for x in every} == {
        x.decision: (x.variables, x.conflicts) for x in found
    }


def test_what_no_decision_can_change_is_certain(program):
    axis = ReducedAxis(program, 2)
    batch = whole_batch(axis)
    known = certain(axis, fold(program), batch)
    assert batch.items() <= known.items()
    names = {i.node: i.name for i in program.inputs if i.role is Role.PARAMETER}
    settled = {names[v.node]: place for v, place in known.items() if v.node in names}
    assert settled == {name: REPLICATED for name in names.values() if "norm" in name}
    assert spread(axis, known).conflicts == ()


def test_once_layers_have_nothing_to_do_with_each_other_one_is_looked_at(program, monkeypatch):
    axis = ReducedAxis(program, 2)
    known = certain(axis, fold(program), whole_batch(axis))
    asked = []
    monkeypatch.setattr(
        "weft.parallel.linkage.spread", lambda *given: asked.append(given) or spread(*given)
    )
    folded = linkages(axis, fold(program), known)
    few = len(asked)
    asked.clear()
    every = linkages(axis, without_folding(program), known)
    assert few < len(asked)
    assert {x.decision: (x.variables, x.conflicts) for x in every} == {
        x.decision: (x.variables, x.conflicts) for x in folded
    }
    heads = of(program, folded, "layers.2.attention.query", 0)
    assert len(heads.variables) == heads.cuts == 4


def test_nothing_is_decided_about_what_is_known(program):
    axis = ReducedAxis(program, 2)
    head = Value(program.input_by_name["head.weight"].node)
    known = {**whole_batch(axis), head: REPLICATED}
    assert all(x.decision.variable != head for x in linkages(axis, fold(program), known))


def test_an_all_reduce_is_a_conflict_where_sums_are_not_reduced():
    program = mlp(num_layers=1)
    up = Value(program.input_by_name["layers.0.up"].node)
    assert spread(ReducedAxis(program, 2), {up: 0}).conflicts == ()
    assert spread(Axis(program, 2), {up: 0}).conflicts != ()


def test_nobody_makes_or_reads_summands_where_sums_are_reduced(program):
    axis = ReducedAxis(program, 2)
    for node in range(len(program.nodes)):
        for rule in axis.rules(node):
            assert not any(map(is_partial, rule.outputs + rule.operands))


def test_what_contradicts_the_known_is_a_conflict_at_its_maker(program):
    axis = ReducedAxis(program, 2)
    head = Value(program.input_by_name["head.weight"].node)
    clash = spread(axis, {head: 0}, {head: REPLICATED})
    assert [c.node for c in clash.conflicts] == [head.node]
    assert clash.conflicts[0].outputs == (0,)
    assert clash.placements == {}
