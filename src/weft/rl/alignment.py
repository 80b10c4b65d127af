"""What to do with a gradient, given how well it lines up with those before it.

Asynchronous training computes gradients for weights that have moved on. Such gradients keep
pointing the same way from step to step, and a step along all of them overshoots. The cosine with
a reference of recent gradients says how much of one is a repetition:

    cosine <= low           safe: the gradient is used as it is
    low < cosine <= high    project: what is parallel to the reference is taken out
    high < cosine           skip: no step at all

Decisions are one-sided: a gradient that turns away from the reference is left alone. They are made
from inner products only, in float64, by operations on tensors that never wait for a device; this
module knows nothing of parameters, processes or optimizers.

Source: the regimes follow Xu et al. 2026, arXiv 2603.01501 (abstract), whose thresholds and
reference were not to be had: those here are our own, measured on small models.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from math import isfinite

import torch
from torch import Tensor

from weft.core.errors import InputError

__all__ = [
    "Decision",
    "Decisions",
    "Mode",
    "Regime",
    "Thresholds",
    "decide",
    "decide_all",
    "summarise",
]

INDEPENDENT = 1e-6
"""Share of a reference's square that has to lie outside the others for it to be used too.
Derived: inner products of float32 are accurate to about 1e-9 of the squares, and their elements to
1e-7; below that, the direction of what remains is noise."""

NOTHING = 1e-6
"""Share of a gradient's square that counts as nothing left.
Measured: gradients of float32 that were multiples of their references, 300 to 2^24 elements: up to
5e-7 of the square seemed to be left, by the products; in fact it was 1e-14, which is rounding."""


class Regime(IntEnum):
    """What was done with a gradient; of several groups, the highest stands for the step."""

    FIRST = 0
    """There was nothing to compare it with."""
    SAFE = 1
    """It was used as it is."""
    PROJECT = 2
    """A part of it was taken out."""
    SKIP = 3
    """No step was taken."""
    INVALID = 4
    """It held NaN or infinity."""


class Mode(StrEnum):
    """How a gradient is changed where its cosine is above the lower threshold."""

    ORTHOGONAL = "orthogonal"
    """All that is parallel to the reference goes: g - (<g, r> / <r, r>) r."""
    CAP = "cap"
    """So much of it goes that the cosine becomes the lower threshold. At a threshold of 0 this is
    the orthogonal mode; a gradient that is nothing but parallel becomes zero in both."""
    SHRINK = "shrink"
    """A control for experiments: the norm that the orthogonal mode would leave, the direction
    unchanged. What it gains is due to smaller steps alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Where the regimes begin, and how often a step may be skipped.

    Skipping locks itself: while weights stand still, new samples come from one and the same policy
    and their gradients line up better still. It is off by default, bounded, and ends for good when
    it becomes a habit.

    Measured: on a small reversal task, with a high threshold of 0.5, 136 of 149 steps were skipped
    and nothing was learnt; projections without skipping learnt in the same place.

    Attributes:
        cosine_low: the cosine above which a gradient is changed.
        cosine_high: the one above which its step is skipped; None for never.
        consecutive_skips: most skips in a row.
        window: recent steps in which skips are counted.
        window_skips: most skips among them; one more, and there will be none from then on.

    Raises:
        InputError: thresholds out of order or out of range, or a bound below 1.

    Example:
        >>> Thresholds(cosine_low=0.1).cosine_high is None
        True
    """

    cosine_low: float = 0.0
    cosine_high: float | None = None
    consecutive_skips: int = 1
    window: int = 100
    window_skips: int = 20

    def __post_init__(self) -> None:
        high = 1.0 if self.cosine_high is None else self.cosine_high
        if not 0.0 <= self.cosine_low < high <= 1.0:
            raise InputError(
                need="0 <= cosine_low < cosine_high <= 1",
                got=f"cosine_low {self.cosine_low}, cosine_high {self.cosine_high}",
                hint="cosine_low=0.0 without cosine_high projects and never skips",
            )
        if min(self.consecutive_skips, self.window, self.window_skips) < 1:
            raise InputError(
                need="bounds on skipping of at least 1",
                got=f"consecutive_skips {self.consecutive_skips}, window {self.window},"
                f" window_skips {self.window_skips}",
                hint="cosine_high=None turns skipping off",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is done with one group of gradients.

    The gradient that is applied is scale * g - sum of factors[i] * r[i].

    Attributes:
        regime: what was done.
        cosine_raw: largest cosine of the gradient with a reference; 0 where either is zero.
        cosine_applied: the same of what is applied.
        norm_raw: Euclidean norm of the gradient.
        norm_applied: the same of what is applied.
        factors: one for each reference.
        scale: 1, or 0 where nothing is left; anything between in the shrink control.
    """

    regime: Regime
    cosine_raw: float
    cosine_applied: float
    norm_raw: float
    norm_applied: float
    factors: tuple[float, ...]
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """Decisions for several groups, still on the device: fields as in `Decision`.

    Attributes:
        values: regime, cosine_raw, cosine_applied, norm_raw, norm_applied, scale, then the
            factors [groups, 6 + references], float64.
    """

    values: Tensor

    @property
    def regime(self) -> Tensor:
        """Codes of the regimes [groups]."""
        return self.values[:, 0]

    @property
    def scale(self) -> Tensor:
        """Factors on the gradients [groups]."""
        return self.values[:, 5]

    @property
    def factors(self) -> Tensor:
        """Factors on the references [groups, references]."""
        return self.values[:, 6:]

    def read(self) -> tuple[Decision, ...]:
        """All of them on the host; waits for the device once."""
        return tuple(
            Decision(
                regime=Regime(int(row[0])),
                cosine_raw=row[1],
                cosine_applied=row[2],
                norm_raw=row[3],
                norm_applied=row[4],
                scale=row[5],
                factors=tuple(row[6:]),
            )
            for row in self.values.tolist()
        )


