"""What is compared: what others do about staleness, and what weft does."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.gac.trial import Method
from weft.rl import (
    M2PO,
    Correction,
    Decoupled,
    KLPenalty,
    PPOClip,
    Truncated,
)
from weft.rl.policy_gradient import PolicyGradient

__all__ = ["CORRECTIONS", "METHODS", "RECIPE", "STRENGTH", "WITHOUT_RATIOS", "WITH_RATIOS"]

STRENGTH = 50.0
"""Of delay compensation in its normalised form, for every task, model and learning rate."""

WITHOUT_RATIOS, WITH_RATIOS = 0.3, 0.03
"""Of the penalty of divergence, where ratios do not correct the gradient and where they do. Chosen
on other seeds of the first setting, as everything here that has no better source."""

CORRECTIONS = ("PPO clip", "TIS", "decoupled PPO", "M2PO", "KL", "TIS(1) + KL")
"""What others do in the loss. TIS caps ratios at 2, as trainers do; TIS(1) weighs nothing up."""

RECIPE = "TIS(1) + KL + GAC"
"""What weft recommends. Chosen on base policies that nothing is reported of: a cap of 1 was better
than one of 2 on four of them, two easy and two hard, most so at high learning rates."""


def _methods() -> Mapping[str, Method]:
    losses: Mapping[str, Correction] = {
        "PPO clip": PPOClip(),
        "TIS": Truncated(),
        "decoupled PPO": Decoupled(),
        "M2PO": M2PO(),
        "KL": KLPenalty(strength=WITHOUT_RATIOS, inside=PolicyGradient(), estimator="k2"),
        "TIS(1) + KL": KLPenalty(strength=WITH_RATIOS, inside=Truncated(cap=1.0), estimator="k2"),
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
            for name in ("PPO clip", "TIS", "KL", "TIS(1) + KL")
        ),
        Method(name="TIS + DC", correction=losses["TIS"], compensation=STRENGTH),
    ]
    return {own.name: own for own in found}


METHODS = _methods()
"""By name."""
