"""Instances of other planners: read whole, contracted without loss, solved exactly."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.plan.pairwise import Instance, PairEdge, contract, read_instance
from benchmarks.plan.peer import solve_instance
from weft.core.errors import FileError, InfeasibleError

COST = st.one_of(st.integers(0, 9).map(float), st.just(np.inf))


@st.composite
def instances(draw):
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    nodes = tuple(np.array(draw(st.lists(COST, min_size=n, max_size=n))) for n in sizes)
    edges = []
    for tail, head in itertools.combinations(range(len(sizes)), 2):
        shape = (sizes[tail], sizes[head])
        kind = draw(st.sampled_from(["none", "none", "any", "tied"]))
        if kind == "any":
            cells = draw(st.lists(COST, min_size=shape[0] * shape[1], max_size=9))
            edges.append((tail, head, np.array(cells[: shape[0] * shape[1]]).reshape(shape)))
        elif kind == "tied":
            table = np.full(shape, np.inf)
            for state in range(shape[0]):
                table[state, draw(st.integers(0, shape[1] - 1))] = draw(st.integers(0, 9))
            edges.append((tail, head, table))
    return Instance(
        nodes=nodes, edges=tuple(PairEdge(tail=t, head=h, seconds=c) for t, h, c in edges)
    )


def cheapest(instance):
    choices = itertools.product(*(range(len(cost)) for cost in instance.nodes))
    return min(instance.objective(states) for states in choices)


@settings(max_examples=80, deadline=None)
@given(instances())
def test_the_programme_equals_trying_every_choice(instance):
    best = cheapest(instance)
    if np.isinf(best):
        with pytest.raises(InfeasibleError):
            solve_instance(instance)
        return
    solved = solve_instance(instance)
    assert solved["objective_us"] * 1e-6 == pytest.approx(best)
    assert solved["bound_us"] * 1e-6 == pytest.approx(best)


@settings(max_examples=80, deadline=None)
@given(instances())
def test_each_choice_of_the_deciders_costs_what_the_tables_say(instance):
    assume(np.isfinite(cheapest(instance)))
    done = contract(instance)
    ranges = [range(len(seconds)) for seconds in done.seconds.values()]
    for chosen in itertools.product(*ranges):
        choice = dict(zip(done.seconds, chosen, strict=True))
        states = [int(s[choice[d]]) for d, s in zip(done.decider, done.states, strict=True)]
        deciders = sum(done.seconds[d][c] for d, c in choice.items())
        left = sum(e.seconds[states[e.tail], states[e.head]] for e in done.edges)
        assert deciders + left == pytest.approx(instance.objective(states))


def test_a_chain_of_ties_leaves_one_decider():
    same = np.where(np.eye(3), 0.0, np.inf)
    edges = tuple(PairEdge(tail=n, head=n + 1, seconds=same) for n in range(4))
    done = contract(Instance(nodes=(np.ones(3),) * 5, edges=edges))
    assert len(done.seconds) == 1
    assert not done.edges


def test_null_is_a_state_that_may_not_be_taken(tmp_path):
    path = tmp_path / "instance.json"
    edge = {"tail": 0, "head": 1, "cost": [[0, 5], [None, 0]]}
    path.write_text(json.dumps({"unit": "us", "nodes": [[7, 1], [0, None]], "edges": [edge]}))
    assert solve_instance(read_instance(path))["objective_us"] == pytest.approx(7.0)


def test_a_table_of_the_wrong_shape_names_its_edge(tmp_path):
    path = tmp_path / "instance.json"
    edge = {"tail": 0, "head": 1, "cost": [[0, 5]]}
    path.write_text(json.dumps({"unit": "us", "nodes": [[7, 1], [0, 1]], "edges": [edge]}))
    with pytest.raises(FileError, match="edge 0 to 1"):
        read_instance(path)
