"""Delay compensation: a gradient of old samples, corrected for how far the weights have moved.

A gradient that was due when the weights were w_old is used at w. To first order it should have
been g + H (w - w_old), with the Hessian H. Its diagonal is approximated by products of gradients:

    raw          g + strength * g * g * (w - w_old)
    normalised   g + strength * g * g / sqrt(v) * (w - w_old)

all elementwise, v being Adam's second moment with this gradient in it, corrected for its start.

Here the gradient is taken at w already, of samples that w_old made, so this holds only as far as
the samples' age acts like a delay. Another reading holds as it is: g * g estimates the diagonal of
the Fisher information F, so the raw term is the gradient of strength / 2 * sum F * (w - w_old)^2,
about strength times the Kullback-Leibler divergence from the policy that made the samples. The step
is pulled back towards that policy, most where the policy is most sensitive. This is not gradient
alignment control, which knows no weights.

What `strength` means. Raw, it has the unit of one over gradient and weight, and changes with the
scale of the loss, the clipping and the number of parameters. Normalised, it has that of one over
weight: a weight that has moved by 1 / strength, and whose gradient is of its usual size, has its
gradient changed by as much as it is. At a lag of 0 nothing is changed, bit for bit.

Source: Zheng et al. 2017, ICML, "Asynchronous Stochastic Gradient Descent with Delay Compensation"
(the raw form, there with w_old the weights that the gradient was computed at). The normalised form
is our own.
Measured: on a small reversal task with gradients clipped to a norm of 1 over 11456 weights (one
seed, six settings), mean reward was 0.49 without, 0.60 with a raw strength of 1e3, 0.77 with 1e4
and 3e4, 0.64 with 1e5, 0.49 with 3e5. Derived: gradients of the usual size 1 / sqrt(11456) make 2e4
a normalised strength of about 190 there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Literal

import torch
from torch import Tensor

from weft.core.errors import InputError
from weft.rl.shards import Batch, Shard, batches, collect, local, working, write_back
from weft.rl.versions import Versions
from weft.rl.wrapper import Wrapper

__all__ = ["DelayCompensation"]

Form = Literal["normalised", "raw"]


class DelayCompensation(Wrapper):
    """Corrects gradients for what the weights have moved since the samples were made.

    Before each step the current weights are published as the version whose number is the steps
    taken so far. They are looked up again when samples of that age are trained on.

    Args:
        optimizer: any of torch's kind; it gets the changed gradients.
        versions: where weights are kept; it has to keep one more than samples are old at most.
        strength: how much of the correction is applied; see above for its unit.
        form: "normalised" by the second moment of the optimizer, or "raw".
        publish: False where somebody else publishes into `versions`.

    Attributes:
        optimizer: the one inside.
        versions: where weights are kept.
        staleness: how many steps old the samples of the next step are: a whole number, or, for a
            batch of mixed ages, the share of each. None and 0 change nothing. It has to be the same
            on all processes, whose gradients are of all their samples.

    Raises:
        InputError: a strength that is negative or not finite, an unknown form, or an optimizer
            that cannot be wrapped.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> opt = torch.optim.SGD([weight], lr=0.5)
        >>> opt = DelayCompensation(opt, Versions(keep=2), strength=1.0, form="raw")
        >>> for lag in (0, 1):
        ...     opt.staleness, weight.grad = lag, torch.tensor([1.0])
        ...     opt.step()
        >>> weight.grad.item(), weight.item()  # 1 + 1 * 1 * (0.5 - 1.0)
        (0.5, 0.25)
    """

    key = "delay"

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        versions: Versions,
        *,
        strength: float,
        form: Form = "normalised",
        publish: bool = True,
    ) -> None:
        super().__init__(optimizer)
        if not (isfinite(strength) and strength >= 0.0) or form not in ("normalised", "raw"):
            raise InputError(
                need='a finite strength of at least 0, and form="normalised" or "raw"',
                got=f"strength {strength}, form {form!r}",
                hint="normalised, 1 / strength is how far a weight may move",
            )
        if form == "normalised" and any("betas" not in group for group in self.param_groups):
            raise _without_moment(optimizer)
        self.versions = versions
        self.strength = strength
        self.form: Form = form
        self.staleness: float | Mapping[int, float] | None = None
        self._publishes = publish
        self._steps = 0

    @property
    def version(self) -> int:
        """The number of the current weights: steps taken so far."""
        return self._steps

    def before(self) -> bool:
        """Publish the weights, and correct the gradients in place."""
        parameters = self.parameters()
        if self._publishes:
            self.versions.publish(self._steps, parameters)
        shares = _shares(self.staleness)
        if not shares or self.strength == 0.0:
            return True
        old = [self.versions[self._steps - lag] for lag in shares]
        at = {parameter: n for n, parameter in enumerate(parameters)}

        def references(shard: Shard) -> Sequence[Tensor]:
            earlier = [version[at[shard.parameter]] for version in old]
            return [local(shard.parameter), *earlier, *self._moment(shard.parameter)]

        groups = [group for group in self.param_groups for _ in group["params"]]
        # One group each, so that every batch is of one parameter: its moment has its own age.
        shards = collect(self.param_groups, per="parameter")
        for batch in batches(shards, references):
            number = batch.group
            self._correct(batch, tuple(shares.values()), parameters[number], groups[number])
        return True

    def after(self) -> None:
        """Count the step."""
        self._steps += 1

    def _correct(
        self,
        batch: Batch,
        shares: Sequence[float],
        parameter: Tensor,
        group: Mapping[str, Any],
    ) -> None:
        likes = batch.gradients
        gradients, weights, *others = (
            [working(own, like) for own, like in zip(parts, likes, strict=True)]
            for parts in (likes, *batch.references)
        )
        pull = list(torch._foreach_mul(gradients, gradients))
        if self.form == "normalised":
            beta, start = self._decay(parameter, group)
            usual = list(torch._foreach_mul(pull, 1.0 - beta))
            for moments in others[len(shares) :]:
                torch._foreach_add_(usual, moments, alpha=beta)
            torch._foreach_div_(usual, start)
            torch._foreach_sqrt_(usual)
            # A gradient that never was anything but zero is divided by something else.
            torch._foreach_clamp_min_(usual, torch.finfo(usual[0].dtype).tiny)
            torch._foreach_div_(pull, usual)
        moved = [torch.zeros_like(own) for own in weights]
        for share, earlier in zip(shares, others[: len(shares)], strict=True):
            torch._foreach_add_(moved, torch._foreach_sub(weights, earlier), alpha=share)
        torch._foreach_mul_(pull, moved)
        torch._foreach_add_(gradients, pull, alpha=self.strength)
        write_back(gradients, likes)

    def _moment(self, parameter: Tensor) -> list[Tensor]:
        """The second moment, if it is used; none before the first step."""
        found = self.state.get(parameter)
        if self.form == "raw" or not found:
            return []
        if "exp_avg_sq" not in found:
            raise _without_moment(self.optimizer)
        return [local(found["exp_avg_sq"])]

    def _decay(self, parameter: Tensor, group: Mapping[str, Any]) -> tuple[float, float | Tensor]:
        """Decay of the second moment, and what its start is divided by, with this gradient in it.

        With the gradient of this step in the moment, as the optimizer is about to take it in, a
        gradient out of the blue is changed by a bounded multiple of itself.
        """
        beta = float(group["betas"][1])
        taken = self.state.get(parameter, {}).get("step", 0)
        if isinstance(taken, Tensor) and taken.device.type == "cpu":
            taken = float(taken)
        return beta, 1.0 - beta ** (taken + 1)

    def own_state(self) -> dict[str, Any]:
        """The number of the current weights. Versions have a checkpoint of their own."""
        return {"steps": self._steps}

    def restore(
        self, state: dict[str, Any] | None, kept: Mapping[Tensor, Mapping[str, Tensor]]
    ) -> None:
        """Go on counting where the checkpoint was written."""
        if state is not None:
            self._steps = state["steps"]


def _shares(staleness: float | Mapping[int, float] | None) -> dict[int, float]:
    """The share of each lag; nothing where all samples are of the current weights."""
    given = staleness if isinstance(staleness, Mapping) else {staleness or 0: 1.0}
    total = sum(given.values())
    is_fit = all(lag >= 0 and lag == int(lag) and share >= 0.0 for lag, share in given.items())
    if not is_fit or not total > 0.0:
        raise InputError(
            need="a staleness in whole steps of at least 0, or the share of each",
            got=str(staleness),
            hint="staleness = {3: 0.5, 4: 0.5} for a batch of which half is one step older",
        )
    return {int(lag): share / total for lag, share in given.items() if lag > 0 and share > 0.0}


def _without_moment(optimizer: torch.optim.Optimizer) -> InputError:
    return InputError(
        need="an optimizer with a second moment (exp_avg_sq), such as AdamW",
        got=type(optimizer).__name__,
        hint='form="raw", whose strength has another unit',
    )
