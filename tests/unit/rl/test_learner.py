"""What a step does to a policy."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from tests.unit.rl.small import learner, make_model, task
from weft.core.errors import InputError, MismatchError, RunError
from weft.rl.corrections import M2PO, Decoupled, PPOClip, SequenceMask, Truncated
from weft.rl.learner import Learner, Method
from weft.rl.policy_gradient import PolicyGradient
from weft.rl.rollout import collate
from weft.rl.sampling import make_sampler, roll
from weft.rl.token_budget import TokenBudget


def rollouts(numbers=(8, 9, 10, 11), version=0, given=None, seed=0):
    """Of the first weights, for prompts of two lengths."""
    given = given or task()
    groups = roll(given, make_sampler(given), numbers, version=version, seed=seed)
    return [one for group in groups for one in group]


def weights(who):
    return torch.cat([p.detach().flatten() for p in who.model.parameters()])


def gradient(who):
    return torch.cat([p.grad.flatten() for p in who.model.parameters()])


def test_new_samples_have_ratios_of_one():
    who = learner(correction=PPOClip())
    told = who.update(rollouts())
    assert told.kl == pytest.approx(0.0, abs=1e-8)
    assert told.effective == pytest.approx(1.0) and told.clipped == 0.0
    assert (told.staleness, told.lags, told.step) == (0.0, {0: 16}, 1)


def test_the_gradient_of_new_samples_is_the_policy_gradient():
    """Against a loop over single sequences, without padding, micro-batches or corrections."""
    given = rollouts()
    who = learner(given=task(clip_norm=1e9))
    who.update(given)
    model = make_model().eval()
    total = sum(len(one.tokens) for one in given)
    groups = {n: [one.reward for one in given if one.number == n] for n in range(8, 12)}
    loss = torch.zeros(())
    for one in given:
        found = torch.tensor(groups[one.number])
        advantage = (one.reward - found.mean()) / (found.std() + 1e-4)
        ids = torch.tensor([[*one.prompt, *one.tokens]])
        spread = model(input_ids=ids).logits[0, len(one.prompt) - 1 : -1].log_softmax(-1)
        picked = spread.gather(1, torch.tensor(one.tokens)[:, None]).sum()
        loss = loss - advantage * picked / total
    loss.backward()
    wanted = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert torch.allclose(gradient(who), wanted, atol=1e-6)
    assert wanted.norm() > 1e-3


@pytest.mark.parametrize("average", ["tokens", "sequences"])
def test_micro_batches_add_up_to_the_whole(average):
    given = rollouts()
    found = []
    for size in (None, 5, 1):
        who = learner(correction=PPOClip(average=average), micro_batch=size)
        who.update(rollouts(numbers=(1, 2)))  # away from ratios of 1
        told = who.update(given)
        found.append((gradient(who), told))
    for other, told in found[1:]:
        assert torch.allclose(other, found[0][0], atol=1e-6)
        assert told.loss == pytest.approx(found[0][1].loss, abs=1e-6)
        assert told.effective == pytest.approx(found[0][1].effective, abs=1e-6)
        assert told.entropy == pytest.approx(found[0][1].entropy, abs=1e-6)


@pytest.mark.parametrize("gac", [False, True])
def test_looking_on_leaves_a_run_as_it_is_and_control_does_not(gac):
    plain = learner(observe=False)
    other = learner(gac=gac, observe=True)
    for seed in range(3):
        for who in (plain, other):
            told = who.update(rollouts(seed=seed, version=0))
    assert torch.equal(weights(plain), weights(other)) is not gac
    assert told.cosine_raw is not None and told.regime == ("project" if gac else "safe")


def test_without_observation_nothing_is_told_of_cosines():
    told = learner(observe=False).update(rollouts())
    assert (told.cosine_raw, told.cosine_applied, told.regime) == (None, None, None)
    assert told.norm_raw == pytest.approx(min(told.norm_unclipped, 1.0))


def test_alignment_is_controlled_only_where_samples_are_old():
    who = learner(gac=True)
    who.update(rollouts())
    assert who.update(rollouts(version=1)).regime == "safe"
    assert who.update(rollouts(version=1)).regime in ("project", "safe")
    assert who.optimizer.staleness == 1.0


def test_lags_are_told_and_set_as_shares_for_compensation():
    who = learner(compensation=10.0, max_lag=2)
    who.update(rollouts())
    who.update(rollouts(version=1))
    mixed = [*rollouts((1, 2), version=0), *rollouts((3,), version=2)]
    told = who.update(mixed)
    assert told.lags == {0: 4, 2: 8} and told.staleness == pytest.approx(8 * 2 / 12)
    assert who._compensation.staleness == Counter({2: 8, 0: 4})


def test_compensation_changes_steps_on_old_samples_only():
    for version, same in ((1, True), (0, False)):
        plain, other = learner(), learner(compensation=50.0)
        for who in (plain, other):
            who.update(rollouts())
            who.update(rollouts(version=version, seed=1))
        assert torch.equal(weights(plain), weights(other)) is same


@pytest.mark.parametrize(
    "correction",
    [
        PPOClip(low=0.2, high=0.28),
        Truncated(),
        Decoupled(),
        M2PO(),
        PolicyGradient(),
        SequenceMask(low=-1.0, high=1.0, inside=PPOClip(average="sequences")),
    ],
)
def test_every_correction_learns_what_is_rewarded(correction):
    given = task(learning_rate=1e-2)
    who = learner(given=given, correction=correction)
    sampler = make_sampler(given)
    rewards = []
    for step in range(12):
        sampler.load(who.weights())
        groups = roll(given, sampler, range(8 * step, 8 * step + 8), version=step, seed=0)
        rewards.append(who.update([one for group in groups for one in group]).reward)
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1


def test_rewards_are_told_before_tokens_are_charged_for():
    budget = TokenBudget(1.0, gain=0.5)
    budget.update(2.0)
    given = task()
    who = Learner(given, Method(normalise=False), max_lag=4, budget=budget)
    samples = rollouts()
    told = who.update(samples)
    assert told.reward == pytest.approx(sum(one.reward for one in samples) / 16)
    assert told.multiplier == pytest.approx(0.5)
    assert budget.multiplier > 0.5  # answers are longer than a token


def test_a_price_on_tokens_changes_the_gradient():
    samples = [
        replace(one, tokens=one.tokens[: 1 + n % 4], log_probs=one.log_probs[: 1 + n % 4])
        for n, one in enumerate(rollouts())
    ]
    priced = TokenBudget(1.0, gain=0.5)
    priced.update(2.0)
    plain = learner(normalise=False)
    other = Learner(task(), Method(normalise=False), max_lag=4, budget=priced)
    plain.update(samples)
    other.update(samples)
    assert not torch.allclose(gradient(plain), gradient(other), atol=1e-4)


def cut(rewards=None):
    """Answers of one to four tokens; with other rewards, if there are any."""
    return [
        replace(
            one,
            tokens=one.tokens[: 1 + n % 4],
            log_probs=one.log_probs[: 1 + n % 4],
            reward=one.reward if rewards is None else rewards,
        )
        for n, one in enumerate(rollouts())
    ]


def priced(price):
    """A budget whose price is that, for a token of two."""
    budget = TokenBudget(2.0, gain=2 * price)
    budget.update(4.0)
    assert budget.multiplier == pytest.approx(price)
    return budget


@pytest.mark.parametrize("normalise", [True, False])
def test_where_all_answers_are_right_lengths_count_as_much_as_they_cost(normalise):
    """A spread of charges would make the same of every price above 0."""
    norms = []
    for price in (1e-3, 2e-3):
        who = Learner(task(), Method(normalise=normalise), max_lag=4, budget=priced(price))
        norms.append(who.update(cut(rewards=1.0)).norm_unclipped)
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-3)
    assert 0.0 < norms[0] < 0.01 * learner().update(cut()).norm_unclipped


def test_a_budget_that_is_kept_changes_not_a_bit():
    plain = learner()
    other = Learner(task(), Method(), max_lag=4, budget=TokenBudget(100.0))
    for seed in range(2):
        plain.update(rollouts(seed=seed))
        other.update(rollouts(seed=seed))
    assert torch.equal(weights(plain), weights(other)) and other._budget.multiplier == 0.0


@pytest.mark.parametrize("token", [-1, 99])
def test_tokens_of_another_vocabulary_are_refused(token):
    samples = rollouts()
    samples[5] = replace(samples[5], tokens=(token,), log_probs=(-1.0,))
    with pytest.raises(InputError, match="same vocabulary"):
        learner().update(samples)


def test_a_model_that_is_frozen_is_refused():
    def frozen():
        return make_model().requires_grad_(False)

    with pytest.raises(InputError, match="weights that are trained"):
        learner(given=task(make_model=frozen))


def test_gradients_are_clipped():
    who = learner(given=task(clip_norm=1e-3))
    told = who.update(rollouts())
    assert told.norm_unclipped > 1e-3
    assert told.norm_raw == pytest.approx(1e-3, rel=1e-3)


def test_a_gradient_that_is_no_number_takes_no_step():
    who = learner()
    with torch.no_grad():
        next(iter(who.model.parameters()))[8] = float("nan")
    before = weights(who)
    with pytest.raises(RunError, match="finite"):
        who.update(rollouts())
    assert torch.equal(before.nan_to_num(), weights(who).nan_to_num()) and who.version == 0


@pytest.mark.parametrize("given", [[], [1]])
def test_rollouts_from_the_future_or_none_are_refused(given):
    with pytest.raises(InputError, match="versions up to 0"):
        learner().update([replace(one, version=1) for one in rollouts()] if given else [])


def test_a_checkpoint_goes_on_bit_for_bit():
    def begun(steps, who):
        for step in range(steps, steps + 2):
            who.update(rollouts(seed=step, version=max(0, step - 2)))
        return who

    def new():
        method = Method(gac=True, compensation=20.0)
        return Learner(task(), method, max_lag=4, budget=TokenBudget(2.0))

    straight = begun(2, begun(0, new()))
    other = new()
    other.load_state_dict(begun(0, new()).state_dict())
    begun(2, other)
    assert torch.equal(weights(straight), weights(other))
    assert other.version == straight.version == 4
    assert other._budget.multiplier == straight._budget.multiplier


def test_a_checkpoint_of_another_model_is_refused():
    state = learner().state_dict()
    state["model"] = {name: value[:1] for name, value in state["model"].items()}
    with pytest.raises(MismatchError):
        learner().load_state_dict(state)


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"micro_batch": 0},
        {"compensation": -1.0},
        {"compensation": float("nan")},
        {"weight_decay": float("nan")},
        {"learning_rate": float("nan")},
    ],
)
def test_a_method_out_of_range_is_refused(wrong):
    with pytest.raises(InputError):
        Method(**wrong)


def test_a_correction_has_to_say_what_it_is_a_mean_over():
    with pytest.raises(InputError, match="mean over"):
        learner(correction=lambda batch: None)


def test_padding_of_different_batches_does_not_change_log_probabilities():
    who = learner()
    short = rollouts((1,))
    mixed = [*short, *rollouts((100,))]
    alone, _ = who._log_probs(collate(short, pad=who._pad, device="cpu"))
    beside, _ = who._log_probs(collate(mixed, pad=who._pad, device="cpu"))
    mask = collate(short, pad=who._pad, device="cpu").mask
    width = alone.shape[1]
    assert torch.allclose(alone[mask], beside[: len(short), :width][mask], atol=1e-5)
