"""Searches: they begin with a plan, go on from a file, and end when they are told to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.programs import mlp, transformer
from weft.core.errors import FileError, InputError, MismatchError
from weft.machine.presets import preset
from weft.parallel.dqn.hybrid import HybridEnvironment, Lesson
from weft.parallel.dqn.planner import DqnPlanner
from weft.parallel.dqn.search import EPISODES, PATIENCE
from weft.parallel.dqn.warm import BEGUN_WITH, Imitation, readings
from weft.parallel.experts import expert_plan
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.plan import Level
from weft.parallel.planning import plan
from weft.parallel.request import PlanRequest
from weft.parallel.validate import validate
from weft.program.fold import fold
from weft.program.graph import Role

MACHINE = preset("dgx-h100x1")
MLP = mlp(num_layers=2, batch=64, width=256, hidden=lambda _: 1024, slots=("m",))
LAYERS = transformer(
    num_layers=4, batch=8, length=32, width=64, num_heads=8, vocabulary=128, slots=("m",)
)


def environment(program):
    return HybridEnvironment(PlanRequest(program=program, machine=MACHINE), fold(program), None)


def imitated(program, wanted):
    own = environment(program)
    observation = own.reset(np.random.default_rng(0))
    while observation is not None:
        observation = own.step(Imitation(own, wanted)(observation)).observation
    (decided,) = own.known
    return decided


def planned(program=MLP, told=None, **asked):
    told = [] if told is None else told
    planner = DqnPlanner(**asked)
    return plan(program, MACHINE, planner=planner, max_stages=1, progress=told.append)


def episodes(told):
    return [text for text in told if text.startswith("episode")]


def stopping_after(count):
    """Says so once it has been asked so often."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= count


@pytest.mark.parametrize(
    ("degrees", "wanted"),
    [
        ({"dp": 8}, (8, 1, 0)),
        ({"dp": 8, "zero": 1}, (8, 1, 1)),
        ({"dp": 8, "zero": 3}, (8, 1, 3)),
        ({"dp": 2, "tp": 4}, (2, 4, 0)),
        ({"dp": 4, "tp": 2, "zero": 1}, (4, 2, 1)),
    ],
)
def test_an_experts_plan_is_read_as_what_it_is(degrees, wanted):
    found = list(readings(expert_plan(LAYERS, MACHINE, **degrees), LAYERS))
    last = found[-1]
    assert (last.data, last.variables, last.stored) == wanted
    assert len(found) == 1 + (wanted[1] == 1)


def test_what_an_agent_decided_is_read_and_imitated_as_it_was():
    own = environment(LAYERS)
    observation = own.reset(np.random.default_rng(0))
    lesson = Lesson(own.meshes.index((2, 4)), stored=1, rows=False)
    while observation is not None:
        observation = own.step(lesson(observation)).observation
    (decided,) = own.known
    read = list(readings(own.candidate(decided).plan, LAYERS))[-1]
    parameters = {i.node for i in LAYERS.inputs if i.role is Role.PARAMETER}

    def cut(one):
        return {n: p for n, p in one.placements if n in parameters}

    assert cut(read) == cut(decided)
    assert cut(imitated(LAYERS, read)) == cut(decided)
    assert replace(read, placements=()) == replace(decided, placements=())


def test_the_batch_cut_along_the_second_axis_is_imitated():
    (first, _) = readings(expert_plan(LAYERS, MACHINE, dp=8), LAYERS)
    assert (first.data, first.variables) == (1, 8)
    batch = {i.node for i in LAYERS.inputs if i.role is Role.BATCH}
    assert batch <= dict(imitated(LAYERS, first).placements).keys()


def test_a_search_that_begins_with_a_plan_finds_nothing_slower():
    exact = plan(LAYERS, MACHINE, max_stages=1)
    found = planned(LAYERS, warm_start=exact, episodes=0)
    validate(found, LAYERS)
    assert found.prediction.step_s <= exact.prediction.step_s * (1 + 1e-9)
    names = [other.name for other in found.alternatives]
    same = (found.strategies, found.copies) == (exact.strategies, exact.copies)
    assert same or BEGUN_WITH in names


def test_a_plan_for_something_else_is_no_beginning():
    with pytest.raises(MismatchError):
        planned(LAYERS, warm_start=plan(MLP, MACHINE, max_stages=1))


def test_a_pipeline_is_no_beginning():
    pipeline = pipeline_expert(LAYERS, MACHINE, pp=2, micro_batches=2, dp=4)
    with pytest.raises(InputError, match="one stage"):
        DqnPlanner(warm_start=pipeline)


def test_a_search_that_finds_nothing_faster_any_more_ends_early():
    told: list[str] = []
    found = planned(told=told)
    played = len(episodes(told))
    assert PATIENCE[Level.FAST] < played < EPISODES[Level.FAST]
    assert len({text.split(":")[1] for text in episodes(told)[-PATIENCE[Level.FAST] :]}) == 1
    assert not any("not played" in note for note in found.notes)


def test_a_number_of_episodes_that_is_asked_for_is_played():
    told: list[str] = []
    planned(told=told, episodes=EPISODES[Level.FAST])
    assert len(episodes(told)) == EPISODES[Level.FAST]


def test_with_no_episodes_only_the_trained_policy_is_followed():
    told = []
    found = planned(LAYERS, told, episodes=0)
    validate(found, LAYERS)
    assert 0 < len(episodes(told)) <= 8
    with pytest.raises(InputError):
        DqnPlanner(episodes=-1)


def test_a_search_that_was_stopped_goes_on_from_its_file(tmp_path):
    file, told, later = tmp_path / "search", [], []
    first = planned(told=told, state=file, episodes=30, stop=stopping_after(40))
    done = len(episodes(told))
    assert 0 < done < 30
    assert f"{30 - done} episodes were not played since the search was stopped" in first.notes
    second = planned(told=later, state=file, episodes=30)
    assert len(episodes(later)) == 30 - done
    assert second.prediction.step_s <= first.prediction.step_s * (1 + 1e-9)
    assert not any("not played" in note for note in second.notes)
    third = []
    again = planned(told=third, state=file, episodes=30)
    assert not episodes(third)
    assert again.prediction.step_s == second.prediction.step_s


def test_what_was_stopped_at_once_has_a_plan_all_the_same():
    found = planned(stop=lambda: True)
    validate(found, MLP)
    whole = plan(MLP, MACHINE, planner=DqnPlanner(stop=lambda: True))
    assert any("pipelines were not looked at" in note for note in whole.notes) or not whole.notes


def test_a_file_of_another_question_is_refused(tmp_path):
    file = tmp_path / "search"
    planned(state=file, episodes=0)
    with pytest.raises(MismatchError, match="another question"):
        planned(LAYERS, state=file, episodes=0)


@pytest.mark.parametrize(
    "content", [b"", b"no search", {"weft_dqn": 2}, {"other": 1}, {"weft_dqn": 1, "known": 3}]
)
def test_what_is_no_search_is_refused_and_left_alone(tmp_path, content):
    file = tmp_path / "search"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    before = file.read_bytes()
    with pytest.raises((FileError, MismatchError)):
        planned(state=file, episodes=0)
    assert file.read_bytes() == before


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    with pytest.raises(FileError, match="a place to write a search"):
        planned(state=tmp_path / "missing" / "search", episodes=0)
