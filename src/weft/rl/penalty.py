"""A penalty on how far the policy is from the one that made the samples.

    correction = weft.rl.KLPenalty(strength=0.1, inside=weft.rl.PPOClip())
    correction(batch).loss.backward()

With samples of the behaviour policy b, the policy now p, and l = log p - log b of a token, three
estimators of a Kullback-Leibler divergence differ in the gradient that they have on the average:

    name      value           slope in log p   expected gradient
    k3        r - 1 - l       r - 1            that of KL(b, p), exactly
    reverse   r l - r + 1     r l              that of KL(p, b) at each token, exactly
    k2        l^2 / 2         l                that of either, to first order in p - b

with r = exp(l). All three are zero at l = 0 sample by sample: samples of the newest weights are
left alone. This is not true of k1, which is -l: its gradient -grad log p is that of KL(b, p) on the
average, too, but is noise as large as the policy gradient's own where there is nothing to pull. It
is not offered.

Of whole sequences, only k3 adds up to the right gradient: prefixes are drawn from b, which KL(b, p)
takes its mean over. That of KL(p, b) would need the ratios of prefixes as well. Therefore k3 is the
default. Its slope grows as fast as the ratio where a rare token has become common, and never falls
below -1; that of k2 is linear both ways.

To second order in the move of the weights d, all three are half of d' F d with the Fisher
information F of a token, and pull back by F d. Delay compensation pulls by strength * g * g * d:
where g is a mean over samples, its square is the diagonal of F times the mean square of weighted
advantages, over the number of tokens, plus the square of what g is on the average. k2 is the one
that is this pull sample by sample, an outer product of the samples' own gradients with d.
`matched_strength` says what makes the two pulls alike.

Source: Schulman 2020, "Approximating KL divergence" (the names; its samples are of the policy whose
mean is taken, as they are here for k1 and k3). Slopes derived here, checked against enumeration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

import torch
from torch import Tensor

from weft.core.errors import InputError
from weft.rl.corrections import Average, Batch, Corrected, Correction, log_ratios

__all__ = ["Estimator", "KLPenalty", "matched_strength"]

Estimator = Literal["k2", "k3", "reverse"]
"""How the divergence is estimated; see above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KLPenalty:
    """Adds a divergence from behaviour to the loss of another correction.

    The penalty is a mean over the same tokens as that loss, and counts tokens that the inner
    correction cuts or masks, which need it most. What is masked from outside (`Batch.weights`, a
    `SequenceMask` around this) is left alone. Weights and what is told are the inner correction's;
    `told.kl` is the mean of k3.

    Args:
        strength: reward that a divergence of one nat in each token costs, at least 0. At 0 the
            loss is the inner one's, bit for bit.
        inside: the loss that it is added to.
        estimator: "k3", "reverse" or "k2".
        average: what the penalty is a mean over; as the inner correction where left out.

    Raises:
        InputError: a strength that is negative or not finite, an unknown estimator, another mean
            than the inner correction's, or one that does not tell and none given.

    Example:
        >>> from weft.rl.corrections import PPOClip
        >>> current = torch.full((1, 1), -1.0, requires_grad=True)
        >>> one = torch.ones(1, 1)
        >>> batch = Batch(current=current, behaviour=-1.5 * one, advantages=0 * one, mask=one)
        >>> KLPenalty(strength=2.0, inside=PPOClip(), estimator="k2")(batch).loss.backward()
        >>> current.grad.item()  # 2 * (-1 + 1.5)
        1.0
    """

    strength: float
    inside: Correction
    estimator: Estimator = "k3"
    average: Average | None = None

    def __post_init__(self) -> None:
        known = self.estimator in ("k2", "k3", "reverse")
        if not (known and isfinite(self.strength) and self.strength >= 0.0):
            raise InputError(
                need='a finite strength of at least 0, and estimator "k3", "reverse" or "k2"',
                got=f"strength={self.strength}, estimator={self.estimator!r}",
                hint="k3 has the gradient of the divergence that samples of behaviour can tell",
            )
        _mean_of(self.inside, self.average)

    def __call__(self, batch: Batch) -> Corrected:
        """The loss of a batch."""
        corrected = self.inside(batch)
        if self.strength == 0.0:
            return corrected
        batch = batch.clean()
        factors = _factors(batch)
        kept = factors != 0
        log_ratio = log_ratios(batch.current, batch.behaviour)
        values, slopes = _estimate(log_ratio, self.estimator)
        # What is left out is cut off before any arithmetic: 0 times NaN would be NaN.
        current = torch.where(kept, batch.current, 0)
        values = torch.where(kept, values * factors, 0)
        slopes = torch.where(kept, slopes * factors, 0)
        added = self.strength * (values + slopes * (current - current.detach()))
        shares = _shares(batch, _mean_of(self.inside, self.average))
        return replace(
            corrected,
            loss=corrected.loss + (shares * added).sum(),
            losses=corrected.losses + added,
        )


