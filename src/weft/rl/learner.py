"""Learns from rollouts, one step at a time.

    learner = Learner(task, Method(correction=weft.rl.PPOClip(), gac=True), max_lag=8)
    told = learner.update(rollouts)

Owns the model, the optimizer, and what a step does to them: advantages, correction, gradient,
alignment control, compensation. Does not know where rollouts come from or who else has its weights.

Order of a step: advantages are taken within groups, tokens charged for, gradients of micro-batches
summed, clipped, aligned (GAC), compensated, applied. Alignment sees the gradient as it was clipped.
Without `gac` it looks on: cosines are measured and gradients left alone, bit for bit.

The model is in evaluation mode while it learns. With dropout, the probabilities of a sample would
differ from those that it was drawn with for no reason of age.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from weft.core.errors import InputError, MismatchError, RunError
from weft.rl.advantages import group_advantages
from weft.rl.compensation import DelayCompensation
from weft.rl.corrections import Average, Batch, Correction, PPOClip
from weft.rl.gac import GAC
from weft.rl.rollout import Padded, Rollout, collate
from weft.rl.sampling import padding_of, placed
from weft.rl.step_told import StepTold, TokenSums
from weft.rl.task import Task
from weft.rl.token_budget import TokenBudget
from weft.rl.versions import Versions
from weft.rl.weights import pack_weights

__all__ = ["Learner", "Method"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How is learnt.

    Attributes:
        correction: the loss of old samples; a `KLPenalty` around another adds a penalty.
        gac: whether gradients that line up with those before are changed.
        observe: whether cosines are measured where they are not changed; costs a copy of the
            gradients and a pass over them.
        compensation: strength of delay compensation; 0 for none.
        learning_rate: of AdamW; the task's own if left out.
        weight_decay: of AdamW.
        normalise: whether rewards are divided by the spread of their group. What a budget charges
            for tokens never is.
        micro_batch: answers whose activations are held at once; None for all of a step.

    Raises:
        InputError: a number out of range.
    """

    correction: Correction = field(default_factory=PPOClip)
    gac: bool = False
    observe: bool = True
    compensation: float = 0.0
    learning_rate: float | None = None
    weight_decay: float = 0.0
    normalise: bool = True
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        rate = 1.0 if self.learning_rate is None else self.learning_rate
        size = 1 if self.micro_batch is None else self.micro_batch
        is_fit = all(0.0 <= one < inf for one in (self.compensation, self.weight_decay))
        if not (0.0 < rate < inf and size >= 1 and is_fit):
            raise InputError(
                need="a learning rate above 0, a micro-batch of at least 1, compensation and weight"
                " decay of at least 0",
                got=f"learning_rate={self.learning_rate}, micro_batch={self.micro_batch},"
                f" compensation={self.compensation}, weight_decay={self.weight_decay}",
                hint="leave out what you do not need",
            )


