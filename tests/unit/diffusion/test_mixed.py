"""Mixed steps: magnitudes of a small model, directions of the large one's last residual."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.denoise_matrix.pipelines import PIPELINES, noise
from weft.core.errors import InputError
from weft.diffusion import (
    DenoisePlan,
    Mixed,
    Mode,
    Model,
    Predictor,
    Sketch,
    StepPlan,
    accelerate,
    report,
    restore,
)
from weft.diffusion.mixing import mixed, residual, turn
from weft.diffusion.policy import TURN, Moment, RunFacts
from weft.diffusion.validity import Validity

# diffusers' Mochi asks for autocast in float32, which is none.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
STEPS = 10
FULL, MIXED = StepPlan(), StepPlan(mode=Mode.MIXED, model=Model.SMALL)


# ------------------------------------------------------------------------------- arithmetic


def tensor(seed, *shape):
    return torch.randn(shape, generator=noise(seed))


@given(st.integers(0, 99), st.sampled_from([1, 2]))
def test_lengths_are_the_ones_and_directions_the_others(seed, along):
    one, other = tensor(seed, 2, 3, 4, 5), tensor(seed + 100, 2, 3, 4, 5)
    made = mixed(one, other, along)
    torch.testing.assert_close(made.norm(dim=along), one.norm(dim=along))
    assert turn(made, other, along) == pytest.approx(0.0, abs=1e-6)


def test_a_model_mixed_with_itself_is_itself():
    one = tensor(0, 1, 4, 3)
    torch.testing.assert_close(mixed(one, one, 1), one)


def test_no_direction_is_no_output():
    assert mixed(tensor(0, 1, 4, 3), torch.zeros(1, 4, 3), 1).abs().max() == 0.0


def test_turns_are_right_angles_and_about_turns():
    one = torch.tensor([[1.0, 0.0]])
    assert float(turn(one, torch.tensor([[0.0, 7.0]]), 1)) == pytest.approx(1.0)
    assert float(turn(one, -one, 1)) == pytest.approx(2.0)


def test_conditions_that_follow_the_latents_do_not_count():
    output, latents = tensor(0, 1, 4, 3), tensor(1, 1, 9, 3)
    torch.testing.assert_close(residual(output, latents, 1), output - latents[:, :4])


# ---------------------------------------------------------------------------------- policy


FACTS = RunFacts(
    pipeline="P",
    num_steps=20,
    num_blocks=6,
    has_small=True,
    has_guidance=True,
    positions=tuple(1000.0 - 50.0 * n for n in range(20)),
    validity=Validity(pipeline="P", denoiser="D", scheduler="S", guidance=5.0, shape=(4, 2)),
)


def decided(policy, turned, possible=frozenset(Mode)):
    decider, plans = policy.begin(FACTS), []
    for step in range(FACTS.num_steps):
        plans.append(
            decider.decide(Moment(step=step, position=0.0, possible=possible, has_guidance=True))
        )
        is_mixed = plans[-1].mode is Mode.MIXED
        decider.observe(step, plans[-1], {TURN: turned} if is_mixed else {})
    return plans


def test_the_first_steps_are_the_large_models_and_the_last_the_small_ones():
    plans = decided(Mixed(first=0.2, last=0.1), 0.0)
    assert plans[:4] == [FULL] * 4
    assert plans[4:18] == [MIXED] * 14
    assert plans[18:] == [StepPlan(model=Model.SMALL)] * 2


def test_the_large_model_computes_when_directions_have_turned_too_far():
    plans = decided(Mixed(tau=0.005, last=0.0), 0.002)
    kinds = [plan.mode is Mode.MIXED for plan in plans[4:]]
    assert kinds == [True, True, True, False] * 4  # 0.006 after three


def test_what_is_not_possible_is_not_mixed():
    assert decided(Mixed(last=0.0), 0.0, frozenset({Mode.FULL})) == [FULL] * 20


def test_it_needs_a_small_model():
    with pytest.raises(InputError, match="sketch_to=small_pipe"):
        Mixed().begin(replace(FACTS, has_small=False))


@pytest.mark.parametrize(
    "wrong",
    [
        {"tau": -1.0},
        {"first": 0.9, "last": 0.2},
        {"last": -0.1},
        {"predictor": Predictor.FITTED},
    ],
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="published"):
        Mixed(**wrong)


@pytest.mark.parametrize("wrong", [{"model": Model.LARGE}, {"predictor": Predictor.FITTED}])
def test_a_mixed_step_is_the_small_models(wrong):
    with pytest.raises(InputError, match="mixed step"):
        StepPlan(mode=Mode.MIXED, **{"model": Model.SMALL, **wrong})


# ------------------------------------------------------------------------- real pipelines


def relative_of(name):
    made = PIPELINES[name].build(STEPS)
    for at, parameter in enumerate(made.pipe.transformer.parameters()):
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=noise(at))
    return made.pipe


def ran(run, policy, small, **inputs):
    accelerate(run.pipe, policy=policy, sketch_to=small)
    try:
        with report(run.pipe) as found:
            made = run(**inputs)
    finally:
        restore(run.pipe)
    return made, found.runs[0]


@pytest.mark.parametrize("name", list(PIPELINES))
def test_of_mixed_steps_one_output_is_computed_and_recorded_plans_give_the_same_bits(name):
    kind = PIPELINES[name]
    run, small = kind.build(STEPS), relative_of(name)
    exact = run()
    made, done = ran(run, Mixed(tau=0.02), small)
    mixing = [step for step in done.steps if step.done.mode is Mode.MIXED]
    assert mixing and all(step.outputs == 1 and step.blocks == kind.blocks for step in mixing)
    assert any(TURN in step.distances for step in mixing)
    again, other = ran(run, DenoisePlan.from_json(done.plan.to_json()), small)
    assert torch.equal(made, again)
    assert other.plan.steps == done.plan.steps
    assert (done.work < 1.0) == kind.guided  # relatives of this size do as much work
    assert 0.0 < (made - exact).norm() / exact.norm() < 0.8
    assert torch.equal(run(), exact)


@pytest.mark.parametrize("name", ["Wan 2.1", "CogVideoX", "HunyuanVideo", "LTX"])
def test_a_mixed_step_answers_what_its_formula_says(name):
    """The small model is the large one: of the same length as its output, of the old direction."""
    run = PIPELINES[name].build(2)
    small = PIPELINES[name].build(2).pipe
    plan = DenoisePlan(steps=(FULL, MIXED))
    calls = []

    def watched(module, args, given, answer):
        calls.append((given["hidden_states"], answer[0]))

    # Hooks of torch's are above those of diffusers': this is what the pipeline sees.
    hook = run.pipe.transformer.register_forward_hook(watched, with_kwargs=True)
    accelerate(run.pipe, policy=plan, sketch_to=small)
    run()
    restore(run.pipe)
    hook.remove()
    along = 1 if name in ("Wan 2.1", "HunyuanVideo") else 2
    passes = PIPELINES[name].passes
    half = slice(-1, None)  # with the prompt, of one batch
    (x, first), (y, second) = calls[0], calls[passes]
    added = first[half] - x[half]
    inner = []
    hook = small.transformer.register_forward_hook(
        lambda m, a, g, answer: inner.append(answer[0]), with_kwargs=True
    )
    accelerate(run.pipe, policy=plan, sketch_to=small)
    run()
    restore(run.pipe)
    hook.remove()
    assert len(inner) == 1 and len(inner[0]) == 1
    torch.testing.assert_close(second[half], mixed(inner[0], y[half] + added, along))


def test_where_nothing_was_computed_before_the_large_model_computes():
    run, small = PIPELINES["Wan 2.1"].build(3), relative_of("Wan 2.1")
    _, done = ran(run, DenoisePlan(steps=(MIXED, MIXED, FULL)), small)
    assert done.steps[0].done == FULL and "mixed" in done.steps[0].why
    assert done.steps[1].done == MIXED and not done.steps[1].why


def test_a_second_expert_begins_with_a_step_of_its_own():
    run, small = PIPELINES["Wan 2.2"].build(STEPS), relative_of("Wan 2.1")
    plan = DenoisePlan(steps=(FULL, *[MIXED] * (STEPS - 1)))
    _, done = ran(run, plan, small)
    forced = [step for step in done.steps if step.why]
    assert len(forced) == 1 and forced[0].done == FULL


def test_nothing_more_is_kept_where_nothing_is_mixed():
    run, small = PIPELINES["Wan 2.1"].build(4), relative_of("Wan 2.1")
    _, plain = ran(run, DenoisePlan(steps=(FULL,) * 4), small)
    _, mixing = ran(run, DenoisePlan(steps=(FULL, FULL, FULL, MIXED)), small)
    assert plain.kept_bytes < mixing.kept_bytes


def test_a_sketch_can_be_mixed_first():
    run, small = PIPELINES["Wan 2.1"].build(STEPS), relative_of("Wan 2.1")
    policy = Sketch(then=Mixed(tau=9.0, last=0.0), earliest=0.8, latest=0.8)
    _, done = ran(run, policy, small)
    assert {step.done.mode for step in done.steps} == {Mode.FULL, Mode.MIXED}
