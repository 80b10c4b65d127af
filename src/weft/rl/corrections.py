"""Losses for samples that an older policy made.

    corrected = weft.rl.PPOClip(low=0.2, high=0.28)(batch)
    corrected.loss.backward()

With the ratio r = exp(current - behaviour) of a token's probabilities now and when it was made, and
its advantage A, the gradient of each loss is that of the plain policy gradient times a weight:

    PPOClip       r, or 0 where a step would move r further out of its bounds
    Truncated     min(r, cap)
    Decoupled     from a policy between the two: the ratio to it clipped, times its own to behaviour
    M2PO          r, or 0 for the tokens whose log ratios are largest
    SequenceMask  any of these, without the sequences that have drifted on the whole

The value of each loss is that of its surrogate, -weight A where nothing is cut; its gradient is
put together from the weights and is right to first order. It does not vanish where a ratio meets
the bound below. All arithmetic is in float32 or better, and nothing waits for a device.

What is divided by. With average="tokens" the loss is the sum over tokens divided by their number in
the whole batch: long sequences count for more. With average="sequences" it is the mean within each
sequence, then over sequences that have a token: each counts alike. Tokens that a correction leaves
out stay in the divisor, so that a batch of which little is left makes a small step.

Positions outside the mask never matter, whatever they hold. NaN at a token that counts is not
hidden: it reaches the loss, or, where a mask takes it out, what is told.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Literal, Protocol

import torch
from torch import Tensor

from weft.core.errors import InputError

__all__ = [
    "LOG_RATIO_BOUND",
    "M2PO",
    "Average",
    "Batch",
    "Corrected",
    "Correction",
    "Decoupled",
    "PPOClip",
    "SequenceMask",
    "Tokens",
    "Tokenwise",
    "Told",
    "Truncated",
    "log_ratios",
    "sequence_mask",
]

Average = Literal["tokens", "sequences"]
"""What the loss is a mean over."""

LOG_RATIO_BOUND = 20.0
"""Log ratios are held between minus this and this.
Derived: a product of two ratios is then at most exp(40) = 2e17, and the squares of a million ratios
sum to at most 2e23, which float32 holds. A ratio of exp(20) = 5e8 means nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Tokens to train on; B sequences, padded to T tokens.

    Attributes:
        current: log-probabilities now, which gradients go through [B, T].
        behaviour: those when the tokens were drawn [B, T].
        advantages: of tokens [B, T] or of sequences [B].
        mask: which positions are tokens that count [B, T], true or 1 for those that do.
        proximal: log-probabilities at the beginning of the step, for `Decoupled` [B, T].
        weights: a further factor of each token, 1 if left out [B, T].
        total: how many tokens, or sequences with one, the loss is divided by, where this batch is
            a part of the one that a step is made of (a micro-batch, or one process's share).
            Losses of parts then add up to that of the whole. Those of this batch if left out.

    Raises:
        InputError: shapes that do not fit.
    """

    current: Tensor
    behaviour: Tensor
    advantages: Tensor
    mask: Tensor
    proximal: Tensor | None = None
    weights: Tensor | None = None
    total: Tensor | float | None = None

    def __post_init__(self) -> None:
        shape = self.current.shape
        if self.current.dim() != 2:
            raise InputError(
                need="log-probabilities of sequences [B, T]",
                got=f"current of shape {tuple(shape)}",
                hint="unsqueeze(0) makes a batch of one sequence",
            )
        for name in ("behaviour", "mask", "advantages", "proximal", "weights"):
            value: Tensor | None = getattr(self, name)
            fits = (shape, shape[:1]) if name == "advantages" else (shape,)
            if value is not None and value.shape not in fits:
                raise InputError(
                    need=f"{name} of shape {' or '.join(str(tuple(one)) for one in fits)}",
                    got=f"shape {tuple(value.shape)}",
                    hint="pad all to the same sequences and tokens",
                )

    def clean(self) -> Batch:
        """The same with zeros at positions that do not count, in float32 or better."""
        mask = self.mask.detach() != 0
        kind = torch.promote_types(self.current.dtype, torch.float32)
        advantages = self.advantages if self.advantages.dim() == 2 else self.advantages.unsqueeze(1)

        def tidy(value: Tensor) -> Tensor:
            return torch.where(mask, value.to(kind), 0)

        return replace(
            self,
            current=tidy(self.current),
            behaviour=tidy(self.behaviour.detach()),
            advantages=tidy(advantages.detach().expand(mask.shape)),
            mask=mask,
            proximal=None if self.proximal is None else tidy(self.proximal.detach()),
            weights=None if self.weights is None else tidy(self.weights.detach()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a correction found and did: numbers on the batch's device, read by `read`.

    Ratios are those of now to behaviour, held by the bound, over the tokens of this batch before
    anything is left out. All are 0 in a batch without tokens.

    Attributes:
        tokens: how many count.
        clipped: share of them whose weight was cut or whose gradient was stopped by a bound.
        masked: share of them left out by a mask or a weight of 0.
        mean_ratio: of their ratios.
        effective: effective sample size as a share of their number, (sum r)^2 / (n sum r^2).
        kl: of the behaviour from the policy now, by the estimator r - 1 - log r.
        second_moment: mean square of log ratios.

    Source: Kong 1992 (effective sample size); k3 in Schulman 2020, "Approximating KL divergence".
    """

    tokens: Tensor
    clipped: Tensor
    masked: Tensor
    mean_ratio: Tensor
    effective: Tensor
    kl: Tensor
    second_moment: Tensor

    def read(self) -> dict[str, float]:
        """The numbers by their names. Waits for the device, once."""
        names = [field.name for field in fields(self)]
        values = torch.stack([getattr(self, name) for name in names]).tolist()
        return dict(zip(names, values, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """A loss and how it came about.

    Attributes:
        loss: to go backward from; a number.
        losses: of each token, before the mean; 0 where none counts [B, T].
        weights: what the plain policy gradient of each token was multiplied by [B, T].
        told: what was done.
    """

    loss: Tensor
    losses: Tensor
    weights: Tensor
    told: Told


class Correction(Protocol):
    """A way to use samples of an older policy."""

    def __call__(self, batch: Batch) -> Corrected:
        """The loss of a batch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a correction makes of each token, without gradients; all [B, T].

    Values are those of the surrogate, which is to grow; weights its slopes in log-probabilities,
    by advantages; `clipped` is where a bound was met; `masked` what is left out, None for nothing.
    """

    values: Tensor
    weights: Tensor
    clipped: Tensor
    masked: Tensor | None = None


def log_ratios(after: Tensor, before: Tensor) -> Tensor:
    """Differences of log-probabilities, within the bound and without gradients.

    Example:
        >>> log_ratios(torch.tensor([[-1.0, 0.0]]), torch.tensor([[-3.0, -99.0]])).tolist()
        [[2.0, 20.0]]
    """
    return (after.detach() - before.detach()).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def sequence_mask(log_ratio: Tensor, mask: Tensor, *, low: float, high: float) -> Tensor:
    """1 for sequences whose mean log ratio is within bounds, 0 for the others: weights of tokens.

    Args:
        log_ratio: of now to behaviour, by token [B, T].
        mask: which positions count [B, T].
        low, high: bounds on the mean.

    Example:
        >>> log_ratio = torch.tensor([[0.1, -0.1], [0.5, 0.5]])
        >>> sequence_mask(log_ratio, torch.ones(2, 2), low=-0.2, high=0.2).tolist()
        [[1.0, 1.0], [0.0, 0.0]]
    """
    counts = (mask != 0).sum(1, keepdim=True).clamp(min=1)
    means = torch.where(mask != 0, log_ratio, 0).sum(1, keepdim=True) / counts
    return ((means >= low) & (means <= high)).to(log_ratio.dtype).expand_as(log_ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenwise(ABC):
    """Base of corrections that weigh each token; `average` is what the loss is a mean over.

    Raises:
        InputError: another mean, or a bound out of range.
    """

    average: Average = "tokens"

    def __post_init__(self) -> None:
        _check(self.average)

    def __call__(self, batch: Batch) -> Corrected:
        """The loss of a batch."""
        batch = batch.clean()
        return _finish(batch, self.weigh(batch), self.average)

    @abstractmethod
    def weigh(self, batch: Batch) -> Tokens:
        """What becomes of each token of a batch that is clean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PPOClip(Tokenwise):
    """The clipped surrogate: min(r A, clip(r, 1 - low, 1 + high) A).

    Args:
        low: how far below 1 a ratio is let go. Source: 0.2 in the paper.
        high: how far above; larger than `low` to let tokens grow that were rare.

    Source: Schulman et al. 2017, arXiv 1707.06347, equation 7.

    Example:
        >>> one = torch.ones(1, 1)
        >>> batch = Batch(current=-one, behaviour=-2 * one, advantages=one, mask=one)
        >>> corrected = PPOClip()(batch)
        >>> corrected.loss.item(), corrected.told.read()["clipped"]
        (-1.2, 1.0)
    """

    low: float = 0.2
    high: float = 0.2

    def __post_init__(self) -> None:
        _check(self.average, low=self.low, high=self.high)

    def weigh(self, batch: Batch) -> Tokens:
        """The ratio, or 0 where a step would move it further out of its bounds."""
        log_ratio = log_ratios(batch.current, batch.behaviour)
        return _clip(log_ratio, batch.advantages, self.low, self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncated(Tokenwise):
    """Importance sampling of tokens, with weights that gradients do not go through.

    Args:
        cap: the largest weight, at least 1; infinity for ratios as they are. Chosen: 2, which lets
            ratios near 1 pass on both sides. The source caps at 1.

    Source: Espeholt et al. 2018, arXiv 1802.01561, section 4.1, for each token alone.
    """

    cap: float = 2.0

    def __post_init__(self) -> None:
        _check(self.average, cap=self.cap)

    def weigh(self, batch: Batch) -> Tokens:
        """The smaller of ratio and cap."""
        ratio = log_ratios(batch.current, batch.behaviour).exp()
        weights = ratio.clamp(max=self.cap)
        return Tokens(values=weights * batch.advantages, weights=weights, clipped=ratio > self.cap)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoupled(Tokenwise):
    """The clipped surrogate from a proximal policy, weighted by its ratio to behaviour.

    Batches need `proximal`: log-probabilities computed once when a step begins, before its first
    update. Steps are then bounded by where the policy was, not by where old samples were.

    Args:
        low: how far below 1 the ratio of now to proximal is let go; see `PPOClip`.
        high: how far above.
        cap: the largest weight, at least 1; infinity, as in the source, for weights as they are.

    Raises:
        InputError: a bound out of range; when called, a batch without `proximal`.

    Source: Hilton et al. 2021, arXiv 2110.00641; for tokens, Fu et al. 2025,
    arXiv 2505.24298.
    """

    low: float = 0.2
    high: float = 0.2
    cap: float = inf

    def __post_init__(self) -> None:
        _check(self.average, low=self.low, high=self.high, cap=self.cap)

    def weigh(self, batch: Batch) -> Tokens:
        """The ratio to proximal, clipped, times that of proximal to behaviour."""
        if batch.proximal is None:
            raise InputError(
                need="log-probabilities of a proximal policy",
                got="a batch without them",
                hint="Batch(proximal=...) from before the step's first update, or PPOClip",
            )
        log_ratio = log_ratios(batch.current, batch.proximal)
        weight = log_ratios(batch.proximal, batch.behaviour).exp()
        bounded = weight.clamp(max=self.cap)
        inner = _clip(log_ratio, batch.advantages, self.low, self.high)
        return Tokens(
            values=inner.values * bounded,
            weights=inner.weights * bounded,
            clipped=inner.clipped | (weight > self.cap),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class M2PO(Tokenwise):
    """Importance sampling without the fewest tokens that hold a second moment above `tau`.

    Candidates are the tokens that a step pushes further from behaviour: A > 0 with r > 1, or A < 0
    with r < 1. Of these, those with the largest squares of log r are left out until the mean square
    of the candidates that stay is at most `tau`. This is decided over the batch at hand: of a step
    in parts, each part decides for itself.

    Args:
        tau: bound on the mean square. Source: 0.04 in the paper.

    Source: Zheng et al. 2025, arXiv 2510.01161, algorithm 1, from accounts of it. They differ in
    which tokens the mean is over: here the candidates, which is the stricter reading.
    """

    tau: float = 0.04

    def __post_init__(self) -> None:
        _check(self.average, tau=self.tau)

    def weigh(self, batch: Batch) -> Tokens:
        """The ratio, or 0 for what is left out."""
        log_ratio = log_ratios(batch.current, batch.behaviour)
        candidates = batch.mask & (log_ratio * batch.advantages > 0)
        if batch.weights is not None:  # what is out already takes no part in the decision
            candidates = candidates & (batch.weights != 0)
        squares = torch.where(candidates, log_ratio.double().square(), inf).flatten()
        ordered, order = squares.sort()
        counts = torch.arange(1, ordered.numel() + 1, device=ordered.device)
        # Means over a growing beginning of a sorted list only grow: what stays is a beginning.
        stays = torch.zeros_like(squares, dtype=torch.bool)
        stays[order] = ordered.cumsum(0) / counts <= self.tau
        masked = candidates & ~stays.view_as(candidates)
        weights = torch.where(masked, 0, log_ratio.exp())
        return Tokens(
            values=weights * batch.advantages,
            weights=weights,
            clipped=torch.zeros_like(masked),
            masked=masked,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceMask:
    """Leaves out sequences whose mean log ratio is out of bounds; the rest is another's.

    Args:
        low: the lowest mean, at most 0.
        high: the highest, at least 0. Neither has a default: what is usual grows with staleness
            and with the difference between engines that sample and train.
        inside: what is done with the sequences that stay; another mask, too.

    Raises:
        InputError: bounds without 0 between them, which would leave out samples that are not old.
    """

    low: float
    high: float
    inside: Correction

    def __post_init__(self) -> None:
        if not self.low <= 0.0 <= self.high:
            raise InputError(
                need="bounds on a mean log ratio with 0 between them",
                got=f"low={self.low}, high={self.high}",
                hint="low=-0.1, high=0.1, for example: they are of logarithms, not of ratios",
            )

    def __call__(self, batch: Batch) -> Corrected:
        """The loss of a batch."""
        batch = batch.clean()
        log_ratio = log_ratios(batch.current, batch.behaviour)
        keep = sequence_mask(log_ratio, batch.mask, low=self.low, high=self.high)
        weights = keep if batch.weights is None else keep * batch.weights
        return self.inside(replace(batch, weights=weights))


def _clip(log_ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tokens:
    ratio = log_ratio.exp()
    bounded = ratio.clamp(1.0 - low, 1.0 + high)
    is_out = ((advantages > 0) & (ratio > 1.0 + high)) | ((advantages < 0) & (ratio < 1.0 - low))
    return Tokens(
        values=torch.minimum(ratio * advantages, bounded * advantages),
        weights=torch.where(is_out, 0, ratio),
        clipped=is_out,
    )


def _finish(batch: Batch, done: Tokens, average: Average) -> Corrected:
    """Losses with gradients, their mean, and what is told; `batch` is clean."""
    factors = torch.ones_like(done.weights) if batch.weights is None else batch.weights
    kept = batch.mask & (factors != 0)
    if done.masked is not None:
        kept = kept & ~done.masked
    weights = torch.where(kept, done.weights * factors, 0)
    # What is left out is cut off before any arithmetic: 0 times NaN would be NaN.
    values = torch.where(kept, done.values * factors, 0)
    slopes = torch.where(kept, weights * batch.advantages, 0)
    current = torch.where(kept, batch.current, 0)
    losses = -values - slopes * (current - current.detach())
    counts = batch.mask.sum(1)
    if average == "tokens":
        over, found = losses.sum(), counts.sum()
    else:
        over, found = (losses.sum(1) / counts.clamp(min=1)).sum(), (counts > 0).sum()
    return Corrected(
        loss=over / (found.clamp(min=1) if batch.total is None else batch.total),
        losses=losses,
        weights=weights,
        told=_tell(batch, clipped=done.clipped & kept, masked=batch.mask & ~kept),
    )


@torch.no_grad()
def _tell(batch: Batch, *, clipped: Tensor, masked: Tensor) -> Told:
    # In float64, which sums of squares of ratios need.
    log_ratio = log_ratios(batch.current, batch.behaviour).double()
    ratio = torch.where(batch.mask, log_ratio.exp(), 0)
    tokens = batch.mask.sum().double()
    least = tokens.clamp(min=1)
    return Told(
        tokens=tokens,
        clipped=clipped.sum() / least,
        masked=masked.sum() / least,
        mean_ratio=ratio.sum() / least,
        effective=ratio.sum().square() / (least * torch.where(tokens > 0, ratio.square().sum(), 1)),
        kl=torch.where(batch.mask, log_ratio.expm1() - log_ratio, 0).sum() / least,
        second_moment=log_ratio.square().sum() / least,
    )


def _check(
    average: str, *, low: float = 0.0, high: float = 0.0, cap: float = inf, tau: float = 0.0
) -> None:
    if average not in ("tokens", "sequences"):
        raise InputError(
            need='average="tokens" or "sequences"',
            got=repr(average),
            hint='"tokens" counts each token alike, "sequences" each sequence',
        )
    if not (0.0 <= low <= 1.0 and high >= 0.0 and cap >= 1.0 and tau >= 0.0):
        raise InputError(
            need="low between 0 and 1, high (both from 1) and tau at least 0, cap at least 1",
            got=f"low={low}, high={high}, cap={cap}, tau={tau}",
            hint="low=0.2, high=0.28 holds ratios between 0.8 and 1.28; cap=1 weighs nothing up",
        )
