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
        bare_s: all of a step of a pipeline that is not accelerated [s]; None if it was not
            measured, and taken to be as long as a full step.
    """

    full_s: float
    share: Mapping[Mode, float]
    around_s: float = 0.0
    bare_s: float | None = None

    def whole_s(self, steps: int) -> float:
        """Of so many steps in full, not accelerated: what a speed is relative to [s]."""
        return steps * (self.full_s + self.around_s if self.bare_s is None else self.bare_s)

    def seconds(self, plan: Sequence[StepPlan]) -> float:
        """Of a plan [s]."""
        return sum(self.around_s + self.full_s * self.share[step.mode] for step in plan)

    def speedup(self, plan: Sequence[StepPlan]) -> float:
        """Over all steps in full, not accelerated."""
        return self.whole_s(len(plan)) / self.seconds(plan)


def fitted_costs(costs: Costs, runs: Sequence[tuple[Sequence[StepPlan], float]]) -> Costs:
    """Costs that explain what runs took, with least absolute errors.

    Args:
        costs: as single steps took.
        runs: plans, and what each took over all of its steps in full, not accelerated; finite and
            above 0.

    Returns:
        The costs with other shares, of modes that some run has used, and with what a full step
        takes more than one that is not accelerated.

    Source: iteratively reweighted least squares for least absolute errors, E. J. Schlossmacher,
    Journal of the American Statistical Association 68(344), 1973.
    """
    modes = sorted({step.mode for plan, _ in runs for step in plan}, key=lambda mode: mode.value)
    if set(modes) <= {Mode.FULL}:
        return costs
    whole_s = costs.full_s + costs.around_s
    first = np.array([(costs.around_s + costs.full_s * costs.share[m]) / whole_s for m in modes])
    counts = np.array(
        [[sum(step.mode is m for step in plan) / len(plan) for m in modes] for plan, _ in runs]
    )
    relative = 1.0 / np.array([ratio for _, ratio in runs])
    rows = np.concatenate([counts * relative[:, None], TRUST * np.eye(len(modes))])
    wanted = np.concatenate([np.ones(len(runs)), TRUST * first])
    found = first
    for _ in range(ROUNDS):
        missed = np.abs(rows @ found - wanted)
        weights = np.sqrt(1.0 / np.maximum(missed, NEAR))
        found, *_ = np.linalg.lstsq(rows * weights[:, None], wanted * weights, rcond=None)
    taken = dict(zip(modes, np.clip(found, LEAST_SHARE, None), strict=True))
    bare_s = whole_s / float(taken.pop(Mode.FULL, 1.0))
    own = {
        mode: min(max(float(share * bare_s - costs.around_s) / costs.full_s, LEAST_SHARE), 1.0)
        for mode, share in taken.items()
    }
    return replace(costs, share={**costs.share, **own}, bare_s=bare_s)
