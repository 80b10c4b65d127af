"""Numbers of runs and of groups of runs: what ended where, and how sure the seeds make it.

A group is the runs that differ in nothing but their seeds. Intervals are those of Student's t over
runs, since steps of one run are no independent draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from weft.report.rl_runs import Numbers, RlRun

__all__ = [
    "Curve",
    "Estimate",
    "Group",
    "Summary",
    "curve",
    "difference",
    "estimate",
    "grouped",
    "in_words",
]

_KEYS = ("staleness", "method", "learning_rate", "task", "engine")
_NO_MATTER = ("seed", "hardware", "versions", "recipe")
"""Settings that may differ within a group."""

_SHARE = 6
"""Final rewards are means over the last sixth of a run.
Source: docs/decisions/0010-stale-gradients.md, whose measurements are of the same sixth."""

_DEVIATIONS = 4.0
"""A loss of reward counts from so many standard errors of a mean over a sixth of a run.
Chosen: the peak is picked among means that are no more than six apart, so that noise alone passes
this bound about once in thousands of runs."""

_T_TABLE = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Student's t at 0.975 for 1 to 30 degrees of freedom. Source: any table of it."""

_NORMAL = 1.959964
"""The normal distribution at 0.975. Source: any table of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One run in numbers; None where its records do not tell.

    Attributes:
        final: mean reward of the last sixth of its steps.
        mean: mean reward of all.
        best: the highest mean of as many steps in a row as `final` is of.
        is_collapsed: it ended without a number, or lost more than half of what it had won since its
            first steps, by more than noise.
        samples_per_s: trained.
        tokens: per sample, over the last sixth.
    """

    final: float | None
    mean: float | None
    best: float | None
    is_collapsed: bool
    samples_per_s: float | None
    tokens: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over runs, and half of its 95 % interval; None from a single run."""

    mean: float
    half: float | None
    count: int

    def __str__(self) -> str:
        if self.half is None:
            return in_words(self.mean)
        if self.half <= 0.0:
            return f"{in_words(self.mean)} ± 0"
        decimals = min(6, max(0, 1 - math.floor(math.log10(self.half))))
        return f"{self.mean:.{decimals}f} ± {self.half:.{decimals}f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Runs that differ in their seeds alone.

    Attributes:
        method, staleness, learning_rate, task, engine: what they share, in words.
        runs: those runs.
        summaries: of each.
    """

    method: str
    staleness: str
    learning_rate: str
    task: str
    engine: str
    runs: tuple[RlRun, ...]
    summaries: tuple[Summary, ...]

    def over_runs(self, name: str) -> Estimate | None:
        """A number of the summaries, over the runs that know it."""
        return estimate(getattr(summary, name) for summary in self.summaries)

    @property
    def collapsed(self) -> int:
        """How many collapsed."""
        return sum(summary.is_collapsed for summary in self.summaries)

    @property
    def budget(self) -> float | None:
        """Tokens that an answer may have on the average, where the runs were told the same."""
        told = {run.number("token_budget") for run in self.runs}
        return told.pop() if len(told) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A number over steps: mean over runs, and its band, NaN from one run.

    The band is the 95 % interval of the mean. Of two runs, of which that is 13 times as wide as
    they are apart, it reaches from the one to the other.
    """

    steps: Numbers
    mean: Numbers
    low: Numbers
    high: Numbers


def in_words(value: float | None) -> str:
    """A number in as many digits as a table has room for; nothing for None.

    Example:
        >>> in_words(0.93), in_words(2128.44), in_words(0.00213), in_words(3.14159)
        ('0.930', '2128', '0.002', '3.14')
    """
    if value is None:
        return ""
    size = abs(value)
    if size >= 100.0:
        return f"{value:.0f}" if size < 1e6 else f"{value:.3g}"
    return f"{value:.3f}" if 0.0005 <= size < 1.0 or size == 0.0 else f"{value:.3g}"


def grouped(runs: Iterable[RlRun]) -> tuple[Group, ...]:
    """Groups by staleness, then method and learning rate.

    Where runs that these do not tell apart differ in another setting, it is added to the name of
    their method: "ppo+dc, compensation 200".
    """
    found: dict[tuple[str, ...], list[RlRun]] = {}
    for run in runs:
        found.setdefault(tuple(run.setting(name) for name in _KEYS), []).append(run)
    parts = [
        ((key[0], ", ".join((key[1] or "unnamed", *more)), *key[2:]), own)
        for key, alike in found.items()
        for more, own in _split(alike).items()
    ]
    return tuple(
        Group(
            staleness=key[0],
            method=key[1],
            learning_rate=key[2],
            task=key[3],
            engine=key[4],
            runs=tuple(own),
            summaries=tuple(_summary(run) for run in own),
        )
        for key, own in sorted(parts, key=lambda part: [_order(word) for word in part[0]])
    )


def _split(runs: Sequence[RlRun]) -> dict[tuple[str, ...], list[RlRun]]:
    """Runs by the settings that they differ in, each in words."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    differ = [
        name
        for name in names
        if name not in _NO_MATTER and len({run.setting(name) for run in runs}) > 1
    ]
    found: dict[tuple[str, ...], list[RlRun]] = {}
    for run in runs:
        words = tuple(f"{name} {run.setting(name) or 'none'}" for name in differ)
        found.setdefault(words, []).append(run)
    return found