def decide(
    dot: float,
    gradient_square: float,
    reference_square: float,
    *,
    thresholds: Thresholds,
    mode: Mode = Mode.ORTHOGONAL,
    invalid: bool = False,
    may_act: bool = True,
    may_skip: bool = True,
) -> Decision:
    """Decide on one gradient g and one reference r.

    Args:
        dot: <g, r>.
        gradient_square: <g, g>.
        reference_square: <r, r>.
        thresholds: where the regimes begin.
        mode: how the gradient is changed.
        invalid: the gradient holds NaN or infinity.
        may_act: False to leave the gradient alone whatever its cosine.
        may_skip: False where skips are used up.

    Returns:
        What to do: g becomes scale * g - factors[0] * r.

    Example:
        >>> found = decide(3.0, 9.0, 4.0, thresholds=Thresholds())
        >>> found.regime.name, found.cosine_raw, found.factors
        ('PROJECT', 0.5, (0.75,))
    """
    gram = torch.tensor(
        [[[gradient_square, dot], [dot, reference_square]]], dtype=torch.float64, device="cpu"
    )
    invalid = invalid or not all(map(isfinite, (dot, gradient_square, reference_square)))
    return decide_all(
        torch.zeros_like(gram) if invalid else gram,
        thresholds=thresholds,
        mode=mode,
        invalid=torch.tensor(invalid),
        may_act=may_act,
        may_skip=may_skip,
    ).read()[0]


def decide_all(
    gram: Tensor,
    *,
    thresholds: Thresholds,
    mode: Mode = Mode.ORTHOGONAL,
    invalid: Tensor | None = None,
    first: Tensor | None = None,
    may_act: Tensor | bool = True,
    may_skip: bool = True,
) -> Decisions:
    """Decide on every group at once, without waiting for the device.

    Of several references, those with a cosine above the lower threshold are used, and all that
    lies in their span is taken out; one that depends on those before it is left out.

    Args:
        gram: inner products of the gradient and its references, in this order
            [groups, 1 + references, 1 + references], finite, float64.
        thresholds: where the regimes begin.
        mode: how gradients are changed; `Mode.CAP` takes one reference.
        invalid: whether the gradient holds NaN or infinity [].
        first: whether the references do not count [].
        may_act: False to leave gradients alone whatever their cosine [].
        may_skip: False where skips are used up.

    Returns:
        What to do with each group.
    """
    never = torch.zeros((), dtype=torch.bool, device=gram.device)
    square, dots = gram[:, 0, 0], gram[:, 0, 1:]
    squares = gram[:, 1:, 1:].diagonal(dim1=1, dim2=2)
    cosines = _cosines(dots, square, squares)
    raw = _largest(cosines, squares)
    is_invalid = never if invalid is None else invalid
    is_first = (squares.sum(1) == 0) | (never if first is None else first)
    acts = (raw > thresholds.cosine_low) & ~is_first & ~is_invalid & may_act
    skips = never
    if thresholds.cosine_high is not None and may_skip:
        skips = acts & (raw > thresholds.cosine_high)
    factors = _solve(gram, cosines > thresholds.cosine_low)
    if mode is Mode.CAP:
        factors = factors - _kept(gram, factors, thresholds.cosine_low)
    changed = acts & ~skips
    factors = torch.where(changed[:, None], factors, 0.0)
    left, dots_left = _after(gram, factors)
    # What rounding would leave of it is no gradient, and no reference for those to come.
    is_gone = changed & (left == 0)
    factors = torch.where(is_gone[:, None], 0.0, factors)
    scale = torch.where(is_gone, 0.0, torch.ones_like(square))
    if mode is Mode.SHRINK:
        scale = torch.where(changed, torch.sqrt(left / square), scale)
        factors, dots_left = torch.zeros_like(factors), dots * scale[:, None]
    applied = torch.where(changed, _largest(_cosines(dots_left, left, squares), squares), raw)
    regime = torch.full_like(square, Regime.SAFE)
    regime = torch.where(is_first, float(Regime.FIRST), regime)
    regime = torch.where(changed, float(Regime.PROJECT), regime)
    regime = torch.where(skips, float(Regime.SKIP), regime)
    regime = torch.where(is_invalid, float(Regime.INVALID), regime)
    heads = (regime, raw, applied, square.sqrt(), left.sqrt(), scale)
    return Decisions(values=torch.cat((torch.stack(heads, 1), factors), 1))


