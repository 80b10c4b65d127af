"""What is compared: what others do about staleness, and what weft does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from benchmarks.gac.trial import Method
from weft.rl import (
    M2PO,
    Batch,
    Corrected,
    Correction,
    Decoupled,
    KLPenalty,
    PPOClip,
    Truncated,
)
from weft.rl.corrections import Average

__all__ = ["CORRECTIONS", "METHODS", "RECIPE", "STRENGTH", "WITHOUT_RATIOS", "WITH_RATIOS"]

STRENGTH = 50.0
"""Of delay compensation in its normalised form, for every task, model and learning rate."""

WITHOUT_RATIOS, WITH_RATIOS = 0.3, 0.03
"""Of the penalty of divergence, where ratios do not correct the gradient and where they do. Chosen
on other seeds of the first setting, as everything here that has no better source."""

CORRECTIONS = ("PPO clip", "TIS", "decoupled PPO", "M2PO", "KL", "TIS + KL")
"""What others do in the loss."""

RECIPE = "TIS + KL + GAC"
"""What weft recommends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blind:
    """The plain policy gradient with a penalty: no ratio weighs a gradient, but the penalty's."""

    strength: float

    def __call__(self, batch: Batch) -> Corrected:
        plain = KLPenalty(strength=self.strength, inside=_Plain(), estimator="k2")
        return plain(batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plain:
    average: Average = "tokens"

    def __call__(self, batch: Batch) -> Corrected:
        return Truncated()(replace(batch, behaviour=batch.current.detach()))


def _methods() -> Mapping[str, Method]:
    losses: Mapping[str, Correction] = {
        "PPO clip": PPOClip(),
        "TIS": Truncated(),
        "decoupled PPO": Decoupled(),
        "M2PO": M2PO(),
        "KL": _Blind(strength=WITHOUT_RATIOS),
        "TIS + KL": KLPenalty(strength=WITH_RATIOS, inside=Truncated(), estimator="k2"),
    }
    found = [
        Method(name="none"),
        Method(name="lr/(1 + lag/10)", slower=0.1),
        Method(name="beta1 = 0", beta1=0.0),
        Method(name="shrink", gac={"mode": "shrink"}),
        Method(name="GAC", gac={}),
        Method(name="DC", compensation=STRENGTH),
        *(Method(name=name, correction=loss) for name, loss in losses.items()),
        *(
            Method(name=f"{name} + GAC", correction=losses[name], gac={})
            for name in ("PPO clip", "TIS", "KL", "TIS + KL")
        ),
        Method(name="TIS + DC", correction=losses["TIS"], compensation=STRENGTH),
    ]
    return {own.name: own for own in found}


METHODS = _methods()
"""By name."""
