"""A rank that fails takes the whole run down, and everyone says which rank it was and why.

Each rank has a watcher thread with its own connection to the store. It leaves a sign of life
twice a second and looks for a failure. A rank that raises writes its rank, step and cause into
the store; the first to write wins. The others notice through the watcher, or because their
collectives break when the failed process goes away. A rank whose main thread does not come
back from a collective, a loop or a lock in time is ended from outside the interpreter.
"""

from __future__ import annotations

import faulthandler
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch.distributed as dist

from weft.core.errors import RunError, WeftError
from weft.runtime.world import World

__all__ = ["Failure", "Progress", "guard", "patient_work"]

SIGN_OF_LIFE_S = 0.5
"""Time between two signs of life of a rank [s]."""

INQUIRY_S = 3.0
"""How long a rank whose collective broke looks for the one that broke it: several signs of
life, so that silence means death."""

GRACE_S = 10.0
"""Time that a process has to end by itself after its run has failed [s]."""

_FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Which rank failed, in which step (-1: outside any), and why."""

    rank: int
    step: int
    cause: str

    def to_error(self, size: int) -> RunError:
        """The error that every rank raises."""
        when = f" in step {self.step}" if self.step >= 0 else ""
        return RunError(
            need=f"all {size} ranks to finish",
            got=f"rank {self.rank} failed{when}: {self.cause}",
            hint="the cause is in that rank's own output; resume from the last checkpoint",
            rank=self.rank,
            step=self.step,
        )


class Progress:
    """How far this rank is; the loop moves it, the watcher reads it."""

    def __init__(self) -> None:
        self.step = -1


@contextmanager
def guard(world: World, *, grace_s: float = GRACE_S) -> Iterator[Progress]:
    """Run a block of work that ranks do together.

    After a failure the process is expected to end: ranks that wait for it are released when its
    connections close, and one that has not ended in time is ended.

    Args:
        world: the ranks.
        grace_s: time that a process has to end by itself after its run has failed [s].

    Yields:
        The progress; set its `step` as steps begin.

    Raises:
        RunError: this or another rank failed. It names the first rank that did, its step and
            its cause; the error of this rank, if it has one, is its context.
        WeftError: this rank raised it itself; it passes as it is.
    """
    progress = Progress()
    if world.store is None:
        try:
            yield progress
        except WeftError:
            raise
        except Exception as error:
            failure = Failure(rank=0, step=progress.step, cause=_cause(error))
            raise failure.to_error(1) from error
        return
    watcher = _Watcher(world, world.store, progress, grace_s)
    watcher.start()
    try:
        yield progress
    except Exception as error:
        # The process must end even if a collective, a destructor or an exit hook hangs.
        faulthandler.dump_traceback_later(grace_s + INQUIRY_S, exit=True)
        with _without_sigterm():
            failure = _first_failure(world, world.store, progress, error)
            _leave_last_words(world, failure)
            watcher.linger(failure)
        if isinstance(error, WeftError) and not _is_communication(error):
            raise
        raise failure.to_error(world.size) from error
    finally:
        watcher.stop()


@contextmanager
def patient_work(world: World, what: str, tell: Callable[[str], None]) -> Iterator[None]:
    """A block of work that each rank does by itself and that may take any time.

    The ranks meet at its end. Whoever is done waits for as long as the others give signs of life,
    so that no time-out of a collective limits the work.

    Args:
        world: the ranks.
        what: a word for the work: ranks that come to it again count for themselves.
        tell: told which ranks are waited for.

    Raises:
        RunError: another rank failed, or gave no sign of life for the time-out of a collective.
    """
    store = world.store
    if store is None:
        yield
        return
    name = f"{what}{store.add(f'{what}/times/{world.rank}', 1)}"
    signs = _Signs(store, f"{name}/life/{world.rank}")
    signs.start()
    try:
        yield
    finally:
        signs.stop()
    store.set(f"{name}/done/{world.rank}", "1")
    _await_others(world, store, name, tell)


class _Signs(threading.Thread):
    """Gives signs of life while the main thread works, until stopped."""

    def __init__(self, store: dist.Store, key: str, name: str = "weft-signs") -> None:
        super().__init__(name=name, daemon=True)
        # The main thread may hold its connection for as long as a time-out.
        self._store: dist.Store = cast("Any", store).clone()
        self._key = key
        self._done = threading.Event()

    def run(self) -> None:
        beat = 0
        while not self._done.wait(SIGN_OF_LIFE_S):
            beat += 1
            if not self._beat(beat):
                return

    def stop(self) -> None:
        """End the thread."""
        self._done.set()
        self.join(SIGN_OF_LIFE_S * 4)

    def _beat(self, beat: int) -> bool:
        """Give a sign; whether to go on."""
        try:
            self._store.set(self._key, str(beat))
        except RuntimeError:
            return False  # the store is gone, which the main thread notices when it is done
        return True


def _await_others(world: World, store: dist.Store, name: str, tell: Callable[[str], None]) -> None:
    told: list[int] = []
    last: dict[int, tuple[str, float]] = {}
    while True:
        failure = _read_failure(store)
        if failure is not None:
            raise failure.to_error(world.size)
        absent = [rank for rank in range(world.size) if not store.check([f"{name}/done/{rank}"])]
        if not absent:
            return
        now = time.monotonic()
        for rank in absent:
            key = f"{name}/life/{rank}"
            sign = store.get(key).decode() if store.check([key]) else ""
            before, since = last.get(rank, ("", now))
            last[rank] = (sign, since if sign == before and rank in last else now)
            if now - last[rank][1] > world.timeout_s:
                raise RunError(
                    need=f"a sign of life of each rank within {world.timeout_s:g} s ({name})",
                    got=f"none of rank {rank}",
                    hint="look at the output of that rank",
                    rank=rank,
                )
        if absent != told:
            told = absent
            tell(f"waiting for rank {', '.join(map(str, absent))}")
        time.sleep(SIGN_OF_LIFE_S / 5)


@contextmanager
def _without_sigterm() -> Iterator[None]:
    """Drop SIGTERM, which torchrun sends as soon as one rank is gone.

    The process is about to end anyway, and would end without having said why.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread only
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


