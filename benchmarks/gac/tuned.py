"""Each method at its own learning rate, and what can be said of it from a few seeds.

Rates are chosen on seeds of their own, by the sum of final and mean reward, for each setting,
method and lag. What is reported comes from other seeds, other base policies included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from benchmarks.gac.runs import Trial, results
from benchmarks.gac.trial import Outcome, Setting
from weft.report.rl_stats import estimate

__all__ = ["Cell", "Plan", "Tuned", "interval", "measure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A method, in a setting, at a lag."""

    setting: str
    method: str
    lag: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What came of a cell.

    Attributes:
        rate: the learning rate that was chosen.
        outcomes: at this rate, by seed.
    """

    rate: float
    outcomes: tuple[Outcome, ...]

    def mean(self, of: Callable[[Outcome], float]) -> float:
        """Over seeds."""
        return fmean(of(own) for own in self.outcomes)

    @property
    def final(self) -> float:
        """Reward in the last sixth."""
        return self.mean(lambda own: own.final)

    @property
    def collapses(self) -> float:
        """Share of runs that collapsed."""
        return self.mean(lambda own: float(own.collapsed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes:
        settings: by name.
        cells: of them.
        rates: to choose from.
        tuning: seeds that rates are chosen on.
        seeds: those that are reported.
    """

    settings: Mapping[str, Setting]
    cells: Sequence[Cell]
    rates: Sequence[float]
    tuning: Sequence[int]
    seeds: Sequence[int]

    def trial(self, cell: Cell, rate: float, seed: int) -> Trial:
        """A run of a cell; every seed has a base policy of its own."""
        setting = replace(self.settings[cell.setting], warm=seed)
        return Trial(setting=setting, method=cell.method, rate=rate, lag=cell.lag, seed=seed)


def measure(plan: Plan, *, kept: Path, workers: int) -> dict[Cell, Tuned]:
    """Choose rates, then measure; runs that `kept` holds are not repeated."""
    tried = {
        cell: {rate: [plan.trial(cell, rate, seed) for seed in plan.tuning] for rate in plan.rates}
        for cell in plan.cells
    }
    every = [trial for by_rate in tried.values() for own in by_rate.values() for trial in own]
    found = results(_in_order(every), kept=kept, workers=workers)

    def worth(trials: Sequence[Trial]) -> float:
        return fmean(found[trial].final + found[trial].mean for trial in trials)

    chosen = {
        cell: max(by_rate, key=lambda rate, own=by_rate: worth(own[rate]))
        for cell, by_rate in tried.items()
    }
    judged = {
        cell: [plan.trial(cell, rate, seed) for seed in plan.seeds] for cell, rate in chosen.items()
    }
    last = results(
        _in_order([trial for own in judged.values() for trial in own]), kept=kept, workers=workers
    )
    return {
        cell: Tuned(rate=chosen[cell], outcomes=tuple(last[trial] for trial in own))
        for cell, own in judged.items()
    }


def interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of a mean, by Student's t; infinite for one value."""
    found = estimate(values)
    return math.inf if found is None or found.half is None else found.half


def _in_order(trials: Sequence[Trial]) -> list[Trial]:
    """One base policy after the other, so that a process has it at hand."""
    return sorted(trials, key=lambda own: (own.setting.name, own.setting.warm, own.lag))
