"""Many trials, in processes of one thread, each done once: results are kept as they come.

A trial is known by all that it depends on: setting, method, rate, lag and seed, and the sources of
the policy, of the trial and of `weft.rl`. A benchmark that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

import torch

import weft.rl
from benchmarks.gac.methods import METHODS
from benchmarks.gac.trial import Outcome, Setting, run
from weft.core.digest import canonical_json
from weft.core.records import RecordLog, read_records

__all__ = ["Trial", "results"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run: where, how, at which learning rate, with samples of which age, from which seed."""

    setting: Setting
    method: str
    rate: float
    lag: int
    seed: int

    @property
    def key(self) -> str:
        """What it is known by."""
        method = repr(METHODS[self.method])
        text = canonical_json({**asdict(self), "method": method, "sources": _sources()})
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def results(trials: Sequence[Trial], *, kept: Path, workers: int) -> dict[Trial, Outcome]:
    """What came of each; those that `kept` does not hold are run, and added to it."""
    found = _read(kept)
    left = [trial for trial in dict.fromkeys(trials) if trial.key not in found]
    log = RecordLog(kept)
    for trial, outcome in _work(left, workers):
        log.append("trial", key=trial.key, **asdict(outcome))
        found[trial.key] = outcome
    return {trial: found[trial.key] for trial in trials}


def _work(trials: Sequence[Trial], workers: int) -> Iterator[tuple[Trial, Outcome]]:
    if not trials:
        return
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
        waiting = {pool.submit(_run, trial): trial for trial in trials}
        try:
            for done, future in enumerate(as_completed(waiting), start=1):
                yield waiting[future], future.result()
                _tell(done, len(trials), time.monotonic() - began)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run(trial: Trial) -> Outcome:
    return run(
        trial.setting, METHODS[trial.method], rate=trial.rate, lag=trial.lag, seed=trial.seed
    )


def _begin() -> None:
    torch.set_num_threads(1)
    os.nice(5)


def _read(path: Path) -> dict[str, Outcome]:
    if not path.exists():
        return {}
    names = [field.name for field in fields(Outcome)]
    found: dict[str, Outcome] = {}
    for record in read_records(path, "trial"):
        values = {name: record.fields[name] for name in names}
        values["rewards"] = tuple(values["rewards"])  # pyright: ignore[reportArgumentType]
        found[str(record.fields["key"])] = Outcome(**values)  # pyright: ignore[reportArgumentType]
    return found


@cache
def _sources() -> str:
    """A digest of all code that a result follows from."""
    digest = hashlib.sha256(torch.__version__.encode())
    own = [
        Path(__file__).parent / name for name in ("policy.py", "task.py", "trial.py", "methods.py")
    ]
    for path in (*own, *sorted(Path(weft.rl.__file__).parent.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _tell(done: int, total: int, seconds: float) -> None:
    if done == total or done % 20 == 0:
        left = seconds / done * (total - done)
        print(f"trials: {done} of {total}, about {left / 60:.0f} minutes left", file=sys.stderr)
