"""What a step of training did, as records hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from weft.rl.corrections import Told

__all__ = ["StepTold", "TokenSums"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTold:
    """One step; None stands for what nobody measured.

    Attributes:
        step: which, from 1; the version of the weights that came out of it.
        reward: mean of the samples trained on, before tokens were charged for.
        loss: the whole step's.
        cosine_raw: of the gradient with its reference, as clipped.
        cosine_applied: of what was applied with it.
        regime: what was done with the gradient: "first", "safe", "project", "skip" or "invalid".
        norm_raw: of the gradient, as clipped.
        norm_applied: of what was applied.
        norm_unclipped: of the gradient before clipping.
        staleness: mean lag of the samples [steps].
        lags: how many samples there were of each lag.
        kl: of behaviour from the policy, a mean over tokens [nats].
        entropy: of the policy, a mean over tokens [nats].
        clipped: share of tokens that a bound cut, or a mask left out.
        effective: effective sample size, as a share of tokens.
        tokens: of an answer, mean.
        multiplier: what a token cost [reward per token].
        samples: how many answers.
        prompts: numbers of the prompts, each once.
        fresh_reward: mean of samples that came in since the step before and were begun with the
            newest weights.
        seconds: since the run began [s].
        waited_s: how long the trainer waited for samples [s].
        learnt_s: how long it took from there to published weights [s].
    """

    step: int
    reward: float
    loss: float
    cosine_raw: float | None
    cosine_applied: float | None
    regime: str | None
    norm_raw: float | None
    norm_applied: float | None
    norm_unclipped: float
    staleness: float
    lags: Mapping[int, int]
    kl: float
    entropy: float
    clipped: float
    effective: float
    tokens: float
    multiplier: float | None
    samples: int
    prompts: Sequence[int]
    fresh_reward: float | None = None
    seconds: float | None = None
    waited_s: float | None = None
    learnt_s: float | None = None

    def to_plain(self) -> dict[str, object]:
        """Plain JSON values; keys of lags are text there."""
        plain: dict[str, object] = {field.name: getattr(self, field.name) for field in fields(self)}
        plain["lags"] = {str(lag): count for lag, count in self.lags.items()}
        plain["prompts"] = list(self.prompts)
        return plain


class TokenSums:
    """Adds up what parts of a batch were told of, so that the whole can be told of.

    Effective sample sizes do not add up, but the sums that they are made of do.
    """

    def __init__(self) -> None:
        self.tokens = self._cut = self._kl = self._entropy = self._ratios = self._squares = 0.0

    def add(self, told: Told, entropy: float) -> None:
        """Take in a part; `entropy` is a sum over its tokens [nats]. Waits for the device."""
        found = told.read()
        tokens = found["tokens"]
        ratios = found["mean_ratio"] * tokens
        self.tokens += tokens
        self._cut += (found["clipped"] + found["masked"]) * tokens
        self._kl += found["kl"] * tokens
        self._entropy += entropy
        self._ratios += ratios
        if found["effective"] > 0.0:
            self._squares += ratios**2 / (tokens * found["effective"])

    def means(self) -> dict[str, Any]:
        """Fields of `StepTold` by name."""
        tokens = max(1.0, self.tokens)
        return {
            "kl": self._kl / tokens,
            "entropy": self._entropy / tokens,
            "clipped": self._cut / tokens,
            "effective": self._ratios**2 / (tokens * self._squares) if self._squares else 0.0,
        }
