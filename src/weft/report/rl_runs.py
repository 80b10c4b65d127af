"""Runs of asynchronous training, read from their records.

Knows the records `rl-run` and `rl-step` (docs/decisions/0011-asynchronous-training.md) and what may
be wrong with files of them: lines that a kill tore, fields that an engine could not know, numbers
that are none, steps that were repeated after a checkpoint. Does not know what is drawn of them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import FileError, InputError
from weft.core.records import Record, number_in

__all__ = ["FIELDS", "Numbers", "RlRun", "read_runs"]

Numbers: TypeAlias = NDArray[np.float64]

FIELDS = (
    *("reward", "fresh_reward", "loss", "cosine_raw", "cosine_applied", "norm_raw"),
    *("norm_applied", "staleness", "kl", "entropy", "clipped", "effective", "tokens"),
    *("multiplier", "samples", "seconds"),
)
"""Fields of a step that are numbers."""

_REGIMES = ("first", "safe", "project", "skip", "invalid")
"""Names of the regimes by number, as weft.rl.Regime counts them."""

_IDENTITY = ("task", "engine", "method", "seed", "staleness", "learning_rate")
"""What tells one run from another; a file that names the same again goes on with the same run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RlRun:
    """One run.

    Attributes:
        source: the file it was read from.
        settings: fields of its `rl-run` record.
        steps: step numbers, ascending.
        series: numbers by field, one for each step; NaN where unknown or no number.
        no_numbers: in how many steps reward or loss was NaN or infinite.
        regimes: in how many steps which regime was applied.
        lags: how many samples were trained at which lag.
        torn: lines of the file that could not be read.
    """

    source: str
    settings: Mapping[str, object]
    steps: Numbers
    series: Mapping[str, Numbers]
    no_numbers: int
    regimes: Mapping[str, int]
    lags: Mapping[int, float]
    torn: int

    def setting(self, name: str) -> str:
        """A setting in words; empty where it is not known."""
        value = self.settings.get(name)
        if value is None:
            return ""
        return f"{value:g}" if isinstance(value, int | float) else str(value)

    def number(self, name: str) -> float | None:
        """A setting that is a finite number, or None."""
        value = number_in(self.settings.get(name))
        return value if value is not None and math.isfinite(value) else None


@dataclass(slots=True)
class _Open:
    """A run that is being read."""

    settings: dict[str, object]
    steps: dict[float, Mapping[str, object]] = field(
        default_factory=dict[float, Mapping[str, object]]
    )


def read_runs(paths: Sequence[Path]) -> tuple[RlRun, ...]:
    """Runs in the order of files, each file with one or more of them.

    A file that names a run again, as one that was resumed does, goes on with it: of a step that was
    repeated, the last one counts.

    Args:
        paths: record files, or folders with a `records.jsonl`.

    Raises:
        InputError: no file, or one of them twice.
        FileError: a file that cannot be read or holds no run.
    """
    files = [path / "records.jsonl" if path.is_dir() else path for path in paths]
    twice = [str(path) for path, n in Counter(path.resolve() for path in files).items() if n > 1]
    if not files or twice:
        raise InputError(
            need="at least one file of records, each once",
            got=f"{', '.join(twice)} more than once" if twice else "none",
            hint="a run that counts twice makes intervals too narrow",
        )
    return tuple(run for path in files for run in _read(path))


def _read(path: Path) -> Iterator[RlRun]:
    records, torn = _records(path)
    found: dict[str, _Open] = {}
    now: _Open | None = None
    orphans = 0
    for record in records:
        if record.kind == "rl-run":
            name = json.dumps([record.fields.get(one) for one in _IDENTITY], default=str)
            now = found.setdefault(name, _Open(settings={}))
            now.settings |= record.fields
        elif record.kind == "rl-step":
            step = number_in(record.fields.get("step"))
            if now is None or step is None or not math.isfinite(step):
                orphans += 1
            else:
                now.steps[step] = record.fields
    if not found:
        raise FileError(
            need="records of a run: one rl-run, then rl-step records",
            got=f"{path}: {_content(records, torn)}",
            hint="records.jsonl of weft rl, or of an engine with a RecordLog",
        )
    for run in found.values():
        yield _closed(str(path), run, torn + orphans)


def _content(records: Sequence[Record], torn: int) -> str:
    kinds = Counter(record.kind for record in records)
    told = [f"{count} of kind {kind!r}" for kind, count in kinds.most_common(4)]
    told += [f"{torn} lines that are no records"] if torn else []
    return ", ".join(told) or "nothing"


def _records(path: Path) -> tuple[list[Record], int]:
    """All records, and the number of lines that are none."""
    try:
        lines = path.read_bytes().decode(errors="replace").split("\n")
    except OSError as error:
        raise FileError(
            need="a file of records",
            got=f"{path}: {error.strerror}",
            hint="records.jsonl of a run, or its folder",
        ) from error
    read = [_record(line) for line in lines if line.strip()]
    records = [record for record in read if record is not None]
    return records, len(read) - len(records)


def _record(line: str) -> Record | None:
    try:
        raw: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    match raw:
        case {"kind": str(kind), "fields": {}}:
            fields = cast("dict[str, dict[str, object]]", raw)["fields"]
            return Record(kind=kind, fields=fields, time_s=0.0)
        case _:
            return None


def _closed(source: str, run: _Open, torn: int) -> RlRun:
    steps = sorted(run.steps)
    rows = [run.steps[step] for step in steps]
    columns = {name: [number_in(row.get(name)) for row in rows] for name in FIELDS}
    watched = zip(columns["reward"], columns["loss"], strict=True)
    regimes = Counter(regime for row in rows if (regime := _regime(row.get("regime"))))
    lags: Counter[int] = Counter()
    for row in rows:
        lags.update(_lags(row.get("lags")))
    return RlRun(
        source=source,
        settings=run.settings,
        steps=np.array(steps, dtype=np.float64),
        series={name: _finite(values) for name, values in columns.items()},
        no_numbers=sum(any(v is not None and not math.isfinite(v) for v in two) for two in watched),
        regimes=regimes,
        lags=lags,
        torn=torn,
    )


def _finite(values: Sequence[float | None]) -> Numbers:
    known = [value if value is not None and math.isfinite(value) else math.nan for value in values]
    return np.array(known, dtype=np.float64)


def _regime(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return _REGIMES[value] if 0 <= value < len(_REGIMES) else str(value)
    return value.lower() if isinstance(value, str) else ""


def _lags(value: object) -> Mapping[int, float]:
    """Samples by lag; JSON knows text as keys only."""
    if not isinstance(value, Mapping):
        return {}
    found: dict[int, float] = {}
    for key, count in cast("Mapping[object, object]", value).items():
        lag, samples = number_in(key), number_in(count)
        if lag is not None and samples is not None and math.isfinite(lag) and samples > 0:
            found[round(lag)] = found.get(round(lag), 0.0) + samples
    return found