@torch.no_grad()
def matched_strength(
    strength: float,
    batch: Batch,
    inside: Correction,
    *,
    clip_scale: float = 1.0,
    average: Average | None = None,
) -> float:
    """The strength of a `KLPenalty` that pulls as much as a raw `DelayCompensation` of `strength`.

    With shares u of tokens in the loss (1 / tokens for a mean over tokens), weights w, advantages A
    and clipping to c times the gradient, the pulls are

        compensation   strength * c^2 * (sum u w A s)^2 * d
        penalty        matched * c * sum u s s' d

    where s is the gradient of a token's log-probability. On the average the square is the sum of
    u^2 (w A)^2 s^2, so that `matched` is strength * c * sum u^2 (w A)^2 / sum u: for a mean over n
    tokens with advantages of mean square 1, strength * c / n.

    It holds to second order in d, on the average over batches, where noise is the most of the
    gradient: the square of what the gradient is on the average, which compensation has in addition,
    is left out. Magnitudes of advantages must not go with those of s. The penalty knows all of F,
    compensation its diagonal: their energies are equal for moves whose coordinates are independent,
    and pulls are equal coordinate by coordinate where F is diagonal. Along directions that many
    weights share, the penalty pulls more.

    Args:
        strength: of the raw form, one over gradient and weight.
        batch: as it is trained on; a step in parts gives the same answer for each of them.
        inside: the correction that is trained with.
        clip_scale: what clipping multiplies gradients by, before compensation; 1 for no clipping.
        average: as in `KLPenalty`.

    Returns:
        The strength of the penalty [reward per nat]. Waits for the device, once.

    Raises:
        InputError: a batch without a token that counts, or a number that is not finite.
    """
    corrected = inside(batch)
    batch = batch.clean()
    shares = _shares(batch, _mean_of(inside, average))
    squares = (shares * corrected.weights * batch.advantages).double().square().sum()
    total = (shares * _factors(batch)).double().sum()
    square, whole = torch.stack([squares, total]).tolist()
    if not (whole > 0.0 and isfinite(square) and isfinite(clip_scale * strength)):
        raise InputError(
            need="a batch with tokens that count, and finite numbers",
            got=f"shares that add up to {whole:g}, a mean square of {square:g},"
            f" strength={strength}, clip_scale={clip_scale}",
            hint="leave out samples with NaN; mask is 1 for tokens that count",
        )
    return strength * clip_scale * square / whole


def _estimate(log_ratio: Tensor, estimator: Estimator) -> tuple[Tensor, Tensor]:
    """Values and their slopes in log-probabilities."""
    if estimator == "k2":
        return log_ratio.square() / 2, log_ratio
    grown = log_ratio.expm1()
    if estimator == "k3":
        return grown - log_ratio, grown
    slopes = (grown + 1) * log_ratio
    return slopes - grown, slopes


def _factors(batch: Batch) -> Tensor:
    """What each token counts; 0 for those that do not. `batch` is clean."""
    ones = torch.ones_like(batch.behaviour) if batch.weights is None else batch.weights
    return torch.where(batch.mask, ones, 0)


def _shares(batch: Batch, average: Average) -> Tensor:
    """What each token's loss is multiplied by in the mean."""
    counts = batch.mask.sum(1, keepdim=True)
    if average == "tokens":
        of_row, found = torch.ones_like(counts), counts.sum()
    else:
        of_row, found = counts.clamp(min=1), (counts > 0).sum()
    whole = found.clamp(min=1) if batch.total is None else batch.total
    return batch.mask.to(batch.behaviour.dtype) / (of_row * whole)


def _mean_of(inside: Correction, average: Average | None) -> Average:
    """What the inner correction's loss is a mean over."""
    told: Average | None = None
    inner: object = inside
    while told is None and inner is not None:
        told, inner = getattr(inner, "average", None), getattr(inner, "inside", None)
    wanted = average or told
    if wanted not in ("tokens", "sequences") or told not in (None, wanted):
        raise InputError(
            need='average="tokens" or "sequences", as the loss inside has it',
            got=f"average={average!r}, and {type(inside).__name__} with {told!r}",
            hint="leave it out where the correction inside has one",
        )
    return wanted
