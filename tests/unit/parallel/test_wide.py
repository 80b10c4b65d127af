"""Wide layers: which are cut, what then moves, and that anything may be cut."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.job import program_of
from tests.homed import devices, drawn_ways
from tests.programs import Tape, mlp, transformer
from tests.unit.parallel.test_factors import ideal
from weft.core.errors import InputError
from weft.parallel.degrees import Degrees
from weft.parallel.experts import Desk, expert_plan
from weft.parallel.local import Collective, CollectiveKind
from weft.parallel.pinning import resolve
from weft.parallel.placement import PARTIAL, REPLICATED, Mesh
from weft.parallel.runs import Runs
from weft.parallel.schemes import Schemes
from weft.parallel.validate import validate
from weft.parallel.way_prices import cheapest
from weft.parallel.wide import Way, alike, layers, plain_ways, possible, shares_rows
from weft.program.graph import Role
from weft.program.types import DType, TensorType

WORDS = transformer(num_layers=1, batch=8, length=16, width=16, num_heads=2, vocabulary=1 << 14)


@given(
    st.sampled_from([8, 64, 512, 4096]),
    st.sampled_from([16, 64, 256]),
    st.sampled_from([2, 4, 8]),
)
def test_the_threshold_is_that_of_the_rings(rows: int, width: int, size: int) -> None:
    program = mlp(num_layers=1, batch=rows, width=width, hidden=lambda _: 4 * width)
    first, second = sorted(layers(program))
    found = cheapest(Runs(program, layers(program)), ideal(size), Mesh((size,)))
    shapes = [program.nodes[node].outputs[0].shape for node in (first, second)]
    (hidden, m), (n, _) = shapes
    ways = [found.get(node, (Way.ROWS,))[0] for node in (first, second)]
    pairs = product(set(Way) - {Way.LAST}, Way)
    best = min(moved(one, two, rows, (m, hidden, n), size) for one, two in pairs)
    assert moved(*ways, rows, (m, hidden, n), size) == pytest.approx(best)


def moved(first, second, rows, widths, size):
    """Numbers that a ring moves for two layers and their gradients, gathers as one."""
    m, hidden, n = widths
    every = (Way.WHOLE, Way.LAST)
    total = 2 * m * hidden * (first is Way.ROWS) + 2 * hidden * n * (second is Way.ROWS)
    # What comes in, of which nobody wants a gradient, and what goes out.
    total += rows * m * (first in (*every, Way.COLUMNS)) + rows * m * (first is Way.SUMMANDS) / size
    total += 2 * rows * n * (second is Way.SUMMANDS)
    # Between the two: forward, then backward.
    paired = first is Way.COLUMNS and second is Way.SUMMANDS
    total += rows * hidden * (second in (*every, Way.COLUMNS) and first is not Way.WHOLE)
    total += rows * hidden * (first is Way.SUMMANDS)
    total += rows * hidden * (second is Way.COLUMNS)
    reads_all = first in (*every, Way.SUMMANDS) and (second is not Way.WHOLE)
    total += rows * hidden * reads_all
    turned = (first is Way.COLUMNS) + (second is Way.SUMMANDS)
    return total + 2 * rows * hidden * turned * (not paired) / size


def test_a_vocabulary_is_cut_and_its_logits_are_never_whole() -> None:
    machine = devices(4)
    plan = expert_plan(WORDS, machine, dp=2, tp=2, wide=True)
    local = validate(plan, WORDS)
    schemes = Schemes(WORDS)
    chosen = cheapest(schemes.runs, machine, plan.mesh)
    assert chosen
    assert any(WORDS.nodes[node].outputs[0].shape[0] == 1 << 14 for node in chosen)
    largest = max(
        WORDS.nodes[step.node].outputs[0].num_elements
        for step in local.instructions
        if isinstance(step, Collective) and step.kind is CollectiveKind.ALL_GATHER
    )
    assert largest < 8 * 16 * (1 << 14) / 4


def test_many_rows_have_no_wide_layers() -> None:
    program = mlp(num_layers=2, batch=1 << 14, width=64)
    with pytest.raises(InputError, match="cheaper to cut"):
        expert_plan(program, devices(4), dp=2, tp=2, wide=True)


@pytest.mark.parametrize(
    ("way", "row"),
    [(Way.COLUMNS, PARTIAL), (Way.SUMMANDS, 2), (Way.WHOLE, REPLICATED)],
)
def test_lookups_in_a_table_that_is_the_output_projection_follow_its_cut(way, row) -> None:
    tape = Tape("tied")
    tape.parameter("table", 64, 32)
    ids = tape.builder.input("batch.ids", Role.BATCH, TensorType(DType.I64, (8, 4)))
    words = tape.relu(tape.embedding(ids, "table"))
    program = tape.finish(tape.cross_entropy(tape.linear(words, "table"), ids))
    (table,) = layers(program)
    desk = Desk(program, resolve(program))
    degrees = Degrees(tp=4, wide=True)
    plan = desk.candidate(devices(4), degrees, 1e12, {table: (way,)}).plan
    validate(plan, program)
    (lookup,) = [k for k, node in enumerate(program.nodes) if node.op == "embedding.default"]
    assert plan.strategies[lookup].outputs[0] == (row,)
    assert not [copy for copy in plan.copies if copy.value.node == table]


def test_a_layer_that_computes_all_rows_leaves_the_next_one_its_share() -> None:
    program = mlp(num_layers=1, batch=8, width=16, hidden=lambda _: 32)
    first, second = sorted(layers(program))
    desk = Desk(program, resolve(program))
    degrees = Degrees(tp=4, wide=True)
    plan = desk.candidate(devices(4), degrees, 1e12, {first: (Way.WHOLE,)}).plan
    validate(plan, program)
    products = [k for k, node in enumerate(program.nodes) if node.op == "einsum"]
    reads_second = [k for k in products if second in {v.node for v in program.operands(k)}]
    assert len(reads_second) == 2
    assert all(plan.strategies[k].outputs[0] == (0,) for k in reads_second)


def test_a_weight_times_itself_is_no_layer() -> None:
    tape = Tape("gram")
    tape.parameter("weight", 16, 16)
    weight = tape.parameters["weight"]
    y = tape.builder.input("batch.y", Role.BATCH, TensorType(DType.F32, (16, 16)))
    square = tape.product("ab,bc->ac", weight, weight)
    program = tape.finish(tape.mean_square(square, y))
    assert not layers(program)
    assert not cheapest(Runs(program, layers(program)), devices(4), Degrees(tp=4).mesh)


@pytest.mark.parametrize(
    ("rows", "degrees", "shared"),
    [
        (8, {"dp": 2, "tp": 2}, (True, True)),
        (6, {"dp": 2, "tp": 2}, (True, False)),
        (2, {"dp": 4, "tp": 2}, (False, True)),
        (6, {"tp": 4}, (False,)),
    ],
)
def test_an_axis_that_does_not_divide_the_rows_is_one_of_weights(rows, degrees, shared) -> None:
    program = mlp(num_layers=2, batch=rows, width=64, hidden=lambda _: 256)
    named = Degrees(**degrees, wide=True)
    assert shares_rows(program, named.mesh) == shared
    desk = Desk(program, resolve(program))
    heaviest = alike(program, desk.schemes.layers)[0]
    ways = tuple(Way.ROWS if own else Way.COLUMNS for own in shared)
    plan = desk.candidate(devices(named.num_devices), named, 1e12, dict.fromkeys(heaviest, ways))
    validate(plan.plan, program)
    (x, _) = (i.node for i in program.inputs if i.role is Role.BATCH)
    assert plan.plan.strategies[x].outputs[0] == tuple(0 if own else REPLICATED for own in shared)
    for layer in desk.schemes.layers.values():
        every = possible(program, layer, named.mesh)
        assert every[0] == plain_ways(program, named.mesh)
        assert all(
            own or way is not Way.ROWS for w in every for own, way in zip(shared, w, strict=True)
        )


@pytest.mark.parametrize(
    "recipe", ["gpt.py:gpt_tiny", "llama3.py:llama_tiny", "resnet.py:resnet_tiny"]
)
@pytest.mark.parametrize("zero", [0, 1, 3])
def test_any_layers_may_be_cut(recipe: str, zero: int) -> None:
    program = program_of(recipe)
    desk = Desk(program, resolve(program))
    for seed in range(3):
        degrees = Degrees(dp=2, tp=2, zero=zero, wide=True)
        chosen = drawn_ways(program, desk.schemes.layers, degrees.mesh, seed)
        plan = desk.candidate(devices(4), degrees, 1e12, chosen).plan
        validate(plan, program)
        for node, ways in chosen.items():
            own = plan.strategies[node].outputs[0]
            for way, place in zip(ways, own, strict=True):
                assert (
                    way not in layers(program)[node].dims
                    or place == layers(program)[node].dims[way]
                )


def test_a_table_in_columns_leaves_rows_to_all_that_follow() -> None:
    desk = Desk(WORDS, resolve(WORDS))
    looked_up = (n for n, own in layers(WORDS).items() if "embedding" in WORDS.nodes[own.reader].op)
    table = max(looked_up, key=lambda node: WORDS.nodes[node].outputs[0].num_bytes)
    ways = {table: (Way.ROWS, Way.COLUMNS)}
    plan = desk.candidate(devices(4), Degrees(dp=2, tp=2, wide=True), 1e12, ways).plan
    rows = {
        plan.strategies[number].outputs[0][1]
        for number, node in enumerate(WORDS.nodes)
        if node.op == "attention" or node.op == "native_layer_norm.default"
    }
    assert rows == {0}
