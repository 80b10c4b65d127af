"""From trials to a production function, by the way in which it is identified.

    link      experimental                       within                observational
    log       two-stage least squares            task means taken off  least squares
    identity  the same                           the same              the same
    logit     control function                   conditional logit     logit

Arms are used as indicators of cells, so a first stage is a mean by cell, and takes no shape.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from weft.core.errors import InputError
from weft.tokens.micro.conditional import conditional_fit, informative
from weft.tokens.micro.controls import Controls
from weft.tokens.micro.estimate import Estimate, Floats, cluster_sums
from weft.tokens.micro.families import CobbDouglas, Family
from weft.tokens.micro.identification import Link, Mode
from weft.tokens.micro.index import Index
from weft.tokens.micro.least_squares import (
    Projection,
    everything,
    least_squares,
    off_means,
    onto,
)
from weft.tokens.micro.logit import logit_fit
from weft.tokens.micro.production import Production
from weft.tokens.micro.strength import WEAK, first_stage
from weft.tokens.micro.trials import Trials

__all__ = ["fit_production"]

FEW_CLUSTERS = 20
"""Source: Cameron and Miller 2015, section VI: where "few" begins, from 20 to 50."""
HINT = (
    "add arms that move the inputs apart, drop an input, or take a family of fewer parameters; a "
    "model that meets tasks or arms of its own cannot be told from them"
)


def fit_production(
    trials: Trials,
    *,
    mode: Mode,
    family: Family | None = None,
    link: Link | None = None,
    paired: bool = False,
    level: float = 0.95,
) -> Production:
    """Fit outcomes to inputs.

    Args:
        trials: attempts at tasks.
        mode: where the variation comes from that is used; there is no default.
        family: shape; Cobb and Douglas's if None.
        link: of the index; if None, log odds where all outcomes are 0 or 1, else logarithms.
        paired: whether arms are compared within each task, which is sharper where tasks met
            several; for log and identity.
        level: of intervals.

    Raises:
        InputError: trials do not identify what is asked; says what is missing.

    Example:
        >>> from weft.tokens.micro import simulated
        >>> world = simulated(tasks=200, attempts=4, elasticity=0.5, difficulty=2.0, seed=1)
        >>> told = fit_production(world.trials, mode=Mode.OBSERVATIONAL).elasticities()["tokens"]
        >>> arms = fit_production(world.trials, mode=Mode.EXPERIMENTAL).elasticities()["tokens"]
        >>> told.high < 0.0, 0.5 in arms
        (True, True)
    """
    link = link or (Link.LOGIT if trials.is_binary else Link.LOG)
    job = _Job(
        trials=trials,
        mode=mode,
        family=family or CobbDouglas(),
        link=link,
        paired=paired,
        logs=trials.logs - trials.logs.mean(axis=0),
    )
    job.check()
    parameters, controls = job.binary() if link is Link.LOGIT else job.linear()
    strength = job.strength() if mode is Mode.EXPERIMENTAL else ()
    return Production(
        family=job.family,
        link=link,
        mode=mode,
        factors=trials.names,
        centre=trials.logs.mean(axis=0),
        tried=np.stack([job.logs.min(axis=0), job.logs.max(axis=0)]),
        models=trials.models,
        parameters=parameters,
        controls=controls,
        first_stage=strength,
        num_trials=len(trials),
        num_tasks=trials.num_tasks,
        num_arms=len(set(trials.arm)),
        warnings=_warnings(job, strength),
        level=level,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Job:
    """One fit under way."""

    trials: Trials
    mode: Mode
    family: Family
    link: Link
    paired: bool
    logs: Floats

    @property
    def by_task(self) -> bool:
        """Whether levels of tasks are taken out, and with them the level of all."""
        return self.mode is Mode.WITHIN or self.paired

    @property
    def levels(self) -> Floats:
        """Indicators of models; relative to the first where tasks have levels [n, m]."""
        every = np.eye(len(self.trials.models))[self.trials.which_model]
        return every[:, 1:] if self.by_task else every

    @property
    def cells(self) -> Floats:
        """Indicators of models and arms [n, cells]."""
        return np.eye(self.trials.num_cells)[self.trials.which_cell]

    def check(self) -> None:
        """Check that what was asked can be done with such trials."""
        trials, parameters = self.trials, self.family.parameters(self.trials.names)
        if (self.link is Link.LOGIT and not trials.is_binary) or (
            self.link is Link.LOG and float(trials.y.min()) <= 0.0
        ):
            raise InputError(
                need="outcomes of 0 or 1 for logit, above zero for log",
                got=f"outcomes from {trials.y.min():g} to {trials.y.max():g} for {self.link}",
                hint="link identity takes any",
            )
        if self.paired and (self.link is Link.LOGIT or self.mode is not Mode.EXPERIMENTAL):
            raise InputError(
                need="mode experimental with link log or identity, for arms compared within tasks",
                got=f"mode {self.mode}, link {self.link}",
                hint="link identity is a linear probability; mode within compares without arms",
            )
        if self.mode is not Mode.EXPERIMENTAL:
            return
        if trials.arm and not all(trials.arm):
            raise InputError(
                need="an arm, drawn at random, for every attempt",
                got=f"none for {sum(not arm for arm in trials.arm)} of {len(trials)}",
                hint="leave out attempts for which nothing was drawn; name the free arm, too",
            )
        wanted = len(trials.names) if self.link is Link.LOGIT else len(parameters)
        extra = trials.num_cells - len(trials.models)
        if not trials.arm or extra < wanted:
            raise InputError(
                need=f"at least {wanted + 1} arms, drawn at random, for {wanted} unknowns of "
                f"{self.family.name} with {', '.join(trials.names)}",
                got=f"{extra + 1} for each model" if trials.arm else "no arms",
                hint="draw a cap or an effort for each attempt and note it as `arm`; models are no "
                "arms, for they change more than tokens",
            )

    def projection(self) -> Projection:
        """The space in which residuals are least."""
        tasks = off_means(self.trials.clusters)
        if self.mode is Mode.WITHIN:
            return tasks
        if self.mode is Mode.OBSERVATIONAL:
            return everything
        return onto(tasks(self.cells) if self.paired else self.cells)

    def linear(self) -> tuple[Estimate, None]:
        """For log and identity."""
        trials = self.trials
        y = np.log(trials.y) if self.link is Link.LOG else trials.y
        index = Index(family=self.family, logs=self.logs, fixed=self.levels)
        starts = index.starts(trials.names, float(y.mean()) * (not self.by_task))
        theta, influence = least_squares(y, index, self.projection(), starts, HINT)
        if self.by_task:
            off = y - index.value(theta)
            own = off - off.mean() - influence @ index.slopes(theta).mean(axis=0)
            theta, influence = self._with_level(theta, influence, float(off.mean()), own)
        return self._estimate(theta, influence), None

    def binary(self) -> tuple[Estimate, Controls | None]:
        """For log odds."""
        if self.mode is Mode.WITHIN:
            return self._conditional(), None
        trials = self.trials
        controls = None
        fixed = self.levels
        if self.mode is Mode.EXPERIMENTAL:
            controls = Controls.of(self.logs, trials.which_cell, trials.clusters)
            fixed = np.hstack([fixed, controls.rest])
        index = Index(family=self.family, logs=self.logs, fixed=fixed)
        found = logit_fit(trials.y, index, index.starts(trials.names, 0.0), HINT)
        influence = found.influence(trials.y)
        if controls is not None:
            first, k = len(trials.models), len(trials.names)
            weight = found.chance * (1.0 - found.chance)
            by_rest = -np.einsum(
                "n,k,np->nkp", weight, found.theta[first : first + k], found.slopes
            )
            by_rest[:, np.arange(k), first + np.arange(k)] += (trials.y - found.chance)[:, None]
            influence = influence + controls.added(by_rest) @ found.bread
        return self._estimate(found.theta, influence), controls

    def _conditional(self) -> Estimate:
        trials = self.trials
        index = Index(family=self.family, logs=self.logs, fixed=self.levels)
        starts = index.starts(trials.names, 0.0)
        theta, influence = conditional_fit(trials.y, trials.clusters, index, starts, HINT)
        # The level at the centre is that of a task that passes as often as those with both
        # outcomes do: levels of tasks are not estimated.
        some = informative(trials.y, trials.clusters)
        rate = float(trials.y @ some / some.sum())
        own = some * (trials.y - rate) / (some.mean() * rate * (1.0 - rate))
        theta, influence = self._with_level(theta, influence, np.log(rate / (1.0 - rate)), own)
        return self._estimate(theta, influence)

    def _with_level(
        self, theta: Floats, influence: Floats, level: float, own: Floats
    ) -> tuple[Floats, Floats]:
        """A level of the first model before those of the others, which are relative to it."""
        others = len(self.trials.models) - 1
        theta = np.concatenate([[level], level + theta[:others], theta[others:]])
        first = own[:, None]
        influence = np.hstack([first, first + influence[:, :others], influence[:, others:]])
        return theta, influence

    def _estimate(self, theta: Floats, influence: Floats) -> Estimate:
        return Estimate(values=theta, influence=cluster_sums(influence, self.trials.clusters))

    def strength(self) -> tuple[float, ...]:
        """F of the first stage of each input."""
        project = off_means(self.trials.clusters) if self.paired else everything
        return first_stage(self.logs, self.cells, self.levels, self.trials.clusters, project)


def _lone_arms(trials: Trials) -> int:
    """How many arms met a single task."""
    met: defaultdict[str, set[str]] = defaultdict(set)
    for arm, task in zip(trials.arm, trials.task, strict=bool(trials.arm)):
        met[arm].add(task)
    return sum(len(own) == 1 for own in met.values())


def _warnings(job: _Job, strength: tuple[float, ...]) -> tuple[str, ...]:
    found: list[str] = []
    for factor, f in zip(job.trials.names, strength, strict=bool(strength)):
        if f < WEAK:
            found.append(
                f"weak arms: they hardly move {factor} by itself (F {f:.1f}, wanted {WEAK:.0f}); "
                "estimates lean towards the association and intervals are too short"
            )
    lone = _lone_arms(job.trials) if job.mode is Mode.EXPERIMENTAL else 0
    if lone:
        found.append(
            f"{lone} arms met one task each: what they do cannot be told from what it is like, and "
            "estimates lean towards the association; draw among few arms, for every attempt"
        )
    tasks = job.trials.num_tasks
    if tasks < FEW_CLUSTERS:
        found.append(f"few tasks: intervals from {tasks} clusters are too short, as a rule")
    if job.mode is Mode.WITHIN and job.link is Link.LOGIT:
        some = informative(job.trials.y, job.trials.clusters)
        kept = len(np.unique(job.trials.clusters[some > 0]))
        if kept < FEW_CLUSTERS:
            found.append(
                f"only {kept} of {tasks} tasks both passed and failed; the rest say nothing"
            )
    return tuple(found)
