"""Losses of two runs on the same data, side by side.

Records of kind "step" come from the run that a plan split, records of kind "reference" from
one process. Both hold "step", "loss" and "step_s".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from weft.core.errors import InputError
from weft.core.records import Record
from weft.report.markup import Markup
from weft.report.plot import Series, line_plot

__all__ = ["LossComparison", "compare_losses", "loss_plot", "losses_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossComparison:
    """How far two loss curves are apart.

    Attributes:
        steps: number of steps that both have.
        difference: largest absolute difference; infinite where one of them is no number.
        relative: largest difference relative to the reference.
        step: where the relative difference is largest.
    """

    steps: int
    difference: float
    relative: float
    step: int


def losses_of(records: Sequence[Record], kind: str) -> dict[int, float]:
    """Loss by step of the records of one kind; the last one counts where a step was repeated."""
    found: dict[int, float] = {}
    for record in records:
        step, loss = record.fields.get("step"), record.fields.get("loss")
        if record.kind == kind and isinstance(step, int):
            # A loss that is no number is written as text, which `float` reads, or left empty.
            found[step] = float(loss) if isinstance(loss, int | float | str) else math.nan
    return found


def compare_losses(records: Sequence[Record]) -> LossComparison:
    """Compare the steps that both runs have.

    Raises:
        InputError: they have no step in common.
    """
    own, reference = losses_of(records, "step"), losses_of(records, "reference")
    common = sorted(set(own) & set(reference))
    if not common:
        raise InputError(
            need="records of kinds step and reference with steps in common",
            got=f"{len(own)} steps and {len(reference)} reference steps",
            hint="run both on the same step numbers",
        )
    gaps = {step: _gap(own[step], reference[step]) for step in common}
    relative = {step: gap / max(abs(reference[step]), 1e-30) for step, gap in gaps.items()}
    worst = max(common, key=lambda step: relative[step])
    return LossComparison(
        steps=len(common),
        difference=max(gaps.values()),
        relative=relative[worst],
        step=worst,
    )


def _gap(own: float, reference: float) -> float:
    gap = abs(own - reference)
    return gap if math.isfinite(gap) else math.inf


def loss_plot(records: Sequence[Record], *, split: str) -> Markup:
    """Both curves; the reference is a wide line below, so that it is seen where they coincide.

    Args:
        records: of kinds "step" and "reference".
        split: what to call the run that was split, such as "2 ranks".
    """
    curves = (
        ("one process", losses_of(records, "reference"), "line-wide"),
        (split, losses_of(records, "step"), "line-dashed"),
    )
    series = [
        Series(name=name, style=style, points=tuple((float(s), v) for s, v in losses.items()))
        for name, losses, style in curves
    ]
    return line_plot(series, title="Loss over steps", x_title="step", y_title="loss")
