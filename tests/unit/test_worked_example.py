"""The page docs/explain/how_a_plan_is_chosen.md, number by number, against the planner."""

from functools import cache
from pathlib import Path

import pytest

from weft.core.provenance import derived
from weft.cost.collective import collective_seconds
from weft.machine.model import Device, Link, Machine, NodeGroup
from weft.machine.topology import axis_group
from weft.parallel.exact.search import Limits, MeshSearch
from weft.parallel.exact.stage import Stage
from weft.parallel.placement import PARTIAL, REPLICATED, Mesh
from weft.parallel.plan import Level
from weft.parallel.skeleton import build_skeleton
from weft.program.builder import Builder
from weft.program.fold import fold
from weft.program.graph import Phase, Role
from weft.program.types import DType, TensorType

PAGE = (Path(__file__).parents[2] / "docs/explain/how_a_plan_is_chosen.md").read_text()
WIDTH, HIDDEN = 2048, 8192
FEW, MANY = 1024, 65_536
PLENTY_BYTES = 1e15


def paper_machine(memory_bytes):
    def free(value, unit):
        return derived(value, unit, "the worked example")

    link = Link(bytes_per_s=free(100e9, "B/s"), latency_s=free(0.0, "s"))
    device = Device(
        name="paper",
        kind="cuda",
        matmul_flops_per_s={"f32": free(100e12, "FLOP/s")},
        vector_flops_per_s=free(1e30, "op/s"),
        memory_bytes=free(memory_bytes, "B"),
        memory_bytes_per_s=free(1e30, "B/s"),
        launch_s=free(0.0, "s"),
    )
    pair = NodeGroup(device=device, devices_per_node=2, num_nodes=1, link=link)
    return Machine(name="paper", groups=(pair,), network=link, overlap=free(1.0, "share"))


def two_layers(rows):
    b = Builder("two layers")
    x = b.input("batch.x", Role.BATCH, TensorType(DType.F32, (rows, WIDTH)))
    w1 = b.input("w1", Role.PARAMETER, TensorType(DType.F32, (WIDTH, HIDDEN)))
    w2 = b.input("w2", Role.PARAMETER, TensorType(DType.F32, (HIDDEN, WIDTH)))
    a = b.add("relu.default", b.add("einsum", "bd,dh->bh", x, w1))
    y = b.add("einsum", "bh,hd->bd", a, w2)
    loss = b.add("sum", b.add("mul.Tensor", y, y), (0, 1), False)
    dy = b.add("mul.Scalar", y, 2.0, phase=Phase.BACKWARD)
    dw2 = b.add("einsum", "bh,bd->hd", a, dy, phase=Phase.BACKWARD)
    da = b.add("einsum", "bd,hd->bh", dy, w2, phase=Phase.BACKWARD)
    dh = b.add("threshold_backward.default", da, a, 0.0, phase=Phase.BACKWARD)
    dw1 = b.add("einsum", "bd,bh->dh", x, dh, phase=Phase.BACKWARD)
    updates = []
    for weight, gradient in ((w1, dw1), (w2, dw2)):
        change = b.add("mul.Scalar", gradient, 0.1, phase=Phase.UPDATE)
        updates.append((weight, b.add("sub.Tensor", weight, change, phase=Phase.UPDATE)))
    return b.build(loss, tuple(updates))


@cache
def planned(rows, memory_bytes=PLENTY_BYTES):
    limits = Limits(memory_limit_bytes=memory_bytes, level=Level.FAST)
    machine = paper_machine(memory_bytes)
    program = two_layers(rows)
    skeleton = build_skeleton(program, fold(program))
    search = MeshSearch(skeleton, machine, Mesh((2,)), limits, Stage(program))
    return search.search().build().plan


def placements(plan, name):
    program = two_layers(FEW)
    return plan.strategies[program.input_by_name[name].node].outputs[0][0]


def us(seconds):
    return f"{seconds * 1e6:,.1f} µs"


def collective_us(kind, num_bytes):
    group = axis_group(paper_machine(PLENTY_BYTES), (2,), 0)
    return us(collective_seconds(kind, num_bytes, group))


PRODUCT_S = 2 * FEW * WIDTH * HIDDEN / 100e12
Y_BYTES, W_BYTES = 4 * FEW * WIDTH, 4 * WIDTH * HIDDEN


@pytest.mark.parametrize("kind", ["all-reduce", "reduce-scatter", "all-gather", "all-to-all"])
def test_the_table_of_collectives_is_what_the_cost_model_says(kind):
    (row,) = [line for line in PAGE.splitlines() if f"| {kind} |" in line]
    assert f"| {collective_us(kind, Y_BYTES)} | {collective_us(kind, W_BYTES)} |" in row


def test_the_three_plans_by_hand_cost_what_the_page_adds_up():
    gradients_s = 2 * (2 * W_BYTES / 2 / 100e9)
    by_hand = [5 * PRODUCT_S, 5 * PRODUCT_S / 2 + gradients_s, 5 * PRODUCT_S / 2 + Y_BYTES / 100e9]
    assert [us(s) for s in by_hand] == ["1,718.0 µs", "2,201.2 µs", "942.9 µs"]
    for seconds in (PRODUCT_S, PRODUCT_S / 2, *by_hand):
        assert f"**{us(seconds)}**" in PAGE


def test_for_few_rows_the_planner_finds_columns_then_rows_at_the_cost_by_hand():
    plan = planned(FEW)
    assert (placements(plan, "w1"), placements(plan, "w2")) == (1, 0)
    assert us(plan.prediction.objective_s) == us(5 * PRODUCT_S / 2 + Y_BYTES / 100e9)
    assert f"Its optimum is **{us(plan.prediction.bound_s)}**" in PAGE


def test_for_many_rows_it_cuts_the_batch_and_hides_one_of_two_gradients():
    plan = planned(MANY)
    cut = (placements(plan, "batch.x"), placements(plan, "w1"), placements(plan, "w2"))
    assert cut == (0, REPLICATED, REPLICATED)
    assert f"**{us(plan.prediction.objective_s)}**" in PAGE
    assert f"the step takes **{us(plan.prediction.step_s)}**" in PAGE
    assert us(plan.prediction.exposed_s) == collective_us("all-reduce", W_BYTES)
    columns_and_rows_s = MANY // FEW * (5 * PRODUCT_S / 2 + Y_BYTES / 100e9)
    assert f"against {us(columns_and_rows_s)} by columns and rows" in PAGE


def test_when_memory_is_short_it_cuts_the_weights_and_gathers_them_for_use():
    free, short = planned(MANY), planned(MANY, 3.6e9)
    assert f"needs {free.prediction.peak_bytes / 1e9:.2f} GB on each device" in PAGE
    assert f"at {short.prediction.peak_bytes / 1e9:.2f} GB" in PAGE
    assert placements(short, "batch.x") == 0
    assert min(placements(short, "w1"), placements(short, "w2")) >= 0
    assert f"**{us(short.prediction.objective_s)}**" in PAGE
    extra_s = short.prediction.objective_s - free.prediction.objective_s
    gathers_s = W_BYTES / 2 / 100e9
    assert extra_s == pytest.approx(0.1 * gathers_s, rel=1e-6)
    assert collective_us("all-gather", W_BYTES) == us(gathers_s)
    assert short.prediction.step_s == pytest.approx(free.prediction.step_s, rel=1e-9)
    reduced = [c for c in short.copies if c.origin == (PARTIAL,) and c.target[0] >= 0]
    assert len(reduced) == 2