def summarise(gram: Tensor, decisions: Decisions) -> Tensor:
    """One row for all groups together: regime, cosines raw and applied, norms raw and applied [5].

    Args:
        gram: as in `decide_all`.
        decisions: what it made of it.
    """
    scale = decisions.scale[:, None]
    squares = gram[:, 1:, 1:].diagonal(dim1=1, dim2=2).sum(0, keepdim=True)
    raw, dots = gram[:, 0, 0].sum(0, keepdim=True), gram[:, 0, 1:]
    # Norms of single groups were rounded to 0 where nothing is left; their sum inherits that.
    left = decisions.values[:, 4].square().sum(0, keepdim=True)
    taken = (gram[:, 1:, 1:] @ decisions.factors[:, :, None])[:, :, 0]
    before = _cosines(dots.sum(0, keepdim=True), raw, squares)
    after = _cosines((scale * dots - taken).sum(0, keepdim=True), left, squares)
    head = (decisions.regime.amax(0, keepdim=True), _largest(before, squares))
    return torch.cat((*head, _largest(after, squares), raw.sqrt(), left.sqrt()))


def _cosines(dots: Tensor, square: Tensor, squares: Tensor) -> Tensor:
    """Cosines from inner products [groups, references]; 0 where a norm is."""
    # The root of each, since the product of two squares can leave the range of float64.
    norms = square.sqrt()[:, None] * squares.sqrt()
    cosines = torch.where(norms > 0, dots / torch.where(norms > 0, norms, 1.0), 0.0)
    return cosines.clamp(-1.0, 1.0)


def _largest(cosines: Tensor, squares: Tensor) -> Tensor:
    """The largest cosine with a reference that is not zero; 0 if all of them are."""
    found = torch.where(squares > 0, cosines, -2.0).amax(1)
    return torch.where(found < -1.5, 0.0, found)


def _after(gram: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Square of g - sum of factors * r [groups], and its products with r [groups, references]."""
    dots = gram[:, 0, 1:] - (gram[:, 1:, 1:] @ factors[:, :, None])[:, :, 0]
    left = gram[:, 0, 0] - (factors * (gram[:, 0, 1:] + dots)).sum(1)
    # Below the accuracy of the products, what is left is nothing, and has no direction.
    is_nothing = left <= NOTHING * gram[:, 0, 0]
    changed = (factors != 0).any(1)
    left = torch.where(is_nothing & changed, 0.0, left)
    return left, torch.where((is_nothing & changed)[:, None], 0.0, dots)


def _solve(gram: Tensor, used: Tensor) -> Tensor:
    """Factors that make the gradient orthogonal to the references in use [groups, references].

    An LDL^T factorisation, written out because it has to leave out references that depend on
    others, and because solvers of libraries wait for the device to report that they found some.
    """
    count = used.shape[1]
    norms = gram[:, 1:, 1:].diagonal(dim1=1, dim2=2).sqrt()
    norms = torch.where(norms > 0, norms, 1.0)
    unit = gram[:, 1:, 1:] / (norms[:, :, None] * norms[:, None, :])
    dots = gram[:, 0, 1:] / norms
    nothing = torch.zeros_like(dots[:, 0])
    lower: list[list[Tensor]] = []
    pivots: list[Tensor] = []  # 0 for a reference that is left out
    middle: list[Tensor] = []
    for row in range(count):
        values: list[Tensor] = []
        for column in range(row):
            earlier = (values[k] * lower[column][k] * pivots[k] for k in range(column))
            values.append(_divide(unit[:, row, column] - sum(earlier, nothing), pivots[column]))
        own = sum((values[k] * values[k] * pivots[k] for k in range(row)), nothing)
        pivot = unit[:, row, row] - own
        pivots.append(torch.where(used[:, row] & (pivot > INDEPENDENT), pivot, 0.0))
        middle.append(dots[:, row] - sum((values[k] * middle[k] for k in range(row)), nothing))
        lower.append(values)
    factors = [nothing] * count
    for row in reversed(range(count)):
        later = (lower[k][row] * factors[k] for k in range(row + 1, count))
        factors[row] = _divide(middle[row], pivots[row]) - sum(later, nothing)
    return torch.stack(factors, 1) / norms


def _divide(value: Tensor, pivot: Tensor) -> Tensor:
    """The quotient; 0 where the reference that the pivot belongs to is left out."""
    return torch.where(pivot > 0, value / torch.where(pivot > 0, pivot, 1.0), 0.0)


def _kept(gram: Tensor, factors: Tensor, cosine_low: float) -> Tensor:
    """How much of the one reference stays, for the cosine with it to be `cosine_low`."""
    left, _ = _after(gram, factors)
    square = gram[:, 1, 1]
    slope = cosine_low / (1.0 - cosine_low * cosine_low) ** 0.5
    return (slope * (left / torch.where(square > 0, square, 1.0)).sqrt())[:, None]
