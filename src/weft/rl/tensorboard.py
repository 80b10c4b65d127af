"""Records of asynchronous training as TensorBoard shows them.

    write_tensorboard(Path("runs/a/records.jsonl"), Path("runs/a/tensorboard"))
    tensorboard --logdir runs                                      # in a shell

    with TensorBoardLog(Path("runs/a/records.jsonl"), Path("runs/a/tensorboard")) as log:
        log.append("rl-step", step=1, reward=0.2)                  # in place of a RecordLog

Numbers become curves in a few groups, samples by lag a histogram, the fields of the run a text.
Values that nobody knows (None) are left out; NaN is written as it is. Points carry the times of the
records, so that curves of a run can be laid over wall-clock time afterwards.

Needs the package tensorboard, whose writer torch has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from weft.core.errors import FileError, InputError
from weft.core.records import Record, RecordLog, number_in, read_records
from weft.rl.alignment import Regime

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TensorBoardEvents", "TensorBoardLog", "write_tensorboard"]

_GROUPS = {
    "reward": ("reward", "fresh_reward", "loss"),
    "gradient": ("cosine_raw", "cosine_applied", "norm_raw", "norm_applied", "norm_unclipped"),
    "age": ("staleness", "effective"),
    "policy": ("kl", "entropy", "clipped"),
    "tokens": ("tokens", "multiplier"),
    "speed": ("samples", "seconds", "waited_s", "learnt_s"),
}
_TAGS = {name: f"{group}/{name}" for group, names in _GROUPS.items() for name in names}
"""Where a number is shown; those that are not here are shown under "more"."""

_REGIMES = {regime.name.lower(): int(regime) for regime in Regime}
"""Shown by their number."""


class TensorBoardEvents:
    """Writes records to an event file as they come.

    After a resume the first record is of a later step: what an earlier event file in the folder has
    from that step on is purged, so that steps that were taken again do not show twice.

    Args:
        log_dir: folder of the event file.

    Raises:
        InputError: the package tensorboard is not installed.
    """

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._writer: SummaryWriter | None = None
        _writer_class()  # what is missing is told before a run begins, not in it

    def write(self, record: Record) -> None:
        """Show a record; other kinds than rl-run and rl-step are left out.

        Raises:
            InputError: a step without a number.
        """
        if record.kind == "rl-run":
            text = "\n".join(f"    {name}: {_shown(v)}" for name, v in record.fields.items())
            self._open(None).add_text("run", text, 0, walltime=record.time_s)
        elif record.kind == "rl-step":
            self._write_step(record)

    def _write_step(self, record: Record) -> None:
        step = record.fields.get("step")
        if not isinstance(step, int):
            raise InputError(
                need="the number of the step in each rl-step record",
                got=f"step {step!r}",
                hint="log.append('rl-step', step=1, ...)",
            )
        writer = self._open(step)
        for name, value in record.fields.items():
            if name == "regime":
                value = _REGIMES.get(str(value), value)
            number = number_in(value)
            if name == "lags" and isinstance(value, Mapping):
                _histogram(writer, value, step, record.time_s)
            elif name != "step" and number is not None:
                tag = "gradient/regime" if name == "regime" else _TAGS.get(name, f"more/{name}")
                writer.add_scalar(tag, number, step, walltime=record.time_s)

    def flush(self) -> None:
        """Write out what is held back, as it is by itself every two minutes."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write out what is held back, and end the file."""
        if self._writer is not None:
            self._writer.close()

    def _open(self, step: int | None) -> SummaryWriter:
        if self._writer is None:
            # A run that begins anew in the folder takes all of the old one back.
            is_again = any(self._log_dir.glob(_EVENTS))
            self._writer = _writer(self._log_dir, (step or 0) if is_again else None)
        return self._writer


class TensorBoardLog(RecordLog):
    """A `RecordLog` that TensorBoard can watch.

    Each record is in the record file before it is shown.

    Args:
        path: the record file.
        log_dir: folder of the event file.

    Raises:
        FileError: the record file cannot be opened.
        InputError: the package tensorboard is not installed.
    """

    def __init__(self, path: Path, log_dir: Path) -> None:
        self._events = TensorBoardEvents(log_dir)
        super().__init__(path)

    def append(self, kind: str, **fields: object) -> Record:
        """Write one record, show it, and return it."""
        record = super().append(kind, **fields)
        self._events.write(record)
        return record

    def flush(self) -> None:
        """Let TensorBoard see what was appended so far."""
        self._events.flush()

    def close(self) -> None:
        """End the event file; records need no end."""
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_tensorboard(records_path: Path, log_dir: Path) -> int:
    """Write the event file of a run that is over, or of what there is of one.

    Args:
        records_path: its record file. Where there are several runs in it, each gets a folder of its
            own in `log_dir`; a run that goes on after a resume is one run.
        log_dir: a folder without event files.

    Returns:
        How many steps were written.

    Raises:
        FileError: the records cannot be read or hold no run, or the folder has event files.
        InputError: the package tensorboard is not installed, or a step has no number.
    """
    runs = list(_runs(records_path))
    if not runs:
        raise FileError(
            need="records of a run: one rl-run, then rl-step records",
            got=f"{records_path}, which has none",
            hint="records.jsonl of a run of weft rl",
        )
    if any(log_dir.rglob(_EVENTS)):
        raise FileError(
            need="a folder without event files",
            got=f"{log_dir}, which has some",
            hint="each point would be shown twice: choose a new folder",
        )
    written = 0
    for number, (head, steps) in enumerate(runs):
        events = TensorBoardEvents(log_dir / str(number) if len(runs) > 1 else log_dir)
        for record in chain([head], (steps[step] for step in sorted(steps))):
            events.write(record)
        events.close()
        written += len(steps)
    return written


_EVENTS = "events.out.tfevents.*"


def _runs(path: Path) -> Iterator[tuple[Record, dict[int, Record]]]:
    """Heads of runs and their steps; of a step that was repeated, the last one counts."""
    found: dict[str, tuple[Record, dict[int, Record]]] = {}
    now: dict[int, Record] | None = None
    for record in read_records(path):
        if record.kind == "rl-run":
            same = json.dumps(dict(record.fields), sort_keys=True)
            now = found.setdefault(same, (record, {}))[1]
        elif record.kind == "rl-step" and now is not None:
            step = record.fields.get("step")
            now[step if isinstance(step, int) else -1] = record
    yield from found.values()


def _writer_class() -> type[SummaryWriter]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            need="the package tensorboard",
            got=f"{type(error).__name__}: {error}",
            hint="pip install 'weft[rl]'",
        ) from error
    return SummaryWriter


def _writer(log_dir: Path, purge_step: int | None) -> SummaryWriter:
    return _writer_class()(log_dir=str(log_dir), purge_step=purge_step)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _histogram(writer: SummaryWriter, lags: Mapping[Any, Any], step: int, time_s: float) -> None:
    """Samples by lag, a bucket for each lag."""
    counts = {int(lag): float(count) for lag, count in lags.items() if float(count) > 0.0}
    if not counts:
        return
    numbers = range(min(counts), max(counts) + 1)
    writer.add_histogram_raw(
        "age/lags",
        min=min(counts),
        max=max(counts),
        num=sum(counts.values()),
        sum=sum(lag * count for lag, count in counts.items()),
        sum_squares=sum(lag * lag * count for lag, count in counts.items()),
        bucket_limits=[lag + 0.5 for lag in numbers],
        bucket_counts=[counts.get(lag, 0.0) for lag in numbers],
        global_step=step,
        walltime=time_s,
    )
