"""Ranks of a cluster: started together, listened to, and ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from weft.core.errors import InputError
from weft.runtime.cluster.description import Cluster
from weft.runtime.cluster.standing import Built, built
from weft.runtime.launch import (
    POLL_S,
    Launched,
    RankOutput,
    failure_of,
    late,
    outside_of_ranks,
    words_in,
    words_of_status,
)

__all__ = ["Said", "launch_cluster", "run_ranks"]

Said = Callable[[int, str], None]
"""Told a rank and a line of its output."""


def launch_cluster(
    command: Sequence[str],
    cluster: Cluster,
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    threads_per_rank: int = 1,
    stop_s: float = 15.0,
    on_line: Said | None = None,
) -> Launched:
    """Run a Python command in each rank of an uneven cluster on this host, and wait for all.

    `weft.runtime.launch` on a cluster: the ranks find variables as from torchrun on hosts with one
    rank each, and meet over the cluster's own links.

    Args:
        command: what follows `python`: a script and its arguments, or "-m", a module and its.
        cluster: what to build.
        timeout_s: when to end a run that has not ended [s].
        env: variables to set or replace.
        threads_per_rank: threads that each rank computes with.
        stop_s: time that the ranks get to stop by themselves when they have to end early [s].
        on_line: told each line of output while the ranks run.

    Raises:
        InputError: there is no command, or this host does not permit such a cluster.
        RunError: a rank failed, or the time was up; as from `launch`.
    """
    if not command:
        raise InputError(need="a command", got="none", hint='for example ["-m", "weft", "run"]')
    with built(cluster) as stands:
        return run_ranks(
            stands,
            [sys.executable, *command],
            timeout_s=timeout_s,
            env=env,
            threads_per_rank=threads_per_rank,
            stop_s=stop_s,
            on_line=on_line,
        )


def run_ranks(
    stands: Built,
    command: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    threads_per_rank: int = 1,
    stop_s: float = 15.0,
    on_line: Said | None = None,
) -> Launched:
    """Run any command in each rank of a cluster that stands; see `launch_cluster`."""
    with tempfile.TemporaryDirectory(prefix="weft-cluster-") as name:
        logs, started = Path(name), time.monotonic()
        ranks: list[subprocess.Popen[bytes]] = []
        spoken = _Listener(logs=logs, tell=on_line)
        try:
            for rank in range(stands.cluster.num_ranks):
                more = stands.variables(rank, threads_per_rank) | dict(env or {})
                ranks.append(_start(stands.command(rank, command), rank, logs, more))
            statuses = _wait(ranks, started + timeout_s, spoken)
        finally:
            _end(ranks, stop_s)
            spoken.listen(len(ranks))
        outputs = tuple(_output(logs, rank) for rank in range(len(ranks)))
        if any(statuses):
            raise failure_of(outputs, _first_words(logs, statuses))
        if None in statuses:
            raise late(outputs, timeout_s)
        return Launched(outputs=outputs, seconds=time.monotonic() - started)


def _start(
    command: list[str], rank: int, logs: Path, more: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    variables = {**outside_of_ranks(os.environ), **more}
    variables["TORCHELASTIC_ERROR_FILE"] = str(logs / f"{rank}.error.json")
    with (logs / f"{rank}.out").open("wb") as out, (logs / f"{rank}.err").open("wb") as err:
        return subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            # An interrupt from the keyboard is for the starter, which tells the ranks.
            start_new_session=True,
        )


def _wait(
    ranks: Sequence[subprocess.Popen[bytes]], deadline: float, spoken: _Listener
) -> list[int | None]:
    """Statuses of ranks when all have ended, one has failed, or the deadline has come."""
    while True:
        statuses = [rank.poll() for rank in ranks]
        spoken.listen(len(ranks))
        if None not in statuses or any(statuses) or time.monotonic() > deadline:
            return statuses
        time.sleep(POLL_S)


def _end(ranks: Sequence[subprocess.Popen[bytes]], stop_s: float) -> None:
    """End ranks that still run, politely first. Their children end with their control group."""
    running = [rank for rank in ranks if rank.poll() is None]
    for rank in running:
        rank.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + stop_s
    for rank in running:
        try:
            rank.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            rank.kill()
            rank.wait()


def _output(logs: Path, rank: int) -> RankOutput:
    out, err = ((logs / f"{rank}.{kind}").read_text(errors="replace") for kind in ("out", "err"))
    return RankOutput(stdout=out, stderr=err)


def _first_words(logs: Path, statuses: Sequence[int | None]) -> dict[str, str]:
    """What the first rank that failed left, or how the process ended."""
    words = words_in(sorted(logs.glob("*.error.json")))
    if words:
        return words
    rank, status = next((r, s) for r, s in enumerate(statuses) if s)
    return words_of_status(rank, status)


@dataclass(slots=True)
class _Listener:
    """Tells whole lines of the ranks' output as they come."""

    logs: Path
    tell: Said | None
    heard: dict[Path, int] = field(default_factory=dict[Path, int])

    def listen(self, num_ranks: int) -> None:
        """Tell what has come since the last time."""
        if self.tell is None:
            return
        for rank in range(num_ranks):
            for path in (self.logs / f"{rank}.out", self.logs / f"{rank}.err"):
                for line in self._new_lines(path):
                    self.tell(rank, line)

    def _new_lines(self, path: Path) -> list[str]:
        with path.open("rb") as file:
            file.seek(self.heard.get(path, 0))
            whole, newline, _ = file.read().rpartition(b"\n")
        self.heard[path] = self.heard.get(path, 0) + len(whole) + len(newline)
        return whole.decode(errors="replace").splitlines() if newline else []
