"""One training run: a policy, a method, a learning rate, and samples of a certain age.

Samples go through a queue: in each step the current policy answers a batch of prompts, and a batch
that an older one answered is trained on. With a fixed lag that is the oldest of lag + 1; with a
random one it is any of them, up to four times the lag. The queue begins full of answers of the
first policy. What a run is judged by are the rewards of the new answers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from benchmarks.gac.policy import Policy
from benchmarks.gac.task import TASKS, warm_up
from weft.rl import GAC, Batch, Correction, DelayCompensation, Versions
from weft.rl.advantages import group_advantages
from weft.rl.policy_gradient import PolicyGradient

__all__ = ["SIXTHS", "Method", "Outcome", "Setting", "run"]

SIXTHS = 6
"""A run is told in six parts; the last is its final reward."""

_OLDEST = 4  # times the mean lag, for random ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is learnt, by which model, from how much.

    Attributes:
        name: what tables call it.
        task: a name of `TASKS`.
        width: of the model.
        layers: of the model.
        prompts: in each step.
        group: answers to each.
        updates: steps of training.
        reach: share of right answers that training begins from.
        warm: seed of the base policy.
        random_lag: whether lags vary.
    """

    name: str
    task: str
    width: int
    layers: int
    prompts: int = 64
    group: int = 8
    updates: int = 150
    reach: float = 0.4
    warm: int = 0
    random_lag: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What is done about staleness.

    Attributes:
        name: what tables call it.
        correction: the loss; the plain policy gradient, which knows no ratios, if left out.
        gac: what GAC is made with, if there is one.
        compensation: strength of delay compensation, normalised; 0 for none.
        beta1: of Adam's first moment.
        slower: the learning rate is divided by 1 + slower * lag.
    """

    name: str
    correction: Correction = field(default_factory=PolicyGradient)
    gac: Mapping[str, Any] | None = None
    compensation: float = 0.0
    beta1: float = 0.9
    slower: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run.

    Attributes:
        base: share of right answers before training.
        rewards: mean reward of new answers in each sixth of the run.
        mean: over the whole run.
        cosine: of consecutive gradients, mean.
        applied: of what was applied with the reference, mean; None without GAC.
        kl: mean of log-probabilities then minus now, of the tokens trained on.
        entropy: of a token of new answers, in the last sixth.
        seconds: that the run took [s].
    """

    base: float
    rewards: tuple[float, ...]
    mean: float
    cosine: float
    applied: float | None
    kl: float
    entropy: float
    seconds: float

    @property
    def final(self) -> float:
        """Mean reward in the last sixth."""
        return self.rewards[-1]

    @property
    def collapsed(self) -> bool:
        """Whether the end is below half of what had been reached, the base policy included."""
        return self.final < 0.5 * max(self.base, *self.rewards)


@dataclass(frozen=True, slots=True)
class _Sampled:
    version: int
    prompts: Tensor
    answers: Tensor
    logs: Tensor
    advantages: Tensor
    reward: float
    entropy: float


def run(setting: Setting, method: Method, *, rate: float, lag: int, seed: int) -> Outcome:
    """Train once."""
    began = time.perf_counter()
    policy, start, base = _base(replace(setting, name="", random_lag=False))
    rng = torch.Generator().manual_seed(1000 + seed)
    weights = torch.nn.Parameter(start.clone())
    optimizer, gac, compensation = _optimizer(method, weights, rate=rate, lag=lag)
    draw = _Draw(setting, policy, weights, rng)
    queue = [draw(0) for _ in range(lag)]
    rewards: list[float] = []
    cosines: list[float] = []
    applied: list[float] = []
    divergences: list[float] = []
    entropies: list[float] = []
    before: Tensor | None = None
    for step in range(setting.updates):
        queue.append(draw(step))
        rewards.append(queue[-1].reward)
        entropies.append(queue[-1].entropy)
        batch = queue.pop(_choose(queue, step, lag, rng) if setting.random_lag else 0)
        loss, divergence = _loss(policy, weights, batch, method.correction)
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_([weights], 1.0)
        assert weights.grad is not None
        raw = weights.grad.clone()
        if before is not None:
            cosines.append(torch.cosine_similarity(raw, before, dim=0).item())
        before = raw
        if gac is not None and lag > 0:  # without a lag it is on all the same
            gac.staleness = float(step - batch.version)
        if compensation is not None:
            compensation.staleness = step - batch.version
        optimizer.step()
        if gac is not None and gac.last is not None:
            applied.append(gac.last.cosine_applied)
        divergences.append(divergence)
    part = setting.updates // SIXTHS
    return Outcome(
        base=base,
        rewards=tuple(_mean(rewards[part * n : part * (n + 1)]) for n in range(SIXTHS)),
        mean=_mean(rewards),
        cosine=_mean(cosines),
        applied=_mean(applied) if applied else None,
        kl=_mean(divergences),
        entropy=_mean(entropies[-part:]),
        seconds=time.perf_counter() - began,
    )