class Learner:
    """A policy that is trained.

    Args:
        task: gives the model, and how it is trained where `method` does not say.
        method: how is learnt.
        max_lag: how old samples may be [steps].
        budget: a price for tokens, if there is one.
        device: where the model is.

    Attributes:
        model: the policy.
        version: of its weights: steps taken so far.

    Example:
        See `weft.rl.engines.training`, which feeds one.
    """

    def __init__(
        self,
        task: Task,
        method: Method,
        *,
        max_lag: int,
        budget: TokenBudget | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = placed(task, device)
        self.version = 0
        self._seen: Sequence[Rollout] = ()
        self._method = method
        self._budget = budget
        self._pad = padding_of(task.make_tokenizer())
        self._temperature = task.temperature
        self._clip_norm = task.clip_norm
        self._average = _average_of(method.correction)
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        if not self._parameters:
            raise InputError(
                need="a model with weights that are trained",
                got=f"{type(self.model).__name__} of which none require gradients",
                hint="make_model freezes them all, or has none",
            )
        rate = task.learning_rate if method.learning_rate is None else method.learning_rate
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            self._parameters, lr=rate, weight_decay=method.weight_decay, fused=True
        )
        self._compensation: DelayCompensation | None = None
        if method.compensation > 0.0:
            versions = Versions(keep=max_lag + 1)
            optimizer = DelayCompensation(optimizer, versions, strength=method.compensation)
            self._compensation = optimizer
        self._gac: GAC | None = None
        if method.gac or method.observe:
            optimizer = self._gac = GAC(optimizer)
        self.optimizer = optimizer

    def update(self, rollouts: Sequence[Rollout]) -> StepTold:
        """Take one step.

        Args:
            rollouts: whole groups, none newer than the weights.

        Returns:
            What was done.

        Raises:
            InputError: no rollouts, some from the future, or tokens that the model does not have.
            RunError: a loss or gradient that is not finite; no step is taken then.
        """
        lags = self._lags(rollouts)
        self._check_tokens(rollouts)
        self._seen = tuple(rollouts)
        lengths = [len(rollout.tokens) for rollout in rollouts]
        price = None if self._budget is None else self._budget.multiplier
        rewards = [rollout.reward for rollout in rollouts]
        groups = [rollout.number for rollout in rollouts]
        advantages = self._advantages(rewards, groups, lengths)
        self.optimizer.zero_grad()
        loss, sums = self._gradients(rollouts, advantages)
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self._clip_norm))
        self._check_finite(loss, norm)
        mean_lag = sum(lags) / len(lags)
        self._set_staleness(lags, mean_lag)
        self.optimizer.step()
        self.version += 1
        if self._budget is not None:
            self._budget.update([float(length) for length in lengths], lag=mean_lag)
        return StepTold(
            step=self.version,
            reward=sum(rewards) / len(rewards),
            loss=loss,
            norm_unclipped=norm,
            staleness=mean_lag,
            lags=dict(sorted(Counter(lags).items())),
            tokens=sum(lengths) / len(lengths),
            multiplier=price,
            samples=len(rollouts),
            prompts=tuple(dict.fromkeys(rollout.number for rollout in rollouts)),
            **self._aligned(min(norm, self._clip_norm)),
            **sums.means(),
        )

    def is_well(self) -> bool:
        """Whether the weights of now still give finite probabilities to what was learnt from."""
        size = self._method.micro_batch or max(1, len(self._seen))
        with torch.no_grad():
            return all(
                self._log_probs(
                    collate(self._seen[at : at + size], pad=self._pad, device=self.model.device)
                )[0]
                .isfinite()
                .all()
                for at in range(0, len(self._seen), size)
            )

    def weights(self) -> dict[str, NDArray[Any]]:
        """The weights of now, for those who make samples."""
        return pack_weights(self.model)

    def state_dict(self) -> dict[str, Any]:
        """All that a step depends on, for a checkpoint."""
        return {
            "version": self.version,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "versions": None if (own := self._compensation) is None else own.versions.state_dict(),
            "budget": None if self._budget is None else self._budget.state_dict(),
            "random": torch.get_rng_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` made.

        Raises:
            MismatchError: it is that of another model.
        """
        own = self.model.state_dict()
        found = state["model"]
        shapes = {name: tuple(value.shape) for name, value in own.items()}
        if shapes != {name: tuple(value.shape) for name, value in found.items()}:
            raise MismatchError(
                need=f"a checkpoint of this model, of {len(own)} tensors",
                got=f"{len(found)} tensors of other names or shapes",
                hint="resume with the recipe that the run was begun with",
            )
        self.model.load_state_dict(found)
        self.optimizer.load_state_dict(state["optimizer"])
        if self._compensation is not None and state["versions"] is not None:
            self._compensation.versions.load_state_dict(state["versions"])
        if self._budget is not None and state["budget"] is not None:
            self._budget.load_state_dict(state["budget"])
        torch.set_rng_state(state["random"])
        self.version = int(state["version"])

    # A step's parts.

    def _lags(self, rollouts: Sequence[Rollout]) -> list[int]:
        lags = [self.version - rollout.version for rollout in rollouts]
        if not lags or min(lags) < 0:
            newest = max((rollout.version for rollout in rollouts), default=0)
            raise InputError(
                need=f"at least one rollout, of versions up to {self.version}",
                got=f"{len(lags)}, of versions up to {newest}",
                hint="rollouts are begun with weights that the learner has published",
            )
        return lags

    def _check_tokens(self, rollouts: Sequence[Rollout]) -> None:
        # On a GPU, one that is not there would stop the device, and say nothing of why.
        table = self.model.get_input_embeddings().weight
        assert isinstance(table, Tensor), "rows of numbers"
        known = table.shape[0]
        for rollout in rollouts:
            found = (*rollout.prompt, *rollout.tokens)
            if min(found) < 0 or max(found) >= known:
                raise InputError(
                    need=f"tokens from 0 to {known - 1}, as the model has them",
                    got=f"{min(found)} to {max(found)} for prompt {rollout.number}",
                    hint="tokenizer, sampler and model have to be of the same vocabulary",
                )

    def _advantages(
        self, rewards: Sequence[float], groups: Sequence[int], lengths: Sequence[int]
    ) -> list[float]:
        found = group_advantages(rewards, groups, normalise=self._method.normalise)
        if self._budget is None:
            return found
        # Never divided by a spread: where all answers are worth the same, that would make full
        # advantages of lengths at any price above 0. See weft.rl.token_budget.
        tokens = torch.tensor(lengths, dtype=torch.float64)
        costs = self._budget.charge(torch.zeros_like(tokens), tokens).tolist()
        charged = group_advantages(costs, groups, normalise=False)
        return [one + other for one, other in zip(found, charged, strict=True)]

    def _gradients(
        self, rollouts: Sequence[Rollout], advantages: Sequence[float]
    ) -> tuple[float, TokenSums]:
        """Gradients of the whole step, its loss, and what was told of it."""
        by_tokens = self._average == "tokens"
        total = sum(len(r.tokens) for r in rollouts) if by_tokens else len(rollouts)
        size = self._method.micro_batch or len(rollouts)
        sums, losses = TokenSums(), 0.0
        for first in range(0, len(rollouts), size):
            part = collate(rollouts[first : first + size], pad=self._pad, device=self.model.device)
            current, entropy = self._log_probs(part)
            batch = Batch(
                current=current,
                behaviour=part.behaviour,
                advantages=torch.tensor(advantages[first : first + size], device=current.device),
                mask=part.mask,
                proximal=current.detach(),  # weights do not change within a step
                total=float(total),
            )
            corrected = self._method.correction(batch)
            corrected.loss.backward()
            losses += corrected.loss.item()
            sums.add(corrected.told, entropy)
        return losses, sums

    def _log_probs(self, part: Padded) -> tuple[Tensor, float]:
        """Of the answers' tokens [B, T]; and the sum of entropies at tokens that count."""
        logits = self.model(
            input_ids=part.ids,
            attention_mask=part.attention,
            position_ids=part.positions,
            use_cache=False,
            logits_to_keep=part.targets.shape[1] + 1,
        ).logits[:, :-1]
        spread = torch.log_softmax(logits.float() / self._temperature, -1)
        with torch.no_grad():
            entropy = -(spread.exp() * spread).sum(-1)
            whole = torch.where(part.mask, entropy, 0).sum().item()
        return spread.gather(2, part.targets[:, :, None])[:, :, 0], whole

    def _check_finite(self, loss: float, norm: float) -> None:
        if isfinite(loss) and isfinite(norm):
            return
        raise RunError(
            need="a loss and a gradient that are finite",
            got=f"a loss of {loss} and a gradient of norm {norm}",
            hint="begin a run with a lower learning rate, or a correction that bounds ratios; the"
            " checkpoint of this one holds the weights of before",
            step=self.version + 1,
        )

    def _set_staleness(self, lags: Sequence[int], mean: float) -> None:
        if self._gac is not None:
            # At a staleness of 0 it only looks.
            self._gac.staleness = mean if self._method.gac else 0.0
        if self._compensation is not None:
            self._compensation.staleness = dict(Counter(lags))

    def _aligned(self, norm: float) -> dict[str, Any]:
        last = None if self._gac is None else self._gac.last
        if last is None:
            return {
                "cosine_raw": None,
                "cosine_applied": None,
                "regime": None,
                "norm_raw": norm,
                "norm_applied": norm,
            }
        return {
            "cosine_raw": last.cosine_raw,
            "cosine_applied": last.cosine_applied,
            "regime": last.regime.name.lower(),
            "norm_raw": last.norm_raw,
            "norm_applied": last.norm_applied,
        }


def _average_of(correction: Correction) -> Average:
    """What a correction's loss is a mean over, also of one around another."""
    inner: object = correction
    while inner is not None:
        if (found := getattr(inner, "average", None)) is not None:
            return found
        inner = getattr(inner, "inside", None)
    raise InputError(
        need='a correction that says what it is a mean over: "tokens" or "sequences"',
        got=type(correction).__name__,
        hint="give it an attribute `average`, as those of weft.rl have",
    )
