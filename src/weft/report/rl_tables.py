"""Tables of runs of asynchronous training: by group, by run, and what they were run with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

from weft.core.records import Record
from weft.report.rl_runs import RlRun
from weft.report.rl_stats import Estimate, Group, Summary, in_words
from weft.report.table import Table

__all__ = ["group_table", "run_table", "settings_table", "summary_record"]

_PLAIN = ("samples_per_s", "tokens")
"""Told without intervals, for which there is no room."""

_GROUPED = ("method", "seed", "staleness", "learning_rate")


def group_table(groups: Sequence[Group]) -> Table:
    """A row for each group, in order."""
    with_task = len({(group.task, group.engine) for group in groups}) > 1
    extra = ("task", "engine") if with_task else ()
    return Table(
        columns=(
            *("method", "staleness", "learning rate", *extra, "runs", "steps"),
            *("final reward", "worst run", "run mean", "collapsed", "samples/s", "tokens"),
        ),
        rows=tuple(_group_row(group, with_task) for group in groups),
    )


def _group_row(group: Group, with_task: bool) -> tuple[str, ...]:
    finals = [s.final for s in group.summaries if s.final is not None]
    counts = sorted({len(run.steps) for run in group.runs})
    extra = (group.task, group.engine) if with_task else ()
    return (
        *(group.method, group.staleness, group.learning_rate, *extra, str(len(group.runs))),
        str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}",
        _words(group.over_runs("final")),
        in_words(min(finals)) if finals else "",
        _words(group.over_runs("mean")),
        f"{group.collapsed} of {len(group.runs)}",
        *(in_words(e.mean) if (e := group.over_runs(name)) else "" for name in _PLAIN),
    )


def _words(estimate: Estimate | None) -> str:
    return "" if estimate is None else str(estimate)


def run_table(groups: Sequence[Group]) -> Table:
    """A row for each run, with what is odd about it."""
    rows = [
        (
            *(group.method, group.staleness, group.learning_rate, run.setting("seed")),
            str(len(run.steps)),
            *(in_words(value) for value in (summary.final, summary.mean, summary.best)),
            in_words(summary.samples_per_s),
            "; ".join(_odd(run, summary, group)),
        )
        for group in groups
        for run, summary in zip(group.runs, group.summaries, strict=True)
    ]
    return Table(
        columns=(
            *("method", "staleness", "learning rate", "seed", "steps", "final reward", "run mean"),
            *("best stretch", "samples/s", "remarks"),
        ),
        rows=tuple(rows),
    )


def _odd(run: RlRun, summary: Summary, group: Group) -> list[str]:
    longest = max(len(own.steps) for own in group.runs)
    seeds = Counter(own.setting("seed") for own in group.runs)
    seed = run.setting("seed")
    told = {
        "no steps": not len(run.steps),
        "collapsed": summary.is_collapsed,
        f"no number in {run.no_numbers} steps": run.no_numbers > 0,
        f"ended {longest - len(run.steps)} steps early": 0 < len(run.steps) < longest,
        f"seed {seed} {seeds[seed]} times": bool(seed) and seeds[seed] > 1,
        f"{run.torn} lines could not be read": run.torn > 0,
    }
    return [words for words, holds in told.items() if holds]


def settings_table(runs: Sequence[RlRun]) -> Table:
    """What the runs were run with, beside what groups them: each setting with all its values."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for name, value in _flat(run.settings).items():
            if name not in _GROUPED:
                found.setdefault(name, {})[value] = None
    rows = [(name, _listed(list(values))) for name, values in sorted(found.items())]
    return Table(columns=("setting", "value"), rows=tuple(rows))


def _listed(values: Sequence[str]) -> str:
    shown = ", ".join(values[:6])
    return f"{shown} and {len(values) - 6} more" if len(values) > 6 else shown


def _flat(settings: Mapping[str, object], before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            inner = cast("Mapping[str, object]", value)
            found |= _flat(inner, f"{before}{key} ")
        elif value is not None:
            found[f"{before}{key}"] = f"{value:g}" if isinstance(value, float) else str(value)
    return found


def summary_record(run: RlRun, summary: Summary) -> Record:
    """A run's numbers as they stand on the page, beside its settings."""
    fields: dict[str, object] = {
        "source": run.source,
        "settings": dict(run.settings),
        "steps": len(run.steps),
        "final_reward": summary.final,
        "mean_reward": summary.mean,
        "best_reward": summary.best,
        "is_collapsed": summary.is_collapsed,
        "samples_per_s": summary.samples_per_s,
        "tokens": summary.tokens,
        "steps_without_number": run.no_numbers,
        "regimes": dict(run.regimes),
        "lags": {str(lag): count for lag, count in sorted(run.lags.items())},
        "torn_lines": run.torn,
    }
    return Record(kind="rl-summary", fields=fields, time_s=0.0)