class _Watcher(_Signs):
    """Gives signs of life and looks for a failure, until stopped."""

    def __init__(self, world: World, store: dist.Store, progress: Progress, grace_s: float) -> None:
        super().__init__(store, f"life/{world.rank}", "weft-watcher")
        self._world = world
        self._grace_s = grace_s
        self._progress = progress

    def _beat(self, beat: int) -> bool:
        try:
            self._store.set(self._key, f"{beat}:{self._progress.step}")
            failure = _read_failure(self._store)
        except RuntimeError as error:
            self._take_down(_lost_store(self._world, error, self._progress.step))
            return False
        if failure is None:
            return True
        self._store.set(f"seen/{self._world.rank}", "1")
        self._take_down(failure)
        return False

    def linger(self, failure: Failure) -> None:
        """Wait until the others have seen a failure, in case the store ends with this process."""
        deadline = time.monotonic() + INQUIRY_S
        others = [f"seen/{r}" for r in range(self._world.size) if r != failure.rank]
        try:
            self._store.set(f"seen/{self._world.rank}", "1")
            while time.monotonic() < deadline and not self._store.check(others):
                time.sleep(SIGN_OF_LIFE_S / 5)
        except RuntimeError:
            return  # the store is gone, and with it whoever could have read it

    def _take_down(self, failure: Failure) -> None:
        """End the process if the main thread does not get out by itself."""
        if self._done.wait(self._grace_s / 2):
            return
        sys.stderr.write(f"weft: rank {self._world.rank}: {failure.to_error(self._world.size)}\n")
        sys.stderr.flush()
        faulthandler.dump_traceback_later(self._grace_s / 2, exit=True)


def _first_failure(
    world: World, store: dist.Store, progress: Progress, error: Exception
) -> Failure:
    """The failure that started it: what the store says, else silence, else this rank's own."""
    own = Failure(rank=world.rank, step=progress.step, cause=_cause(error))
    try:
        return _inquire(world, store, own) if _is_communication(error) else _record(store, own)
    except RuntimeError as lost:
        return _lost_store(world, lost, progress.step)


def _lost_store(world: World, error: Exception, step: int) -> Failure:
    """The store went away, and with it the rank or the launcher that held it."""
    holder = "the launcher" if world.store_rank < 0 else f"rank {world.store_rank}"
    cause = f"{holder} held the store and is gone ({_cause(error)})"
    return Failure(rank=max(world.store_rank, -1), step=step, cause=cause)


def _inquire(world: World, store: dist.Store, own: Failure) -> Failure:
    """Who broke this rank's collective."""
    store.set(f"broken/{world.rank}", str(own.step))
    before = _signs_of_life(world, store)
    deadline = time.monotonic() + INQUIRY_S
    while time.monotonic() < deadline:
        found = _read_failure(store)
        if found is not None:
            return found
        time.sleep(SIGN_OF_LIFE_S / 5)
    after = _signs_of_life(world, store)
    for rank in range(world.size):
        if before[rank] == after[rank] and rank != world.rank:
            step = int(after[rank].partition(":")[2] or -1)
            cause = "its process is gone (killed, out of memory, or its machine was lost)"
            return _record(store, Failure(rank=rank, step=step, cause=cause))
    for rank in range(world.size):
        if not store.check([f"broken/{rank}"]):
            step = int(after[rank].partition(":")[2] or -1)
            cause = f"it did not come to a collective within {world.timeout_s:g} s"
            return _record(store, Failure(rank=rank, step=step, cause=cause))
    return _record(store, own)


def _signs_of_life(world: World, store: dist.Store) -> list[str]:
    keys = [f"life/{rank}" for rank in range(world.size)]
    return [store.get(key).decode() if store.check([key]) else "" for key in keys]


def _record(store: dist.Store, failure: Failure) -> Failure:
    """Write a failure unless there is one, and return the one that stands."""
    store.compare_set(_FAILURE, "", json.dumps(asdict(failure)))
    return _read_failure(store) or failure


def _read_failure(store: dist.Store) -> Failure | None:
    if not store.check([_FAILURE]):
        return None
    return Failure(**json.loads(store.get(_FAILURE)))


def _leave_last_words(world: World, failure: Failure) -> None:
    """Tell the launcher, in the form in which torchrun reads it."""
    if world.error_file is None:
        return
    text = str(failure.to_error(world.size))
    extra = {"timestamp": str(int(time.time())), "py_callstack": text, **asdict(failure)}
    world.error_file.write_text(json.dumps({"message": {"message": text, "extraInfo": extra}}))


def _is_communication(error: Exception) -> bool:
    """True if the error may only say that another rank is gone."""
    found = error.__cause__ if isinstance(error, RunError) else error
    words = ("gloo/transport", "monitoredbarrier", "nccl error")
    return isinstance(found, dist.DistError) or (
        isinstance(found, RuntimeError) and any(word in str(found).lower() for word in words)
    )


def _cause(error: Exception) -> str:
    """One line that says what went wrong."""
    if isinstance(error, WeftError):
        return f"{type(error).__name__}: need {error.need}; got {error.got}"
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