class _Draw:
    """Answers of the current policy to new prompts."""

    def __init__(
        self, setting: Setting, policy: Policy, weights: Tensor, rng: torch.Generator
    ) -> None:
        self._setting = setting
        self._policy = policy
        self._weights = weights
        self._rng = rng

    def __call__(self, version: int) -> _Sampled:
        setting, task = self._setting, TASKS[self._setting.task]
        prompts, right = task.draw(setting.prompts, self._rng)
        answers, logs, entropies = self._policy.sample(
            self._weights.detach(), prompts, group=setting.group, count=task.answer, rng=self._rng
        )
        rewards = (answers == right.repeat_interleave(setting.group, 0)).all(1).float()
        groups = [n for n in range(setting.prompts) for _ in range(setting.group)]
        advantages = torch.tensor(group_advantages(rewards.tolist(), groups))
        return _Sampled(
            version,
            prompts,
            answers,
            logs,
            advantages,
            rewards.mean().item(),
            entropies.mean().item(),
        )


def _loss(
    policy: Policy, weights: Tensor, batch: _Sampled, correction: Correction
) -> tuple[Tensor, float]:
    logits = policy.logits(weights, batch.prompts, batch.answers)
    logs = logits.log_softmax(-1).gather(2, batch.answers[..., None]).squeeze(2)
    now = logs.detach()
    corrected = correction(
        Batch(
            current=logs,
            behaviour=batch.logs,
            advantages=batch.advantages,
            mask=torch.ones_like(now),
            proximal=now,
        )
    )
    return corrected.loss, (batch.logs - now).mean().item()


def _optimizer(
    method: Method, weights: torch.nn.Parameter, *, rate: float, lag: int
) -> tuple[torch.optim.Optimizer, GAC | None, DelayCompensation | None]:
    optimizer: torch.optim.Optimizer = torch.optim.Adam(
        [weights], lr=rate / (1.0 + method.slower * lag), betas=(method.beta1, 0.999), foreach=True
    )
    gac = compensation = None
    if method.gac is not None:
        optimizer = gac = GAC(optimizer, **method.gac)
    if method.compensation > 0.0:
        versions = Versions(keep=(_OLDEST + 1) * lag + 1)  # several may wait of the first
        optimizer = compensation = DelayCompensation(
            optimizer, versions, strength=method.compensation
        )
    return optimizer, gac, compensation


def _choose(queue: Sequence[_Sampled], step: int, lag: int, rng: torch.Generator) -> int:
    """Any of those that wait, but the oldest when it may not become older."""
    if step - queue[0].version >= _OLDEST * lag:
        return 0
    return int(torch.randint(len(queue), (1,), generator=rng))


@lru_cache(maxsize=8)
def _base(setting: Setting) -> tuple[Policy, Tensor, float]:
    task = TASKS[setting.task]
    policy = Policy(width=setting.width, layers=setting.layers)
    weights, share, _ = warm_up(policy, task, reach=setting.reach, seed=setting.warm)
    return policy, weights, share


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
