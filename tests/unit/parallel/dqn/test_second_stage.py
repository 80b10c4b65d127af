"""The second stage: what belongs together, and that each step makes a plan faster."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.programs import mlp, transformer
from weft.machine.presets import preset
from weft.parallel.dqn.hybrid import Decided, HybridEnvironment, Lesson
from weft.parallel.dqn.second_stage import groups_of, revised
from weft.parallel.request import PlanRequest
from weft.parallel.validate import validate
from weft.program.fold import fold
from weft.program.graph import Role

MACHINE = preset("dgx-h100x1")
LAYERS = transformer(num_layers=6, batch=8, length=32, width=64, num_heads=4, slots=("m", "v"))
WIDE = mlp(num_layers=2, batch=8, width=4096, hidden=lambda _: 16_384, slots=("m",))
"""Its weights are far larger than what passes through them."""
SMALL = mlp(num_layers=2, batch=8, width=64, hidden=lambda _: 64, slots=("m",))
"""It waits for the latency of its collectives."""


def environment(program, machine=MACHINE, **asked):
    return HybridEnvironment(
        PlanRequest(program=program, machine=machine, **asked), fold(program), None
    )


def names(program, nodes):
    return {program.input_by_node[node].name for node in nodes}


def test_layers_alike_and_their_state_are_one_group():
    groups = groups_of(LAYERS, fold(LAYERS))
    nodes = [node for group in groups for node in group.nodes]
    wanted = {i.node for i in LAYERS.inputs if i.role in (Role.PARAMETER, Role.STATE)}
    assert len(nodes) == len(set(nodes))
    assert set(nodes) == wanted
    (up,) = [g for g in groups if "layers.2.mlp.up" in names(LAYERS, g.nodes)]
    inner = [f"layers.{number}.mlp.up" for number in range(1, 5)]
    states = [f"optimizer.{slot}.{name}" for name in inner for slot in "mv"]
    assert names(LAYERS, up.nodes) >= {*inner, *states}
    assert all("mlp.up" in name for name in names(LAYERS, up.nodes))
    assert [g.num_bytes for g in groups] == sorted((g.num_bytes for g in groups), reverse=True)


def test_a_group_is_placed_as_one():
    group = groups_of(WIDE, fold(WIDE))[0]
    before = Decided(1, 8, 0, ((group.nodes[0], 1), (10_000, 0)))
    after = group.placed(before, 0)
    assert dict(after.placements) == {**dict.fromkeys(group.nodes, 0), 10_000: 0}
    assert group.placed(after, -1).placements == ((10_000, 0),)


@pytest.mark.parametrize(("program", "only_undo"), [(WIDE, False), (SMALL, True)])
def test_each_step_is_faster_and_legal(program, only_undo):
    own = environment(program)
    # Rows of all weights are cut: of each pair one had better be cut otherwise, or not at all.
    cut = (i.node for i in program.inputs if i.role is not Role.BATCH)
    begin = Decided(1, 8, 0, tuple((node, 0) for node in cut))
    groups = groups_of(program, fold(program))
    steps = list(revised(own, begin, groups, only_undo=only_undo, stop=lambda: False))
    seconds = [own.predicted(step).step_s for step in (begin, *steps)]
    assert seconds == sorted(seconds, reverse=True)
    assert len(set(seconds)) == len(seconds) > 1
    validate(own.candidate(steps[-1]).plan, program)
    if only_undo:
        assert set(steps[-1].placements) < set(begin.placements)


def test_what_does_not_fit_is_no_improvement():
    own = environment(WIDE)
    cut = tuple(sorted((i.node, 0) for i in WIDE.inputs if i.role in (Role.PARAMETER, Role.STATE)))
    begin = Decided(1, 8, 0, cut)
    limit = own.predicted(begin).peak_bytes
    tight = environment(WIDE, memory_limit_bytes=limit)
    groups = groups_of(WIDE, fold(WIDE))
    for step in revised(tight, begin, groups, only_undo=False, stop=lambda: False):
        assert tight.predicted(step).peak_bytes <= limit


def test_it_ends_when_it_is_told_to():
    own = environment(WIDE)
    begin = Decided(1, 8, 0, ())
    groups = groups_of(WIDE, fold(WIDE))
    assert not list(revised(own, begin, groups, only_undo=False, stop=lambda: True))
    assert list(own.known) == [begin]


def test_data_parallel_plans_have_nothing_to_revise():
    own = environment(WIDE)
    begin = Decided(8, 1, 0, ())
    groups = groups_of(WIDE, fold(WIDE))
    assert not list(revised(own, begin, groups, only_undo=False, stop=lambda: False))


def test_gradients_of_large_weights_are_made_where_they_end_up():
    """With the batch cut as well, summands of whole gradients would be reduced otherwise."""
    own = environment(WIDE)
    observation = own.reset(np.random.default_rng(0))
    lesson = Lesson(len(own.meshes) - 1, rows=True)
    while observation is not None:
        observation = own.step(lesson(observation)).observation
    ((decided, prediction),) = own.known.items()
    whole = environment(WIDE).predicted(replace(decided, placements=()))
    weights = sum(
        WIDE.nodes[i.node].outputs[0].num_bytes for i in WIDE.inputs if i.role is Role.PARAMETER
    )
    own_bytes = sum(WIDE.nodes[n].outputs[0].num_bytes for n, _ in decided.placements)
    assert own_bytes > weights
    reduced_s = weights / MACHINE.groups[0].link.bytes_per_s.value
    assert prediction.communication_s < reduced_s
    assert prediction.step_s < whole.step_s
