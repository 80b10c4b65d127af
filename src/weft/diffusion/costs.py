"""What steps take, and how runs tell it.

Steps that are timed one by one tell what modes take, but not what else a run does; whole runs tell
that, but each of them is disturbed by whatever else a machine does. So costs are fitted to many
runs of different plans together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from weft.diffusion.plan import Mode, StepPlan

__all__ = ["USUAL", "Costs", "fitted_costs"]

FULL = StepPlan()
USUAL = {Mode.CFG: 0.5, Mode.STEP: 0.01}
"""Shares of a full step where none were measured. Measured on small denoisers: 0.5 to 0.7, and
0.002 to 0.02."""
TRUST = 0.3
"""Weight of what single steps took, where that of a run is 1. Chosen: three runs outweigh it."""
ROUNDS = 30
"""Of least squares, in which runs count the less the farther off they are. Measured: shares settle
to four digits within twenty."""
NEAR = 1e-3
"""Share of a run's time within which all of them count alike. Chosen: what clocks tell apart."""
LEAST_SHARE = 1e-4
"""Of a step of which runs say that it takes no time. Chosen: below what was ever measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What steps take.

    Attributes:
        full_s: everything [s].
        share: of a full step, by mode.
        around_s: of a step, outside of the denoiser [s].
    """

    full_s: float
    share: Mapping[Mode, float]
    around_s: float = 0.0

    def seconds(self, plan: Sequence[StepPlan]) -> float:
        """Of a plan [s]."""
        return sum(self.around_s + self.full_s * self.share[step.mode] for step in plan)

    def speedup(self, plan: Sequence[StepPlan]) -> float:
        """Over all steps in full."""
        return self.seconds([FULL] * len(plan)) / self.seconds(plan)


def fitted_costs(costs: Costs, runs: Sequence[tuple[Sequence[StepPlan], float]]) -> Costs:
    """Costs that explain what runs took, with least absolute errors.

    Args:
        costs: as single steps took.
        runs: plans, and what each took over all of its steps in full, finite and above 0.

    Returns:
        The costs with other shares, of modes that some run has used.

    Source: iteratively reweighted least squares for least absolute errors, E. J. Schlossmacher,
    Journal of the American Statistical Association 68(344), 1973.
    """
    used = {step.mode for plan, _ in runs for step in plan}
    modes = sorted(used - {Mode.FULL}, key=lambda mode: mode.value)
    if not modes:
        return costs
    whole_s = costs.full_s + costs.around_s
    first = np.array([(costs.around_s + costs.full_s * costs.share[m]) / whole_s for m in modes])
    counts = np.array(
        [[sum(step.mode is m for step in plan) / len(plan) for m in modes] for plan, _ in runs]
    )
    left = np.array([ratio for _, ratio in runs]) - (1.0 - counts.sum(1))
    relative = 1.0 / np.array([ratio for _, ratio in runs])
    rows = np.concatenate([counts * relative[:, None], TRUST * np.eye(len(modes))])
    wanted = np.concatenate([left * relative, TRUST * first])
    found = first
    for _ in range(ROUNDS):
        missed = np.abs(rows @ found - wanted)
        weights = np.sqrt(1.0 / np.maximum(missed, NEAR))
        found, *_ = np.linalg.lstsq(rows * weights[:, None], wanted * weights, rcond=None)
    shares = (np.clip(found, 0.0, 1.0) * whole_s - costs.around_s) / costs.full_s
    own = {m: max(float(s), LEAST_SHARE) for m, s in zip(modes, shares, strict=True)}
    return replace(costs, share={**costs.share, **own})
