"""Every plan, whoever made it, computes what one device computes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.programs import mixture, mlp, random_inputs, transformer, with_masters
from tests.ranks import run_plan
from weft.core.errors import InputError
from weft.machine.presets import preset
from weft.parallel.degrees import Degrees
from weft.parallel.exact.search import Limits, MeshSearch
from weft.parallel.exact.stage import Stage
from weft.parallel.experts import expert_candidate, expert_plan
from weft.parallel.foreign.document import foreign_from_json
from weft.parallel.foreign.plan import foreign_plan
from weft.parallel.kept import require_kept
from weft.parallel.pinning import Pinning, resolve
from weft.parallel.pins import parse_pin
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level, ParallelPlan
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
PROGRAMS["transformer with masters"] = with_masters(PROGRAMS["transformer"])
MIXTURE = mixture(batch=8, dtype=DType.F64, slots=("m",))
EXPERTS = {
    e.name: e
    for e in (
        Degrees(dp=4),
        Degrees(dp=4, zero=1),
        Degrees(dp=4, zero=2),
        Degrees(dp=4, zero=3),
        Degrees(tp=4),
        Degrees(dp=2, tp=2),
        Degrees(dp=2, tp=2, zero=1),
        Degrees(dp=2, tp=2, zero=3),
        Degrees(dp=2, tp=2, sp=True),
        Degrees(dp=2, tp=2, zero=3, sp=True),
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


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "degrees", [{"dp": 2, "cp": 2}, {"cp": 4}, {"dp": 2, "cp": 2, "tp": 2}], ids=str
)
@pytest.mark.parametrize("name", ["transformer", "transformer with masters"])
def test_context_parallel(name: str, degrees: dict[str, int], zero: int) -> None:
    program = PROGRAMS[name]
    assert_same(program, expert_plan(program, MACHINE, **degrees, zero=zero))


@pytest.mark.parametrize("masters", [False, True])
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "degrees", [{"dp": 4, "ep": 4}, {"dp": 4, "ep": 2}, {"dp": 4, "ep": 2, "tp": 2}], ids=str
)
def test_expert_parallel(degrees: dict[str, int], zero: int, masters: bool) -> None:
    program = with_masters(MIXTURE) if masters else MIXTURE
    assert_same(program, expert_plan(program, MACHINE, **degrees, zero=zero))


_R2, _S2 = ["R", "R"], ["S(0)", "S(1)"]
FOREIGN = {
    "a plan as DTensor would have it": {
        "mesh": [2, 2],
        "entries": [
            {"input": "batch.*", "placements": ["S(0)", "R"]},
            {"module": "layers.*.*", "parameter": "*", "placements": ["S(0)", "R"], "read": _R2},
            {"module": "layers.*.mlp", "parameter": "up", "placements": ["R", "S(0)"]},
            {"module": "layers.*.mlp", "parameter": "down", "placements": ["R", "S(1)"]},
            {"module": "layers.1.mlp", "placements": ["S(0)", "P"]},
            {"module": "head", "parameter": "weight", "placements": ["R", "R"], "state": _S2},
        ],
    },
    "nothing but a sequence, masters gathered once": {
        "mesh": [4],
        "default": ["S(0)"],
        "entries": [
            {"input": "batch.*", "placements": ["S(1)"]},
            {"module": "**", "parameter": "*", "placements": ["S(0)"], "read": ["R"], "keep": True},
        ],
        "recompute": "full",
    },
}


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("name", ["transformer", "transformer with masters"])
def test_foreign_plans(name: str, foreign: str) -> None:
    program = PROGRAMS[name]
    given = foreign_from_json(json.dumps({"weft_placements": 1, **FOREIGN[foreign]}))
    plan = foreign_plan(program, MACHINE, given)
    assert isinstance(plan, ParallelPlan)
    assert_same(program, plan)


@pytest.mark.parametrize("recompute", ["cheap", "full"])
@pytest.mark.parametrize("zero", [1, 3])
def test_experts_that_compute_again(zero: int, recompute: str) -> None:
    program = PROGRAMS["transformer with masters"]
    plan = expert_plan(program, MACHINE, dp=4, zero=zero, recompute=recompute)
    assert plan.recompute
    assert_same(program, plan)


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
    proposal, _ = search.at_price(price)
    assert_same(program, proposal.build().plan)


@pytest.mark.parametrize("name", ["mlp", pytest.param("transformer", marks=pytest.mark.slow)])
def test_recomputation(name: str) -> None:
    """With a limit of nothing the plan recomputes, first cheap operators, then all."""
    program = PROGRAMS[name]
    search = search_of(program, (2, 2), limit=0.0)
    for price in (0.0, 1.0):
        _, solution = search.at_price(price)
        search.recomputing(solution)
    sizes = [len(proposal.build().plan.recompute) for proposal in search.proposals]
    assert sizes[0] == 0 and max(sizes) > 0
    if name == "transformer":  # an MLP has nothing that is dear to keep and cheap to make
        assert sizes[3] == 0 and min(sizes[1:3] + sizes[4:]) > 0
    for proposal in search.proposals:
        assert_same(program, proposal.build().plan)


def test_layers_that_follow_two_solutions() -> None:
    """Where memory binds, the first layers keep more than the others."""
    program = PROGRAMS["transformer"]
    found = search_of(program, (2, 2))
    found.search()
    limit = 0.95 * min(proposal.prediction.peak_bytes for proposal in found.proposals)
    search = search_of(program, (2, 2), limit)
    search.search()
    mixed = [p for p in search.proposals if "layers with more memory" in p.name]
    assert mixed
    for proposal in mixed:
        assert_same(program, proposal.build().plan)


PINS = {
    "parameters": ("layers.*.attention.query=S(0)x4", "layers.1.mlp.up=R", "embed.weight=S(1)"),
    "outputs": ("layers.*.mlp output=S(1)x2", "layers.2.norm1 output=R", "head output=S(2)"),
    "one layer": ("layers.2.attention output=S(1)", "layers.2.attention.*=S(1)"),
    "batch": ("batch.ids=S(1)", "embed output=S(0)x2", "optimizer.m.head.weight=S(1)x2"),
}


@pytest.mark.parametrize("mesh", [(4,), (2, 2)])
@pytest.mark.parametrize("pins", PINS)
def test_pinned_plans_at_every_price_of_memory(pins: str, mesh: tuple[int, ...]) -> None:
    program = PROGRAMS["transformer"]
    texts = [t for t in PINS[pins] if "x2" not in t or len(mesh) == 2]
    pinning = resolve(program, [parse_pin(text) for text in texts])
    search = search_of(program, mesh, pinning=pinning)
    free = search.model.solve()
    for weight in (0.0, 0.1, 1000.0):
        proposal, _ = search.at_price(weight * free.objective_s / free.num_bytes)
        found = proposal.build().plan
        require_kept(found.mesh, found.strategies, found.copies, program, pinning)
        assert_same(program, found)


def search_of(
    program: Program,
    mesh: tuple[int, ...],
    limit: float = 1e12,
    pinning: Pinning | None = None,
) -> MeshSearch:
    pinning = resolve(program) if pinning is None else pinning
    return MeshSearch(
        build_skeleton(program, fold(program, pinning.marks), pinning),
        MACHINE,
        Mesh(mesh),
        Limits(memory_limit_bytes=limit, level=Level.FAST),
        Stage(program),
    )
