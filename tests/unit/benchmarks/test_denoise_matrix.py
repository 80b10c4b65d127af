"""The matrix of pipelines and policies notices what is not as it should be."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

from benchmarks.denoise_matrix import turns as turns_module
from benchmarks.denoise_matrix.cells import measured, misses
from benchmarks.denoise_matrix.pipelines import PIPELINES
from benchmarks.denoise_matrix.policies import Case, cases, in_turns
from benchmarks.denoise_matrix.turns import Turns, interleaved_differ
from tests.unit.diffusion.accelerated import accelerated
from weft.diffusion import DenoisePlan, MixCache, Mode, Model, Predictor, StepPlan
from weft.diffusion.controller import Controller

STEPS = 8
FULL = StepPlan()
LEFT_OUT = StepPlan(mode=Mode.STEP, predictor=Predictor.LINEAR)
PLAN = DenoisePlan(steps=(FULL, FULL, LEFT_OUT, FULL, LEFT_OUT, FULL, LEFT_OUT, FULL))
KIND = PIPELINES["Wan 2.1"]


@pytest.fixture(scope="module")
def built():
    return KIND.build(STEPS)


@pytest.fixture(scope="module")
def run(built):
    with accelerated(built.pipe, policy=PLAN) as found:
        built()
    return found.runs[0]


def test_a_plan_that_is_followed_has_no_misses(run):
    assert misses(run, PLAN.steps, KIND) == 0


@pytest.mark.parametrize(
    "wrong",
    [{"blocks": 7}, {"outputs": 1}, {"done": LEFT_OUT}, {"done": StepPlan(model=Model.SMALL)}],
)
def test_a_step_that_did_something_else_is_a_miss(run, wrong):
    steps = (*run.steps[:-1], replace(run.steps[-1], **wrong))
    assert misses(replace(run, steps=steps), PLAN.steps, KIND) == 1


def test_steps_that_were_not_possible_are_misses_but_for_the_first_of_another_expert(run):
    forced = replace(run.steps[2], done=FULL, outputs=2, blocks=8, why="nothing before")
    own = replace(run, steps=(*run.steps[:2], forced, *run.steps[3:]))
    assert misses(own, PLAN.steps, KIND) == 1
    assert misses(own, PLAN.steps, replace(KIND, experts=2)) == 0


def test_a_cell_tells_what_was_computed_behind_the_records_back(built, monkeypatch):
    exact, case = built(), Case(policy=PLAN, planned=PLAN.steps)
    good = measured("Wan 2.1", "by hand", KIND, built, case, exact)
    assert (good.wrong, good.miscounted, good.differs, good.idle_differs) == (0, 0, False, False)
    assert good.work == 5 / 8
    answer = Controller._answer

    def twice(self, request, denoiser, call):
        call.run(*call.args, **call.kwargs)
        return answer(self, request, denoiser, call)

    monkeypatch.setattr(Controller, "_answer", twice)
    bad = measured("Wan 2.1", "by hand", KIND, built, case, exact)
    assert bad.miscounted == 2 * STEPS * (1 + KIND.blocks) and bad.wrong == 0


def test_a_run_that_is_not_repeated_is_told(built, monkeypatch):
    answer, count = Controller._answer, iter(range(1000))

    def drifting(self, request, denoiser, call):
        (made,) = answer(self, request, denoiser, call)
        return (made + 1e-3 * next(count),)

    exact = built()
    monkeypatch.setattr(Controller, "_answer", drifting)
    found = measured("Wan 2.1", "full", KIND, built, Case(policy=in_turns(KIND, STEPS)), exact)
    assert found.differs


def test_every_kind_of_policy_is_there(built):
    names = [name for name, _ in cases(KIND, built, STEPS, quick=False, calibrated=False)]
    assert len(names) == len(set(names)) == 26
    every = [mode.value for mode in (Mode.STEP, Mode.CFG, Mode.BLOCK)]
    wanted = {f"{mode} {own.value}" for mode in every for own in Predictor}
    wanted |= {"full", "MixCache", "SRDiffusion", "MDD", "placed", "learnt", "MixCache by rows"}
    assert wanted <= set(names)


def test_a_plan_of_all_has_every_mode_and_predictor():
    found = {(own.mode, own.predictor) for own in in_turns(KIND, 40).steps}
    assert len(found) == 1 + 3 * len(Predictor)


def test_turns_alternate_and_who_is_left_goes_on():
    turns = Turns(2)

    def run(who, steps):
        for _ in range(steps):
            turns.wait(who)
            turns.pass_on()
        turns.wait(who)
        turns.leave(who)

    threads = [threading.Thread(target=run, args=own) for own in ((0, 2), (1, 4))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert turns.taken == [0, 1, 0, 1, 0, 1, 1, 1]


def test_who_waits_in_vain_is_told(monkeypatch):
    monkeypatch.setattr(turns_module, "WAIT_S", 0.01)
    with pytest.raises(TimeoutError, match="run 1"):
        Turns(2).wait(1)


def test_runs_that_mix_are_told(built, monkeypatch):
    case = Case(policy=MixCache())
    assert interleaved_differ(KIND, built, case, STEPS) == 0
    predicted = Controller._predicted
    last = {}

    def mixing(self, request, denoiser, branch):
        """Predicts what was predicted last of any run that is another one."""
        own = predicted(self, request, denoiser, branch)
        other = next((made for key, made in last.items() if key != id(request)), own)
        last[id(request)] = own
        return other if torch.is_tensor(other) and len(self._requests) > 1 else own

    monkeypatch.setattr(Controller, "_predicted", mixing)
    assert interleaved_differ(KIND, built, Case(policy=PLAN), STEPS) > 0
