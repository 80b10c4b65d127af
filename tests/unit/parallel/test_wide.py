"""Wide layers: which are cut, what then moves, and that anything may be cut."""

from __future__ import annotations

from itertools import product
from math import prod

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
from weft.parallel.placement import PARTIAL, REPLICATED
from weft.parallel.schemes import Schemes
from weft.parallel.validate import validate
from weft.parallel.wide import Way, cheapest, layers
from weft.program.graph import Role
from weft.program.types import DType, TensorType

WORDS = transformer(num_layers=1, batch=8, length=16, width=16, num_heads=2, vocabulary=1 << 14)


@given(
    st.sampled_from([8, 64, 512, 4096]),
    st.sampled_from([16, 64, 256]),
    st.sampled_from([(1, 4), (2, 4), (4, 2)]),
)
def test_the_threshold_is_that_of_the_rings(rows: int, width: int, shape: tuple[int, int]) -> None:
    outer, inner = shape
    program = mlp(num_layers=2, batch=rows, width=width, hidden=lambda _: 4 * width)
    machine, mesh = ideal(outer * inner), Degrees(dp=outer, tp=inner).mesh
    found = cheapest(program, machine, layers(program), mesh)
    shares = (outer, inner) if outer > 1 else (inner,)
    for node in layers(program):
        n, m = program.nodes[node].outputs[0].shape
        ways = found.get(node, (Way.ROWS,) * len(shares))
        tail = bool(layers(program)[node].tail)
        best = min(moved(own, rows, m, n, shares, tail) for own in product(Way, repeat=len(shares)))
        assert moved(ways, rows, m, n, shares, tail) == pytest.approx(best)


def moved(ways, rows, m, n, sizes, tail):
    """Numbers that leave a device: rings of reductions, and what layers gather and scatter."""
    cut = [s for s, way in zip(sizes, ways, strict=True) if way in (Way.COLUMNS, Way.SUMMANDS)]
    summed = [s for s, way in zip(sizes, ways, strict=True) if way is Way.ROWS]
    gradient = m * n / prod(cut)
    whole = len(summed) == len(sizes)
    rings = [prod(sizes)] if whole else summed
    total = sum(2 * gradient * (size - 1) / size for size in rings)
    for axis, (size, way) in enumerate(zip(sizes, ways, strict=True)):
        others = [s for k, s in enumerate(sizes) if k != axis and ways[k] is Way.ROWS]
        sides = {Way.COLUMNS: 2 * m, Way.SUMMANDS: 2 * n, Way.WHOLE: m if tail else m + n}
        total += rows / prod(others) * sides.get(way, 0) * (size - 1) / size
    return total


def test_a_vocabulary_is_cut_and_its_logits_are_never_whole() -> None:
    machine = devices(4)
    plan = expert_plan(WORDS, machine, dp=2, tp=2, wide=True)
    local = validate(plan, WORDS)
    schemes = Schemes(WORDS)
    chosen = cheapest(WORDS, machine, schemes.layers, plan.mesh)
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
    assert not cheapest(program, devices(4), layers(program), Degrees(tp=4).mesh)


def test_rows_have_to_divide_over_both_axes() -> None:
    program = mlp(num_layers=2, batch=6, width=512)
    with pytest.raises(InputError, match="rows"):
        expert_plan(program, devices(4), dp=2, tp=2, wide=True)


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
