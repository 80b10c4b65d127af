"""Decisions on gradients with one reference each, in plain numbers.

The same as `weft.rl.alignment` makes by operations on tensors, which is what a device needs that
nobody waits for. Where the host knows the products anyway, a hundred operations on tensors of a few
numbers take longer than a step of a small optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from weft.rl.alignment import NOTHING, Decision, Mode, Regime, Thresholds

__all__ = ["decide_plainly", "summarise_plainly"]

Products = Sequence[Sequence[float]]


def decide_plainly(
    products: Products,
    *,
    thresholds: Thresholds,
    mode: Mode = Mode.ORTHOGONAL,
    invalid: bool = False,
    first: bool = False,
    may_act: bool = True,
    may_skip: bool = True,
) -> tuple[Decision, ...]:
    """Decide on every group, as `weft.rl.alignment.decide_all` does.

    Args:
        products: of each group, those of the gradient with itself, with its reference, and of that
            with itself, all finite.
        thresholds: where the regimes begin.
        mode: how gradients are changed.
        invalid: the gradient holds NaN or infinity.
        first: references do not count.
        may_act: False to leave gradients alone whatever their cosine.
        may_skip: False where skips are used up.

    Example:
        >>> decide_plainly([(9.0, 3.0, 4.0)], thresholds=Thresholds())[0].factors
        (0.75,)
    """
    low, high = thresholds.cosine_low, thresholds.cosine_high
    found: list[Decision] = []
    for square, dot, other in products:
        raw = _cosine(dot, square, other)
        is_first = first or other == 0.0
        acts = raw > low and may_act and not (invalid or is_first)
        regime = Regime.FIRST if is_first else Regime.SAFE
        if invalid:
            regime = Regime.INVALID
        if acts:
            skips = high is not None and may_skip and raw > high
            regime = Regime.SKIP if skips else Regime.PROJECT
        if regime is Regime.PROJECT:
            found.append(_change(square, dot, other, raw, low, mode))
            continue
        norm = sqrt(square)
        found.append(
            Decision(
                regime=regime,
                cosine_raw=raw,
                cosine_applied=raw,
                norm_raw=norm,
                norm_applied=norm,
                factors=(0.0,),
            )
        )
    return tuple(found)


def summarise_plainly(
    products: Products, decisions: Sequence[Decision]
) -> tuple[Regime, float, float, float, float]:
    """All groups together, as `weft.rl.alignment.summarise` does.

    Args:
        products: as in `decide_plainly`.
        decisions: what it made of them.

    Returns:
        Regime, cosines raw and applied, norms raw and applied.
    """
    both = list(zip(products, decisions, strict=True))
    square, dot, other = (sum(row[k] for row in products) for k in range(3))
    left = sum(decision.norm_applied**2 for decision in decisions)
    dot_left = sum(d.scale * row[1] - row[2] * d.factors[0] for row, d in both)
    return (
        max(decision.regime for decision in decisions),
        _cosine(dot, square, other),
        _cosine(dot_left, left, other),
        sqrt(square),
        sqrt(left),
    )


def _change(
    square: float, dot: float, other: float, raw: float, low: float, mode: Mode
) -> Decision:
    """Take out what is parallel, or as much as the mode asks for."""
    factor, scale = dot / other, 1.0
    left, dot_left = _after(square, dot, other, factor)
    if mode is Mode.CAP:
        factor -= low / sqrt(1.0 - low * low) * sqrt(left / other)
        left, dot_left = _after(square, dot, other, factor)
    if mode is Mode.SHRINK:
        factor, scale = 0.0, sqrt(left / square)
        dot_left = dot * scale
    elif left == 0.0:  # what rounding would leave of it is no gradient
        factor, scale = 0.0, 0.0
    return Decision(
        regime=Regime.PROJECT,
        cosine_raw=raw,
        cosine_applied=_cosine(dot_left, left, other),
        norm_raw=sqrt(square),
        norm_applied=sqrt(left),
        factors=(factor,),
        scale=scale,
    )


def _after(square: float, dot: float, other: float, factor: float) -> tuple[float, float]:
    """Square of g - factor * r, and its product with r."""
    dot_left = dot - other * factor
    left = square - factor * (dot + dot_left)
    # Below the accuracy of the products, what is left is nothing, and has no direction.
    is_nothing = left <= NOTHING * square and factor != 0.0
    return (0.0, 0.0) if is_nothing else (left, dot_left)


def _cosine(dot: float, square: float, other: float) -> float:
    """0 where either is zero."""
    norms = sqrt(square) * sqrt(other)
    return min(max(dot / norms, -1.0), 1.0) if norms > 0.0 else 0.0
