"""VGG by time, and the table of throughput: what is looked at, and what is claimed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.automap import throughput, timed
from benchmarks.automap.models import BATCH, SERVERS, cluster, server, workloads
from benchmarks.job import program_of
from tests.programs import mlp
from weft.parallel.planning import PLANNERS
from weft.program.graph import Role
from weft.report.table import format_table

VGG = "vgg.py:vgg_tiny"


def one(**changed):
    given = {"by": "dqn", "cut": {}, "rows": True, "step_s": 1.0, "seconds": 1.0}
    return timed.TimedCut(**{**given, **changed})


def through(**changed):
    given = {"model": "VGG-19", "configuration": "A", "by": "dqn", "what": "mesh 16"}
    return throughput.Throughput(**{**given, "step_s": 1.0, "seconds": 1.0, **changed})


@pytest.mark.slow
def test_every_way_is_looked_at_once_and_none_is_faster_than_the_best():
    own = timed._environment(program_of(VGG))
    ends = list(timed.every_end(own))
    assert len(ends) == len(set(ends)) > 4
    best = min(p.step_s for p in own.known.values() if p is not None)
    agents = timed._searched(program_of(VGG), "dqn", timed._learnt)
    assert agents.step_s >= best * (1 - 1e-9)
    assert agents.tried == timed.EPISODES


def test_ends_are_those_of_episodes():
    own = timed._environment(program_of(VGG))
    for choices in list(timed.every_end(own))[:5]:
        turn, _ = None, own.reset(np.random.default_rng(0))
        for choice in choices:
            assert turn is None or turn.observation is not None
            turn = own.step(choice)
        assert turn.observation is None


def test_the_papers_partition_is_five_variables_of_linear_layers():
    names = {i.name for i in program_of(VGG).inputs if i.role is Role.PARAMETER}
    assert timed.PAPERS.keys() < names
    assert len(timed.PAPERS) == timed.PUBLISHED_CUTS
    assert all(name.startswith(timed.LINEAR) for name in timed.PAPERS)


@pytest.mark.parametrize(
    ("changed", "held"),
    [
        ({}, (True, True, True)),
        ({"cut": {"hidden1.weight": 0, "head.weight": 0}}, (False, True, True)),
        ({"step_s": 1.05}, (True, False, True)),
        ({"step_s": 1.6}, (True, False, False)),
    ],
)
def test_claims_are_about_the_agents_partition(changed, held):
    cut = {f"{layer}weight": 0 for layer in timed.LINEAR}
    found = [one(by="most cuts", step_s=3.0), one(**{"cut": cut, **changed}), one(by="every way")]
    assert tuple(claim.ok for claim in timed.timed_claims(found)) == held


def test_rows_tell_linear_layers_from_others():
    found = one(cut={"hidden1.weight": 0, "stages.0.0.weight": 0}, tried=7)
    text = " ".join(timed.timed_row(found))
    assert "1 linear, 1 others, batch cut" in text
    assert "7 plans" in text


def test_the_batch_divides_on_every_configuration():
    for name, servers in SERVERS.items():
        machine = cluster(name)
        assert machine.num_devices == 8 * servers
        assert BATCH % machine.num_devices == 0
    for workload in workloads().values():
        assert workload.compute_dtype is None


@pytest.mark.parametrize(
    ("dqn_s", "exact_s", "expert_s", "held"),
    [
        (1.0, 1.0, 1.0, (True, True, True)),
        (1.2, 1.0, 1.3, (False, True, True)),
        (1.02, 1.0, 1.0, (True, True, False)),
        (1.0, 1.1, 1.0, (True, False, True)),
        (1.0, 0.0, 0.0, (True, True, True)),
        (0.0, 1.0, 0.0, (False, True, True)),
    ],
)
def test_claims_compare_planners_where_something_fits(dqn_s, exact_s, expert_s, held):
    fits = through(model="T5-base")
    found = [
        through(step_s=dqn_s),
        through(by="exact", step_s=exact_s),
        through(by="experts", step_s=expert_s),
        *(replace(fits, by=by) for by in ("dqn", "exact", "experts")),
    ]
    assert tuple(claim.ok for claim in throughput.throughput_claims(found)) == held


def test_a_column_is_there_for_each_planner_that_planned():
    nothing = through(by="experts", step_s=0.0, what="nothing fits: 99 GiB")
    found = [through(), through(by="exact", step_s=0.5), nothing]
    table = throughput.throughput_table(found)
    assert table.columns == ("model", "servers", "experts", "exact", "dqn")
    text = format_table(table)
    assert f"{BATCH / 0.5:.1f}/s" in text
    assert "nothing fits: 99 GiB; 1 s" in text
    assert " 0.0/s" not in text


def test_planners_are_asked_by_the_names_that_they_have():
    assert set(PLANNERS) <= set(throughput.PLANNED_BY)


def test_what_a_planner_cannot_plan_is_said_in_words():
    tight = replace(server(), groups=(with_memory(server().groups[0], 1e2),))
    found = throughput.planned_by(mlp(num_layers=2, batch=16), tight, "mcts")
    assert found[0] == 0.0
    assert found[1].startswith("nothing fits: ")
    assert "smallest plan" in found[1]


def with_memory(group, num_bytes):
    memory = replace(group.device.memory_bytes, value=num_bytes)
    return replace(group, device=replace(group.device, memory_bytes=memory))
