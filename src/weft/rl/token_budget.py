"""A price for tokens that holds the mean length of answers at a budget while a policy is trained.

    budget = weft.rl.TokenBudget(256, lag=4)
    rewards = budget.charge(rewards, tokens)        # then baselines; no spread, see below
    budget.update(tokens)                           # once a step

The policy is to have the most reward with E[tokens] at most, or exactly, at the budget. The
multiplier of that condition is a price in reward per token; a reward becomes

    reward - multiplier * tokens

and the multiplier follows what answers were too long by, e = mean tokens / budget - 1, as a
controller with an integral and, if wanted, a proportional part:

    integral   = clip(integral + gain(lag) * e)
    multiplier = clip(integral + proportional(lag) * e) / budget

The integral is projected dual ascent. The proportional part damps: a policy that answers to a price
by and by is itself an integral, and two of them in a row swing. Clipping the integral itself keeps
it from running away while a bound holds.

Units. Gains and bounds are in reward for a whole budget of tokens, so that they carry over to
another budget. `multiplier` is in reward per token.

What is charged is not to be divided by the spread of a group. A group of equal rewards differs in
its numbers of tokens alone, and the division makes full-sized advantages of them at any price above
0: answers become short at almost no price. There are two ways without it:

    charge, then take differences from the mean of the group, and divide by nothing
    divide rewards by the spread of their group, then add charges, less their mean in the group

The first trades reward for tokens at one rate. The second is what `weft.rl.Learner` does with
normalised rewards: it weighs prompts as training without a budget does, and the condition, which is
on the mean over all prompts, the same for each; a right answer is worth more tokens where few are
right. Charges without a mean taken off would push all answers down, short ones too. At a price of 0
both are what they are without a budget.

Lag. Samples that are s steps old answer to the price of s steps ago. An integral alone around a
policy that answers with slope k [1] is then stable up to a gain of 2 sin(pi / (4 s + 2)) / k, which
is 2 / k at s = 0; both gains are multiplied by sin(pi / (4 s + 2)), so that they mean the same part
of what is stable at each lag.

Measured: a policy over twelve lengths that learns by gradients from charged rewards (PPO, Adam, 256
answers a step, budget 5, proportional=1) stays within 1 % of its budget without lag, 7 % at a lag
of 4 and 13 % at 16, swinging slowly; without a price it answers with 12 tokens.

Source: Stooke et al. 2020, arXiv 2007.03964 (the controller, there with a derivative as well);
the bound for a delayed integral is derived from z^(s+1) - z^s + gain k = 0 on the unit circle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, pi, sin
from typing import Any, Literal

import torch
from torch import Tensor

from weft.core.errors import InputError, MismatchError

__all__ = ["TokenBudget"]

Mode = Literal["at most", "exactly"]


class TokenBudget:
    """Holds the mean number of completion tokens at a budget.

    Args:
        budget: tokens of an answer, on the average.
        mode: "at most" has a multiplier of at least 0, so that answers are never paid for being
            long: where the policy is below the budget by itself, nothing happens. "exactly" pays
            for tokens, with a negative multiplier, until the budget is used.
        gain: of the integral, without lag [reward for a budget of tokens].
            Derived: without a proportional part there is no overshoot up to a gain of 0.468 / k at
            any lag (the double root of the equation above, over the sine); 0.2 leaves room for
            k = 2.3, a policy that shortens its answers by that many budgets for a unit of reward.
        proportional: gain of the part that damps, without lag; 0 for none [the same].
        highest: the most that a whole budget of tokens may cost, or be paid for [the same].
            Chosen: 1, the whole reward of a right answer where rewards are 0 and 1; above that, an
            empty answer is better than any of the budget's length.
        lag: how many steps old the samples are, where `update` is not told.

    Attributes:
        budget, mode, lag: as given.

    Every process has to be updated with the same mean, that over all of them.

    Raises:
        InputError: a number out of range or an unknown mode.

    Example:
        >>> budget = TokenBudget(100, gain=0.5)
        >>> budget.update([150, 250])  # twice the budget: 0.5 * 1 / 100
        0.005
        >>> budget.charge(torch.tensor([1.0, 0.0]), torch.tensor([100.0, 40.0])).tolist()
        [0.5, -0.2]
    """

    def __init__(
        self,
        budget: float,
        *,
        mode: Mode = "at most",
        gain: float = 0.2,
        proportional: float = 0.0,
        highest: float = 1.0,
        lag: float = 0.0,
    ) -> None:
        numbers = (budget, gain, proportional, highest, lag)
        is_fit = budget > 0.0 and gain > 0.0 and highest > 0.0 and min(proportional, lag) >= 0.0
        if not (is_fit and all(map(isfinite, numbers)) and mode in ("at most", "exactly")):
            raise InputError(
                need="finite budget, gain and highest above 0, proportional and lag of at least 0,"
                ' mode="at most" or "exactly"',
                got=f"budget={budget}, gain={gain}, proportional={proportional},"
                f" highest={highest}, lag={lag}, mode={mode!r}",
                hint="TokenBudget(256, gain=0.2, highest=1.0)",
            )
        self.budget = budget
        self.mode: Mode = mode
        self.lag = lag
        self._gain = gain
        self._proportional = proportional
        self._highest = highest
        self._integral = 0.0
        self._charge = 0.0

    @property
    def multiplier(self) -> float:
        """What a token costs now [reward per token]."""
        return self._charge / self.budget

    @property
    def is_at_bound(self) -> bool:
        """Whether the price would have to leave its bounds to hold the budget.

        In the mode "at most", a price of 0 is no bound that matters.
        """
        is_low = self.mode == "exactly" and self._integral <= -self._highest
        return is_low or self._integral >= self._highest

    def charge(self, rewards: Tensor, tokens: Tensor) -> Tensor:
        """Rewards less what their tokens cost, to be done before any baseline.

        Args:
            rewards: of answers, of any shape.
            tokens: how many each answer has, of the same shape.

        Returns:
            Of the same shape, in float32 or better.

        Raises:
            InputError: shapes that differ.
        """
        if rewards.shape != tokens.shape:
            raise InputError(
                need=f"a number of tokens for each reward, of shape {tuple(rewards.shape)}",
                got=f"shape {tuple(tokens.shape)}",
                hint="mask.sum(1) counts the tokens of each answer",
            )
        kind = torch.promote_types(rewards.dtype, torch.float32)
        return rewards.to(kind) - self.multiplier * tokens.to(rewards.device, kind)

    def update(
        self, tokens: Tensor | Sequence[float] | float, *, lag: float | None = None
    ) -> float:
        """Follow what a step's answers were too long by.

        Args:
            tokens: how many each answer of the step has, or their mean. Waits for its device.
            lag: how many steps old they are on the average; `self.lag` where left out.

        Returns:
            The new multiplier [reward per token].

        Raises:
            InputError: no answers, numbers that are negative or not finite, or such a lag.
        """
        mean = _mean(tokens)
        steps = self.lag if lag is None else lag
        if not (isfinite(steps) and steps >= 0.0):
            raise InputError(
                need="a lag of at least 0 steps",
                got=f"lag={steps}",
                hint="the mean age of the samples of this step",
            )
        excess = mean / self.budget - 1.0
        slower = sin(pi / (4.0 * steps + 2.0))
        self._integral = self._clip(self._integral + slower * self._gain * excess)
        self._charge = self._clip(self._integral + slower * self._proportional * excess)
        return self.multiplier

    def _clip(self, charge: float) -> float:
        lowest = 0.0 if self.mode == "at most" else -self._highest
        return min(max(charge, lowest), self._highest)

    def state_dict(self) -> dict[str, Any]:
        """Prices, for a checkpoint [reward per token]."""
        return {"integral": self._integral / self.budget, "multiplier": self.multiplier}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` made, also of another budget; prices are held by own bounds.

        Raises:
            MismatchError: something else.
        """
        found = [state.get(name) for name in ("integral", "multiplier")]
        if not all(isinstance(one, (int, float)) and isfinite(one) for one in found):
            raise MismatchError(
                need="two finite prices, integral and multiplier",
                got=f"{dict(state)}",
                hint="the state of a TokenBudget, as state_dict gives it",
            )
        integral, multiplier = (float(str(one)) for one in found)
        self._integral = self._clip(integral * self.budget)
        self._charge = self._clip(multiplier * self.budget)


def _mean(tokens: Tensor | Sequence[float] | float) -> float:
    given = torch.as_tensor(tokens, dtype=torch.float64)
    least = given.min().item() if given.numel() else -1.0
    mean = given.mean().item()
    if not (least >= 0.0 and isfinite(mean)):
        raise InputError(
            need="the number of tokens of at least one answer, finite and not negative",
            got=f"{given.numel()} numbers with a mean of {mean}",
            hint="count an answer that was cut off with the tokens that it has",
        )
    return mean
