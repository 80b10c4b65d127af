"""A price for tokens, against policies that answer to it."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError, MismatchError
from weft.rl.corrections import Batch, PPOClip
from weft.rl.token_budget import TokenBudget

LAGS = (0, 1, 2, 4, 8, 16)


def simulate(budget, *, lag, steps=1500, slope=2.0, natural=2.0, inertia=0.0, noise=0.0, seed=0):
    """Tokens of a policy whose mean length falls as tokens cost more, seen `lag` steps late.

    Without a price it answers with `natural` budgets of tokens; a price of one unit of reward for a
    budget takes about `slope` budgets off. With inertia it moves that far only by and by.
    """
    make = np.random.default_rng(seed)
    prices = deque([0.0] * (lag + 1), maxlen=lag + 1)
    mean, found, paid = natural, [], []
    for _ in range(steps):
        # Below zero there are no tokens: the answer bends.
        wanted = natural * math.exp(-slope / natural * prices[0] * budget.budget)
        mean = inertia * mean + (1 - inertia) * wanted
        tokens = budget.budget * mean * np.exp(noise * make.standard_normal(64))
        budget.update(tokens, lag=lag)
        prices.append(budget.multiplier)
        found.append(float(tokens.mean()))
        paid.append(budget.multiplier)
    return np.array(found), np.array(paid)


@pytest.mark.parametrize("lag", LAGS)
@pytest.mark.parametrize("proportional", [0.0, 0.2])
def test_the_budget_is_held_under_noise_at_every_lag(lag, proportional):
    budget = TokenBudget(200, proportional=proportional, highest=2.0)
    tokens, prices = simulate(budget, lag=lag, noise=0.5)
    late = tokens[-500:]
    # 64 answers with a spread of about half their length leave a noise of 7 % in each step.
    assert late.mean() == pytest.approx(200, rel=0.03)
    assert np.abs(late / 200 - 1).max() < 0.4
    # Half the natural length: exp(-price) = 1 / 2, but for the mean of the noise.
    assert prices[-500:].mean() * 200 == pytest.approx(math.log(2) + 0.125, rel=0.1)


@pytest.mark.parametrize("lag", LAGS)
def test_without_noise_it_settles_and_overshoots_little(lag):
    tokens, _ = simulate(TokenBudget(200, highest=2.0), lag=lag)
    assert tokens[-1] == pytest.approx(200, rel=1e-3)
    assert tokens.min() > 0.9 * 200


@pytest.mark.parametrize("lag", [4, 16])
def test_gains_that_do_not_know_the_lag_swing_where_scaled_ones_settle(lag):
    """The control: at the same gain, told that samples are new."""

    class Unaware(TokenBudget):
        def update(self, tokens, *, lag=None):
            return super().update(tokens, lag=0)

    swings = {}
    for kind in (TokenBudget, Unaware):
        tokens, _ = simulate(kind(200, gain=0.5, highest=2.0), lag=lag)
        swings[kind] = np.ptp(tokens[-200:]) / 200
    assert swings[TokenBudget] < 0.01 and swings[Unaware] > 0.5


@given(st.integers(0, 24), st.floats(0.05, 1.95))
def test_the_integral_is_stable_up_to_the_bound_that_is_told(lag, part):
    """Roots of z^(s+1) - z^s + k: inside the unit circle below a gain of 2, outside above it."""
    for gain, is_stable in ((part, True), (2.05, False)):
        scaled = gain * math.sin(math.pi / (4 * lag + 2))
        polynomial = np.zeros(lag + 2)
        polynomial[0] += 1
        polynomial[1] -= 1
        polynomial[-1] += scaled
        largest = np.abs(np.roots(polynomial)).max()
        assert (largest < 1) == is_stable


@pytest.mark.parametrize("lag", LAGS)
@pytest.mark.parametrize("inertia", [0.9, 0.99])
def test_policies_that_move_by_and_by_settle_too(lag, inertia):
    budget = TokenBudget(200, proportional=1.0, highest=4.0)
    tokens, _ = simulate(budget, lag=lag, inertia=inertia, steps=4000)
    assert np.abs(tokens[-200:] - 200).max() < 0.2


def test_the_proportional_part_damps_a_policy_that_moves_by_and_by():
    overshoot = {}
    for proportional in (0.0, 2.0):
        budget = TokenBudget(200, gain=0.05, proportional=proportional, highest=4.0)
        tokens, _ = simulate(budget, lag=0, inertia=0.97)
        overshoot[proportional] = 200 - tokens.min()
    assert overshoot[0.0] > 40 and overshoot[2.0] < 10


@given(st.integers(0, 24))
def test_the_default_gain_does_not_overshoot_at_the_slope_that_is_told(lag):
    """No root that turns: the largest one is real and positive."""
    scaled = 0.2 * 2.3 * math.sin(math.pi / (4 * lag + 2))
    polynomial = np.zeros(lag + 2)
    polynomial[0] += 1
    polynomial[1] -= 1
    polynomial[-1] += scaled
    roots = np.roots(polynomial)
    largest = roots[np.abs(roots).argmax()]
    assert largest.real > 0 and abs(largest.imag) < 1e-6


@pytest.mark.parametrize("lag", [0, 4, 16])
def test_a_policy_that_learns_from_charged_rewards_is_held_near_its_budget(lag):
    """Policy gradients on stale samples: long answers are right more often, and cost more."""
    found = learn(TokenBudget(5, proportional=1.0, lag=lag), lag=lag)
    assert found == pytest.approx(5, rel=0.2)
    # Without a price it would answer as long as it may.
    assert learn(None, lag=lag) > 10


def test_a_spread_of_groups_makes_answers_short_at_almost_no_price():
    """A fiftieth of a reward for five tokens is worth paying up to twelve, as rewards stand."""
    tokens = {
        normal: learn(TokenBudget(5, highest=0.02), lag=0, normal=normal)
        for normal in ("group", "apart", "none")
    }
    assert tokens["group"] < 7 and tokens["none"] > 10 and tokens["apart"] > 10


def learn(budget, *, lag, normal="none", steps=800, rate=0.02):
    """Mean tokens over the last quarter of training twelve logits, one for each length."""
    make = torch.Generator().manual_seed(0)
    lengths = torch.arange(1, 13.0)
    chances = 1 - torch.exp(-lengths / 3)
    logits = torch.zeros(12, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=rate)
    behind = deque([torch.zeros(12)] * (lag + 1), maxlen=lag + 1)
    tokens = []
    for _ in range(steps):
        old = behind[0].log_softmax(0)
        drawn = torch.multinomial(old.exp(), 256, replacement=True, generator=make)
        rewards = (torch.rand(256, generator=make) < chances[drawn]).float()
        apart = normal == "apart"
        if budget is not None and not apart:
            rewards = budget.charge(rewards, lengths[drawn])
        groups = rewards.reshape(32, 8)
        advantages = groups - groups.mean(1, keepdim=True)
        if normal != "none":
            advantages = advantages / (groups.std(1, keepdim=True) + 1e-4)
        if budget is not None and apart:
            costs = budget.charge(torch.zeros(256), lengths[drawn]).reshape(32, 8)
            advantages = advantages + costs - costs.mean(1, keepdim=True)
        batch = Batch(
            current=logits.log_softmax(0)[drawn][:, None],
            behaviour=old[drawn][:, None],
            advantages=advantages.flatten(),
            mask=torch.ones(256, 1),
        )
        optimizer.zero_grad()
        PPOClip()(batch).loss.backward()
        optimizer.step()
        behind.append(logits.detach().clone())
        tokens.append(lengths[drawn].mean().item())
        if budget is not None:
            budget.update(lengths[drawn])
    late = slice(-steps // 4, None)
    return np.mean(tokens[late])


def test_at_most_never_pays_and_exactly_does():
    for mode, sign in (("at most", 0), ("exactly", -1)):
        budget = TokenBudget(200, mode=mode)
        tokens, prices = simulate(budget, lag=2, natural=0.5)
        assert np.sign(prices[-1]) == sign and (prices >= 0).all() == (mode == "at most")
        assert tokens[-1] == pytest.approx(100 if mode == "at most" else 200, rel=1e-3)


def test_a_budget_that_is_kept_by_itself_costs_nothing_again():
    budget = TokenBudget(100)
    budget.update(150)
    assert budget.multiplier > 0
    for _ in range(20):
        budget.update(80)
    assert budget.multiplier == 0.0
    # Time below the budget is not saved up: a step above it is charged for at once.
    assert budget.update(150) == pytest.approx(0.2 * 0.5 / 100)


def test_the_integral_does_not_run_away_at_its_bound():
    budget = TokenBudget(100, highest=0.5)
    for _ in range(1000):
        budget.update(400)
    assert budget.multiplier == 0.5 / 100 and budget.is_at_bound
    budget.update(50)
    assert budget.multiplier < 0.5 / 100 and not budget.is_at_bound


def test_both_bounds_hold_with_the_proportional_part():
    budget = TokenBudget(100, mode="exactly", proportional=5.0, highest=0.3)
    assert budget.update(1000) == pytest.approx(0.3 / 100)
    for _ in range(10):
        low = budget.update(0)
    assert low == pytest.approx(-0.3 / 100) and budget.is_at_bound


def test_the_same_gain_holds_another_budget_and_prices_are_per_token():
    small, large = TokenBudget(10), TokenBudget(1000)
    assert small.update(15) == pytest.approx(100 * large.update(1500))


def test_a_charge_is_in_reward_and_keeps_shape():
    budget = TokenBudget(100, gain=1.0)
    budget.update(200)
    rewards = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.bfloat16)
    charged = budget.charge(rewards, torch.tensor([[100, 50], [0, 100]]))
    assert charged.tolist() == [[0.0, -0.5], [0.5, -0.5]] and charged.dtype == torch.float32


def test_charging_before_the_spread_trades_at_one_rate_and_after_it_does_not():
    """Why: of two prompts with other spreads, the same price has to buy the same."""
    budget = TokenBudget(100, gain=0.5)
    budget.update(200)
    tokens = torch.tensor([[100.0, 50.0], [100.0, 50.0]])
    # A long answer is worth 0.4 more in one group and 0.2 more in the other; 50 tokens cost 0.25.
    rewards = torch.tensor([[0.4, 0.0], [0.2, 0.0]])

    def normal(values):
        return (values - values.mean(1, keepdim=True)) / values.std(1, keepdim=True)

    before = normal(budget.charge(rewards, tokens))
    after = budget.charge(normal(rewards), tokens)
    assert (before[:, 0] > before[:, 1]).tolist() == [True, False]  # worth it in the first alone
    assert (after[:, 0] > after[:, 1]).tolist() == [True, True]
    assert (
        before.mean(1).tolist() == pytest.approx([0.0, 0.0], abs=1e-6) and (after.mean(1) < 0).all()
    )


def test_a_resumed_controller_goes_on_as_if_nothing_had_happened():
    whole, first = (TokenBudget(100, proportional=0.3) for _ in range(2))
    for tokens in (150, 180, 130):
        whole.update(tokens)
        first.update(tokens)
    second = TokenBudget(100, proportional=0.3)
    second.load_state_dict(first.state_dict())
    assert second.multiplier == whole.multiplier
    assert second.update(90) == whole.update(90)


def test_state_of_another_budget_keeps_the_price_within_bounds():
    first = TokenBudget(100)
    for _ in range(5):
        first.update(200)
    second = TokenBudget(50)
    second.load_state_dict(first.state_dict())
    assert second.multiplier == pytest.approx(first.multiplier)
    tight = TokenBudget(1000, highest=0.5)
    tight.load_state_dict(first.state_dict())
    assert tight.multiplier == 0.5 / 1000


@pytest.mark.parametrize("tokens", [[], [math.nan], [10, -1], math.inf, torch.tensor([])])
def test_numbers_that_are_no_lengths_are_refused_and_change_nothing(tokens):
    budget = TokenBudget(100)
    budget.update(150)
    before = budget.state_dict()
    with pytest.raises(InputError, match="number of tokens"):
        budget.update(tokens)
    assert budget.state_dict() == before


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        ({"budget": 0}, "budget"),
        ({"budget": math.inf}, "finite"),
        ({"gain": 0.0}, "gain"),
        ({"proportional": -1.0}, "proportional"),
        ({"highest": 0.0}, "highest"),
        ({"lag": -1}, "lag"),
        ({"mode": "at least"}, "mode"),
    ],
)
def test_what_cannot_be_is_refused(given, needed):
    with pytest.raises(InputError, match=needed):
        TokenBudget(**{"budget": 100} | given)


def test_lags_shapes_and_states_that_cannot_be_are_refused():
    budget = TokenBudget(100)
    with pytest.raises(InputError, match="lag of at least 0"):
        budget.update(100, lag=-1)
    with pytest.raises(InputError, match=r"shape \(2,\)"):
        budget.charge(torch.zeros(2), torch.zeros(3))
    for state in ({}, {"integral": 0.0}, {"integral": "no", "multiplier": 0.0}):
        with pytest.raises(MismatchError, match="two finite prices"):
            budget.load_state_dict(state)
