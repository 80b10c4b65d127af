"""What policies decide, told distances as a run would tell them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from weft.core.errors import InputError, MismatchError
from weft.diffusion.plan import DenoisePlan, Mode, Model, StepPlan
from weft.diffusion.policies import Fixed, MixCache, Sketch
from weft.diffusion.policy import CHANGE, Moment, RunFacts
from weft.diffusion.validity import Validity

FACTS = RunFacts(
    pipeline="P",
    num_steps=20,
    num_blocks=6,
    has_small=True,
    has_guidance=True,
    positions=tuple(1000.0 - 50.0 * n for n in range(20)),
    validity=Validity(pipeline="P", denoiser="D", scheduler="S", guidance=5.0, shape=(4, 2)),
)
ALL = frozenset(Mode)


def run(policy, distances, *, facts=FACTS, possible=ALL):
    """The plans of all steps, where each computed step finds `distances(step)`."""
    decider, plans = policy.begin(facts), []
    for step in range(facts.num_steps):
        moment = Moment(
            step=step,
            position=1000.0 - step,
            possible=possible if step else frozenset({Mode.FULL}),
            has_guidance=facts.has_guidance,
        )
        plans.append(decider.decide(moment))
        if plans[-1].mode is not Mode.STEP:
            decider.observe(step, plans[-1], distances(step))
    return plans


def modes(plans):
    return [plan.mode for plan in plans]


EQUAL = {"step": 0.05, "cfg": 0.05, "block": 0.05}
SAME = {Mode.STEP: 1.0, Mode.CFG: 1.0, Mode.BLOCK: 1.0}


def test_the_first_steps_and_the_last_are_computed():
    found = modes(run(MixCache(warm_up=0.2, tail=2), lambda _: EQUAL))
    assert found[:4] == [Mode.FULL] * 4 and found[-2:] == [Mode.FULL] * 2
    assert set(found[4:-2]) != {Mode.FULL}


def test_the_least_distance_times_impact_is_chosen():
    near = {"step": 0.05, "cfg": 0.02, "block": 0.05}
    assert set(modes(run(MixCache(impact=SAME, penalty=1.0), lambda _: near))) == {
        Mode.FULL,
        Mode.CFG,
    }
    dear = MixCache(impact=SAME | {Mode.CFG: 10.0}, penalty=1.0)
    assert Mode.CFG not in modes(run(dear, lambda _: near))


def test_the_mode_that_was_used_last_is_penalised():
    policy = MixCache(impact=SAME, interval=3, longest=3)
    found = [mode for mode in modes(run(policy, lambda _: EQUAL)) if mode is not Mode.FULL]
    assert len(found) > 4
    assert all(one is not other for one, other in pairwise(found))


@pytest.mark.parametrize(("distance", "wanted"), [(0.001, 4), (0.05, 2), (0.9, 1)])
def test_the_interval_follows_the_distance(distance, wanted):
    policy = MixCache(warm_up=0.1, interval=2, longest=4, bounds=(0.01, 0.1))
    facts = replace(FACTS, num_steps=60)
    found = modes(run(policy, lambda _: dict.fromkeys(EQUAL, distance), facts=facts))
    full = [step for step, mode in enumerate(found) if mode is Mode.FULL and 30 < step < 58]
    assert {b - a for a, b in pairwise(full)} == {wanted}


def test_what_is_not_possible_is_not_chosen():
    found = modes(run(MixCache(), lambda _: EQUAL, possible=frozenset({Mode.FULL, Mode.STEP})))
    assert set(found) == {Mode.FULL, Mode.STEP}


def test_blocks_are_all_but_the_first_and_the_last():
    plans = run(MixCache(modes=frozenset({Mode.BLOCK})), lambda _: EQUAL)
    assert {plan.blocks for plan in plans if plan.mode is Mode.BLOCK} == {(1, 5)}
    assert MixCache().ranges(2) == frozenset()


def test_guidance_alone_is_refused_where_there_is_none():
    policy = MixCache(modes=frozenset({Mode.CFG}))
    with pytest.raises(InputError, match="classifier-free guidance"):
        policy.begin(replace(FACTS, has_guidance=False))


@pytest.mark.parametrize(
    "wrong",
    [
        {"modes": frozenset()},
        {"modes": frozenset({Mode.FULL})},
        {"warm_up": 1.0},
        {"tail": 0},
        {"interval": 5, "longest": 4},
        {"bounds": (0.2, 0.1)},
        {"penalty": 0.5},
    ],
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(InputError):
        MixCache(**wrong)


def test_the_small_model_takes_over_for_good_when_the_change_evens_out():
    def distances(step):
        return {CHANGE: 0.5 / (step + 1)}

    plans = run(Sketch(delta=0.05, earliest=0.1, latest=0.9), distances)
    small = [plan.model is Model.SMALL for plan in plans]
    first = small.index(True)
    assert 2 <= first < 18 and all(small[first:]) and not any(small[:first])
    later = [p.model is Model.SMALL for p in run(Sketch(delta=0.005, latest=0.9), distances)]
    assert later.index(True) > first


@pytest.mark.parametrize(
    ("policy", "first"),
    [(Sketch(delta=0.0, latest=0.5), 10), (Sketch(delta=9.0, earliest=0.3, latest=0.9), 6)],
)
def test_not_before_the_earliest_and_at_the_latest(policy, first):
    plans = run(policy, lambda step: {CHANGE: 0.5 / (step + 1)})
    assert [plan.model is Model.SMALL for plan in plans].index(True) == first


def test_what_a_step_computes_is_the_other_policys():
    plans = run(Sketch(then=MixCache()), lambda _: EQUAL | {CHANGE: 0.1})
    assert {plan.mode for plan in plans if plan.model is Model.SMALL} > {Mode.FULL}


def test_a_sketch_without_a_small_model_is_refused():
    with pytest.raises(InputError, match="sketch_to=small_pipe"):
        Sketch().begin(replace(FACTS, has_small=False))


def plan_of(*steps):
    return Fixed(plan=DenoisePlan(steps=steps))


@pytest.mark.parametrize(
    ("policy", "facts", "error", "says"),
    [
        (plan_of(StepPlan()), FACTS, MismatchError, "num_inference_steps=1"),
        (
            plan_of(*[StepPlan(mode=Mode.CFG)] * 20),
            replace(FACTS, has_guidance=False),
            InputError,
            "classifier-free guidance",
        ),
        (
            plan_of(*[StepPlan(model=Model.SMALL)] * 20),
            replace(FACTS, has_small=False),
            InputError,
            "sketch_to=small_pipe",
        ),
        (
            plan_of(*[StepPlan(mode=Mode.BLOCK, blocks=(1, 7))] * 20),
            FACTS,
            MismatchError,
            "within the 6 blocks",
        ),
    ],
)
def test_a_plan_for_another_run_is_refused(policy, facts, error, says):
    with pytest.raises(error, match=says):
        policy.begin(facts)
