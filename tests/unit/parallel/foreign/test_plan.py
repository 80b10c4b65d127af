"""Foreign plans, completed and judged."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest

from tests.programs import mlp, transformer, with_masters
from weft.core.errors import FileError, InputError
from weft.machine.presets import preset
from weft.parallel.experts import expert_plan
from weft.parallel.foreign.document import foreign_from_json
from weft.parallel.foreign.plan import foreign_plan, read_foreign
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.plan import ParallelPlan
from weft.program.graph import Program

MACHINE = preset("dgx-h100x1")
BATCH = {"input": "batch.*", "placements": ["S(0)"]}


@cache
def program() -> Program:
    return transformer(num_layers=4, batch=8, length=8, width=16, num_heads=4, slots=("m",))


def given(*entries: object, of: Program | None = None, **fields: object):
    raw = {"weft_placements": 1, "mesh": [8], "entries": entries, **fields}
    return foreign_plan(of or program(), MACHINE, foreign_from_json(json.dumps(raw)))


def same(found: object, expected: ParallelPlan) -> bool:
    """True if two plans decide the same, whatever they are called."""
    assert isinstance(found, ParallelPlan)
    return replace(found, notes=()) == expected


def test_data_parallel_as_placements_is_the_experts_plan() -> None:
    assert same(given(BATCH), expert_plan(program(), MACHINE, dp=8))


def test_fully_sharded_as_placements_is_the_experts_plan() -> None:
    wide = mlp(num_layers=2, batch=16, width=16, slots=("m",))
    found = given(
        BATCH,
        {"module": "**", "parameter": "*", "placements": ["S(0)"], "read": ["R"]},
        of=wide,
    )
    assert same(found, expert_plan(wide, MACHINE, dp=8, fsdp=True))


def test_state_in_parts_as_placements_is_zero_1() -> None:
    wide = mlp(num_layers=2, batch=16, width=16, slots=("m",))
    found = given(
        BATCH, {"module": "**", "parameter": "*", "placements": ["R"], "state": ["S(0)"]}, of=wide
    )
    assert same(found, expert_plan(wide, MACHINE, dp=8, zero=1))


def test_masters_that_are_gathered_once_as_placements_are_zero_1() -> None:
    wide = with_masters(mlp(num_layers=2, batch=16, width=16, slots=("m",)))
    about = {"module": "**", "parameter": "*", "placements": ["S(0)"], "read": ["R"]}
    assert same(
        given(BATCH, about | {"keep": True}, of=wide), expert_plan(wide, MACHINE, dp=8, zero=1)
    )
    assert same(given(BATCH, about, of=wide), expert_plan(wide, MACHINE, dp=8, zero=3))


def test_later_entries_override_earlier_ones() -> None:
    found = given(
        BATCH,
        {"module": "layers.*.mlp", "parameter": "*", "placements": ["S(0)"]},
        {"module": "layers.2.mlp", "parameter": "up", "placements": ["S(1)"]},
    )
    assert isinstance(found, ParallelPlan)
    at = {i.name: found.strategies[i.node].outputs[0] for i in program().inputs}
    assert at["layers.1.mlp.up"] == (0,)
    assert at["layers.2.mlp.up"] == (1,)
    assert at["optimizer.m.layers.2.mlp.up"] == (1,)
    assert at["layers.2.attention.out"] == (-1,)


def test_what_a_module_makes_and_what_a_node_makes_can_be_given() -> None:
    last = max(
        n
        for n, node in enumerate(program().nodes)
        if node.scope == "layers.1.mlp" and node.phase.value == "forward"
    )
    found = given(
        {"module": "layers.0", "placements": ["S(1)"]}, {"node": last, "placements": ["S(2)"]}
    )
    assert isinstance(found, ParallelPlan)
    ends = max(
        n
        for n, node in enumerate(program().nodes)
        if node.scope == "layers.0" and node.phase.value == "forward"
    )
    assert found.strategies[ends].outputs[0] == (1,)
    assert found.strategies[last].outputs[0] == (2,)


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"module": "layers.9", "placements": ["R"]}, "entry 2 .output 'layers.9'"),
        ({"module": "layers.0.mlp", "parameter": "weight", "placements": ["R"]}, "mlp.weight"),
        ({"input": "batch.tokens", "placements": ["R"]}, "batch.tokens"),
        ({"node": 100_000, "placements": ["R"]}, "%100000"),
        ({"module": "layers.0.mlp", "parameter": "up", "placements": ["S(2)"]}, "dims below 2"),
        ({"module": "embed", "parameter": "weight", "placements": ["S(0)"]}, "embed.weight"),
        ({"module": "norm", "placements": ["S(2)"]}, "entry 2 .output 'norm'"),
    ],
)
def test_an_entry_that_does_not_go_with_the_program_is_named(entry: object, named: str) -> None:
    with pytest.raises(InputError, match=named):
        given(BATCH, entry)


def test_a_default_that_does_not_divide_is_named() -> None:
    with pytest.raises(InputError, match="default"):
        given(BATCH, default=["S(0)"])


def test_too_many_devices_are_refused() -> None:
    with pytest.raises(InputError, match="at most 8 devices"):
        given(mesh=[16])


def test_stages_by_module_path_make_a_pipeline() -> None:
    stages = {"stages": ["layers.2"], "micro_batches": 4, "schedule": "1f1b"}
    found = given(BATCH, mesh=[2], pipeline=stages)
    assert isinstance(found, PipelinePlan)
    assert found.num_groups == 2
    own = pipeline_expert(program(), MACHINE, pp=2, micro_batches=4, dp=2)
    assert found.prediction.step_s == pytest.approx(own.prediction.step_s, rel=0.2)


def test_chunks_share_groups() -> None:
    stages = {
        "stages": ["layers.1", "layers.2", "layers.3"],
        "micro_batches": 4,
        "schedule": "interleaved",
        "chunks": 2,
    }
    found = given(BATCH, mesh=[2], pipeline=stages)
    assert isinstance(found, PipelinePlan)
    assert (found.num_groups, found.num_stages) == (2, 4)


@pytest.mark.parametrize(
    ("stages", "named"),
    [
        (["layers.9"], "layers.9"),
        (["layers.3", "layers.1"], "order"),
    ],
)
def test_stages_that_are_not_there_are_refused(stages: list[str], named: str) -> None:
    with pytest.raises(InputError, match=named):
        given(BATCH, mesh=[2], pipeline={"stages": stages, "micro_batches": 2})


def test_nodes_are_refused_in_pipelines() -> None:
    stages = {"stages": ["layers.2"], "micro_batches": 2}
    with pytest.raises(InputError, match="entry 1"):
        given({"node": 60, "placements": ["R"]}, mesh=[2], pipeline=stages)


def test_a_file_is_read_and_named_in_errors(tmp_path) -> None:
    path = tmp_path / "placements.json"
    path.write_text('{"weft_placements": 1, "mesh": [2], "entries": [3]}')
    with pytest.raises(InputError, match=r"placements\.json"):
        read_foreign(path)
    with pytest.raises(FileError):
        read_foreign(tmp_path / "none.json")