def _order(word: str) -> tuple[float, str]:
    try:
        return float(word), ""
    except ValueError:
        return math.inf, word


def _summary(run: RlRun) -> Summary:
    reward = run.series["reward"]
    tail = max(1, len(reward) // _SHARE)
    known = reward[np.isfinite(reward)]
    final = _mean(reward[-tail:])
    return Summary(
        final=final,
        mean=_mean(reward),
        best=max(_rolling(known, min(tail, len(known))), default=None),
        is_collapsed=_is_collapsed(run, tail),
        samples_per_s=_rate(run),
        tokens=_mean(run.series["tokens"][-tail:]),
    )


def _is_collapsed(run: RlRun, tail: int) -> bool:
    reward = run.series["reward"]
    final = _mean(reward[-tail:])
    if final is None:
        return run.no_numbers > 0
    known = reward[np.isfinite(reward)]
    if len(known) < 2 * _SHARE:
        return False
    width = min(tail, len(known) // _SHARE)
    means = _rolling(known, width)
    # Differences of neighbours tell noise from where the run is going.
    noise = float(np.std(np.diff(known))) / math.sqrt(2.0)
    lost = max(means) - final
    return lost > (max(means) - means[0]) / 2 and lost > _DEVIATIONS * noise / math.sqrt(width)


def _rolling(values: Numbers, width: int) -> list[float]:
    if width < 1:
        return []
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return [float(v) for v in (sums[width:] - sums[:-width]) / width]


def _mean(values: Numbers) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _rate(run: RlRun) -> float | None:
    """Samples by time; a clock that begins anew is that of a run that was resumed."""
    seconds, samples = run.series["seconds"], run.series["samples"]
    both = np.isfinite(seconds) & np.isfinite(samples)
    if not both.any():
        return None
    times = seconds[both]
    passed = np.diff(times, prepend=0.0)
    elapsed = float(np.where(passed >= 0.0, passed, times).sum())
    return float(samples[both].sum()) / elapsed if elapsed > 0.0 else None


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Mean and interval of what is known; None of nothing.

    Example:
        >>> str(estimate([0.8, 0.9, 1.0, None]))
        '0.90 ± 0.25'
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    mean = sum(known) / len(known)
    if len(known) == 1:
        return Estimate(mean=mean, half=None, count=1)
    error = float(np.std(known, ddof=1)) / math.sqrt(len(known))
    return Estimate(mean=mean, half=_t(len(known) - 1) * error, count=len(known))


def difference(ones: Iterable[float | None], others: Iterable[float | None]) -> Estimate | None:
    """How much more the first have on the average, with its interval where both are several.

    Source: Welch 1947, with degrees of freedom rounded down.
    """
    parts = [estimate(ones), estimate(others)]
    if parts[0] is None or parts[1] is None:
        return None
    mean, count = parts[0].mean - parts[1].mean, min(parts[0].count, parts[1].count)
    if count < 2:
        return Estimate(mean=mean, half=None, count=count)
    errors = [((p.half or 0.0) / _t(p.count - 1)) ** 2 for p in parts if p]
    weights = sum(e * e / (p.count - 1) for e, p in zip(errors, parts, strict=True) if p)
    total = sum(errors)
    freedom = max(1, math.floor(total * total / weights)) if weights > 0.0 else 1
    return Estimate(mean=mean, half=_t(freedom) * math.sqrt(total), count=count)


def _t(freedom: int) -> float:
    """Student's t at 0.975. Source above the table: Abramowitz and Stegun, 26.7.5."""
    if freedom <= len(_T_TABLE):
        return _T_TABLE[freedom - 1]
    z = _NORMAL
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


def curve(runs: Sequence[RlRun], name: str, *, points: int) -> Curve | None:
    """A field over steps, in at most `points` means over neighbouring steps of each run.

    Returns:
        None where no run knows the field.
    """
    known = [run for run in runs if np.isfinite(run.series[name]).any()]
    if not known:
        return None
    first = min(float(run.steps[0]) for run in known)
    last = max(float(run.steps[-1]) for run in known)
    bins = max(1, min(points, max(len(run.steps) for run in known)))
    table = np.array([_binned(run, name, first, last, bins) for run in known])
    counts = np.isfinite(table).sum(axis=0)
    filled = np.where(np.isfinite(table), table, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(axis=0) / np.where(counts > 0, counts, np.nan)
        squares = np.where(np.isfinite(table), (table - mean) ** 2, 0.0).sum(axis=0)
        error = np.sqrt(squares / (counts - 1) / counts)
    factors = np.array([_t(int(n) - 1) if n > 2 else 1.0 for n in counts])
    half = np.where(counts > 1, factors * error, np.nan)
    width = (last - first + 1) / bins
    steps = first + (np.arange(bins, dtype=np.float64) + 0.5) * width - 0.5
    has = counts > 0  # steps that nobody recorded do not interrupt a line
    return Curve(steps=steps[has], mean=mean[has], low=(mean - half)[has], high=(mean + half)[has])


def _binned(run: RlRun, name: str, first: float, last: float, bins: int) -> Numbers:
    values = run.series[name]
    is_known = np.isfinite(values)
    at = ((run.steps[is_known] - first) * bins / (last - first + 1)).astype(np.int64)
    at = np.clip(at, 0, bins - 1)
    sums = np.bincount(at, weights=values[is_known], minlength=bins)
    counts = np.bincount(at, minlength=bins)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
