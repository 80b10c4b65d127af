"""Sketches: nothing of a step is lost in them."""

import numpy as np
import pytest

from tests.programs import mlp, transformer
from tests.uneven import KINDS, MIXED
from weft.cost.fusion import program_traffic
from weft.cost.roofline import operator_seconds
from weft.machine.model import NodeGroup
from weft.parallel.mcts.carrying import rules_of_rows
from weft.parallel.mcts.groups import grouped
from weft.parallel.mcts.pricing import Pricing, between, measured_rows
from weft.parallel.mcts.sketching import sketched
from weft.program.graph import Phase, Role

PROGRAM = transformer(num_layers=3, batch=8, slots=("first", "second"))


@pytest.fixture(scope="module")
def sketch():
    return sketched(grouped(PROGRAM, KINDS, most=6), KINDS)


def alone(program, device, phases):
    """Time of nodes on one device by itself."""
    paid = program_traffic(program)
    return sum(
        operator_seconds(
            node.op,
            node.args,
            tuple(map(program.type_of, program.operands(n))),
            node.outputs,
            device,
            paid[n],
        )
        for n, node in enumerate(program.nodes)
        if node.phase in phases
    )


def test_segments_with_all_rows_take_what_the_passes_take(sketch):
    for kind, device in enumerate(KINDS):
        passes = alone(PROGRAM, device, (Phase.FORWARD, Phase.BACKWARD))
        assert sketch.step_s[kind, -1] == pytest.approx(passes)
        update = alone(PROGRAM, device, (Phase.UPDATE,))
        parts = sketch.parameters.update_s[:, kind].sum() + sketch.rest_s[:, kind].sum()
        assert parts == pytest.approx(update)


def test_no_rows_take_no_time_and_more_rows_more(sketch):
    assert not sketch.seconds[:, :, 0].any()
    assert (np.diff(sketch.step_s, axis=1) > 0).all()


def test_rows_are_priced_as_local_tensors():
    program = mlp(batch=8, width=64)
    pricing = Pricing(program, rules_of_rows(program), KINDS[:1])
    half = mlp(batch=4, width=64)
    points = list(pricing.points)
    for number, node in enumerate(program.nodes):
        small = half.nodes[number]
        assert small.op == node.op
        if node.phase is Phase.FORWARD and node.op == "einsum":
            wanted = operator_seconds(
                small.op,
                small.args,
                tuple(map(half.type_of, half.operands(number))),
                small.outputs,
                KINDS[0],
                program_traffic(half)[number],
            )
            assert pricing.seconds(number)[0, points.index(4)] == pytest.approx(wanted)


def test_all_bytes_of_parameters_gradients_and_state_are_there(sketch):
    def total(role):
        sizes = (PROGRAM.nodes[i.node].outputs[0] for i in PROGRAM.inputs if i.role is role)
        return sum(t.num_bytes for t in sizes)

    its = sketch.parameters
    assert its.num_bytes.sum() == its.gradient_bytes.sum() == total(Role.PARAMETER)
    assert its.state_bytes.sum() == total(Role.STATE)
    assert (its.position >= sketch.num_forward).all()


def test_gradients_of_products_have_factors_and_others_none(sketch):
    its = sketch.parameters
    names = {i.node: i.name for i in PROGRAM.inputs}
    for at, node in enumerate(its.node.tolist()):
        is_matrix = len(PROGRAM.nodes[node].outputs[0].shape) == 2
        if not is_matrix:
            assert its.factor_row_bytes[at] == 0, names[node]
    up = names and next(at for at, n in enumerate(its.node.tolist()) if names[n].endswith("up"))
    out, width = PROGRAM.nodes[its.node[up]].outputs[0].shape
    length = 4
    assert its.factor_row_bytes[up] == 4 * length * (out + width)


def test_what_passes_between_groups_comes_later_in_another_group(sketch):
    assert sketch.crossings
    for crossing in sketch.crossings:
        assert crossing.row_bytes > 0
        assert crossing.maker < min(crossing.readers)
        assert list(crossing.readers) == sorted(crossing.readers)
        assert sketch.group[crossing.maker] not in sketch.group[list(crossing.readers)]


def test_everything_that_is_held_is_let_go(sketch):
    assert (sketch.held_row_bytes >= -1e-6).all() and (sketch.held_bytes >= -1e-6).all()
    gradients = sketch.parameters.gradient_bytes.sum()
    assert sketch.held_bytes[:, -1].sum() == pytest.approx(gradients, rel=0.05)


def test_rows_are_measured_at_halves_and_lie_on_lines_between():
    assert measured_rows(12) == (1, 3, 6, 12)
    table = between((1, 2, 4), np.asarray([[1.0, 2.0, 6.0]]), 4)
    assert table.tolist() == [[0.0, 1.0, 2.0, 4.0, 6.0]]


def test_kinds_of_devices_are_those_of_the_machine():
    assert all(isinstance(group, NodeGroup) for group in MIXED.groups)
    grouping = grouped(PROGRAM, KINDS[:1], most=6)
    one = sketched(grouping, KINDS[:1])
    two = sketched(grouping, KINDS[:2])
    assert two.seconds[:, :1] == pytest.approx(one.seconds)
