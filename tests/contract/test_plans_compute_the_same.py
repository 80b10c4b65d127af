"""Every plan, whoever made it, computes what one device computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from tests.programs import mlp, random_inputs, transformer
from tests.ranks import run_plan
from weft.core.errors import InputError
from weft.machine.presets import preset
from weft.parallel.exact.search import Limits, MeshSearch
from weft.parallel.experts import Expert, expert_candidate
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level, ParallelPlan
from weft.parallel.recompute import Expanded, cheap_nodes, expand, layer_nodes
from weft.parallel.skeleton import build_skeleton
from weft.parallel.validate import validate
from weft.program.evaluate import evaluate
from weft.program.fold import fold
from weft.program.graph import Program
from weft.program.types import DType

MACHINE = preset("dgx-h100x1")
PROGRAMS = {
    "mlp": mlp(num_layers=3, batch=8, width=16, dtype=DType.F64, slots=("m",)),
    "transformer": transformer(
        num_layers=4, batch=4, length=8, width=16, num_heads=4, vocabulary=16, dtype=DType.F64,
        slots=("m",), dropout=0.25,
    ),
}  # fmt: skip
EXPERTS = {
    e.name: e
    for e in (
        Expert(data=4),
        Expert(data=4, sharded=True),
        Expert(tensor=4),
        Expert(data=2, tensor=2),
        Expert(data=2, tensor=2, sharded=True),
        Expert(data=2, tensor=2, sequence=True),
        Expert(data=2, tensor=2, sharded=True, sequence=True),
    )
}


def assert_same(program: Program, plan: ParallelPlan) -> None:
    validate(plan, program)
    inputs = random_inputs(program)
    loss, updates = evaluate(program, inputs)
    planned_loss, planned = run_plan(program, plan, inputs)
    assert planned_loss == pytest.approx(loss, rel=1e-12)
    assert planned.keys() == updates.keys()
    for name, array in updates.items():
        np.testing.assert_allclose(planned[name], array, rtol=1e-9, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("expert", EXPERTS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_experts(name: str, expert: str) -> None:
    program = PROGRAMS[name]
    try:
        candidate = expert_candidate(program, MACHINE, EXPERTS[expert], memory_limit_bytes=1e12)
    except InputError as error:
        pytest.fail(f"an expert's plan should exist here: {error}")
    assert_same(program, candidate.plan)


@pytest.mark.parametrize("mesh", [(4,), (2, 2)])
@pytest.mark.parametrize("weight", [0.0, 0.1, 1000.0])
@pytest.mark.parametrize("name", PROGRAMS)
def test_searched_plans_at_every_price_of_memory(
    name: str, mesh: tuple[int, ...], weight: float
) -> None:
    """A price moves the plan through the whole space: replicas, shards, ZeRO."""
    program = PROGRAMS[name]
    search = search_of(program, mesh)
    free = search.model.solve()
    price = weight * free.objective_s / free.num_bytes
    candidate, _ = search.at_price(price)
    assert_same(program, candidate.plan)


@pytest.mark.parametrize("nodes", [cheap_nodes, layer_nodes])
def test_recomputation(nodes: Callable[[Program], tuple[int, ...]]) -> None:
    """With a limit of nothing the plan recomputes and still does not fit."""
    program = PROGRAMS["transformer"]
    expanded = expand(program, nodes(program))
    assert len(expanded.program.nodes) > len(program.nodes)
    search = search_of(program, (2, 2), {"some": expanded})
    for price in (0.0, 1.0):
        _, solution = search.at_price(price)
        candidate = search.recomputing(solution)
        assert candidate is not None
        assert candidate.plan.recompute == expanded.chosen
        assert_same(program, candidate.plan)


def search_of(
    program: Program, mesh: tuple[int, ...], recomputations: Mapping[str, Expanded] | None = None
) -> MeshSearch:
    return MeshSearch(
        build_skeleton(program, fold(program)),
        MACHINE,
        Mesh(mesh),
        Limits(memory_limit_bytes=0.0 if recomputations else 1e12, level=Level.FAST),
        recomputations or {},
    )
