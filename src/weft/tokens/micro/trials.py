"""What was tried: tokens that went in, what came out, of which task, under which arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from weft.core.errors import InputError
from weft.tokens.micro.estimate import Floats, Ints

__all__ = ["Trials"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trials:
    """Attempts at tasks, one an entry.

    Attributes:
        inputs: of each factor, by name, how many tokens an attempt used [n]; above zero.
        outcome: whether it passed (0 or 1), or a quality above zero [n].
        task: which task it was an attempt at; attempts at one task are a cluster [n].
        arm: which setting was drawn for it: a cap on tokens, an effort. Empty where nothing was
            drawn [n].
        model: who attempted it; each model has a level of its own. Empty for one model [n].
        usd: what it cost, where that is known [n].

    Raises:
        InputError: columns of different lengths, no token where there has to be one, or numbers
            that are none.

    Example:
        >>> trials = Trials(inputs={"tokens": [100, 400]}, outcome=[0, 1], task=["a", "b"])
        >>> len(trials), trials.names, trials.is_binary
        (2, ('tokens',), True)
    """

    inputs: Mapping[str, Sequence[float] | Floats]
    outcome: Sequence[float] | Floats
    task: Sequence[str]
    arm: Sequence[str] = ()
    model: Sequence[str] = ()
    usd: Sequence[float] | Floats | None = None
    y: Floats = field(init=False, repr=False)
    logs: Floats = field(init=False, repr=False)
    """Logarithms of inputs [n, k]."""
    clusters: Ints = field(init=False, repr=False)
    models: tuple[str, ...] = field(init=False)
    """Names of all models, sorted."""
    which_model: Ints = field(init=False, repr=False)
    which_cell: Ints = field(init=False, repr=False)
    """Which pair of model and arm each trial is of [n]."""
    num_cells: int = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.task)
        columns = [*self.inputs.values(), self.outcome]
        columns += [c for c in (self.arm, self.model, self.usd) if c is not None and len(c)]
        if not count or not self.inputs or any(len(column) != count for column in columns):
            raise InputError(
                need="at least one input, an outcome and a task for each attempt",
                got=f"{count} tasks, columns of {', '.join(str(len(c)) for c in columns)}",
                hint="leave out attempts of which something is not known",
            )
        amounts = np.column_stack([np.asarray(v, dtype=np.float64) for v in self.inputs.values()])
        y = np.asarray(self.outcome, dtype=np.float64)
        if not np.all(np.isfinite(amounts) & (amounts > 0.0)) or not np.all(np.isfinite(y)):
            bad = int(np.argmin(np.all(np.isfinite(amounts) & (amounts > 0.0), axis=1)))
            raise InputError(
                need="inputs above zero, and outcomes that are numbers",
                got=f"{amounts[bad].tolist()} of {', '.join(self.inputs)} in attempt {bad}",
                hint="an input that is often zero is no factor: sum it with another one",
            )
        models, which_model = np.unique(list(self.model) or [""] * count, return_inverse=True)
        pairs = [f"{m}\0{a}" for m, a in zip(which_model, self.arm or [""] * count, strict=True)]
        cells, which_cell = np.unique(pairs, return_inverse=True)
        found = {
            "y": y,
            "logs": np.log(amounts),
            "clusters": np.unique(list(self.task), return_inverse=True)[1].astype(np.int64),
            "models": tuple(str(name) for name in models),
            "which_model": which_model.astype(np.int64),
            "which_cell": which_cell.astype(np.int64),
            "num_cells": len(cells),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.task)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(self.inputs)

    @property
    def is_binary(self) -> bool:
        """Whether all outcomes are 0 or 1."""
        return bool(np.all((self.y == 0.0) | (self.y == 1.0)))

    @property
    def num_tasks(self) -> int:
        """Clusters."""
        return int(self.clusters.max()) + 1

    def resampled(self, rng: np.random.Generator) -> Trials:
        """As many tasks, drawn with replacement; one that is drawn twice is two tasks."""
        order = np.argsort(self.clusters, kind="stable")
        starts = np.searchsorted(self.clusters[order], np.arange(self.num_tasks + 1))
        drawn = rng.integers(self.num_tasks, size=self.num_tasks)
        rows = [order[starts[task] : starts[task + 1]] for task in drawn]
        names = np.repeat(np.arange(len(drawn)), [len(own) for own in rows])
        return self._picked(np.concatenate(rows), [str(name) for name in names])

    def only(self, rows: Sequence[int] | Ints) -> Trials:
        """Some of the attempts."""
        places = np.asarray(rows, dtype=np.int64)
        return self._picked(places, _some(self.task, places))

    def _picked(self, rows: Ints, tasks: Sequence[str]) -> Trials:
        return Trials(
            inputs={name: np.asarray(own)[rows] for name, own in self.inputs.items()},
            outcome=self.y[rows],
            task=tasks,
            arm=_some(self.arm, rows),
            model=_some(self.model, rows),
            usd=None if self.usd is None else np.asarray(self.usd)[rows],
        )


def _some(names: Sequence[str], rows: Ints) -> list[str]:
    return [names[int(row)] for row in rows] if names else []
