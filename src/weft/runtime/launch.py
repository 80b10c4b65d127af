"""Starting ranks on this host: torchrun as a child process, with an end that always comes.

torchrun finds a free port for the ranks to meet, restarts nothing, and stops the others when one
fails. Here its output is kept by rank, the failing rank's last words are read back, and the
whole tree of processes is ended on a time-out or an interrupt.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from weft.core.errors import InputError, RunError

__all__ = [
    "Launched",
    "RankOutput",
    "failure_of",
    "late",
    "launch",
    "outside_of_ranks",
    "words_in",
    "words_of_status",
]

POLL_S = 0.1
_TAIL_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RankOutput:
    """What one rank printed."""

    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A run that ended well: what each rank printed, in order of rank, and how long it took."""

    outputs: tuple[RankOutput, ...]
    seconds: float


def launch(
    command: Sequence[str],
    num_ranks: int,
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    threads_per_rank: int = 1,
    stop_s: float = 15.0,
    on_poll: Callable[[], None] | None = None,
) -> Launched:
    """Run a Python command as `num_ranks` ranks on this host and wait for all of them.

    Args:
        command: what follows `torchrun`: a script and its arguments, or "-m", a module and its.
        num_ranks: how many processes.
        timeout_s: when to end a run that has not ended [s].
        env: variables to set or replace.
        threads_per_rank: threads that each rank computes with.
        stop_s: time that the ranks get to stop by themselves when they have to end early [s].
        on_poll: called about ten times a second while the ranks run, to show progress.

    Raises:
        InputError: there is no command or no rank.
        RunError: a rank failed, with its number, step and cause where it left them, and the end
            of its output; or the time was up.
    """
    if num_ranks < 1 or not command:
        raise InputError(
            need="a command and at least one rank",
            got=f"{list(command)} on {num_ranks} ranks",
            hint='launch(["-m", "weft", "run", ...], 2, timeout_s=600)',
        )
    with tempfile.TemporaryDirectory(prefix="weft-launch-") as folder:
        logs, started = Path(folder), time.monotonic()
        child = _start(command, num_ranks, logs, _variables(env, threads_per_rank))
        try:
            status = _wait(child, started + timeout_s, on_poll)
        finally:
            _end(child, stop_s)
        outputs = tuple(_output(logs, rank) for rank in range(num_ranks))
        if status is None:
            raise late(outputs, timeout_s)
        if status != 0:
            raise _failed(logs, outputs, status)
        return Launched(outputs=outputs, seconds=time.monotonic() - started)


def _variables(env: Mapping[str, str] | None, threads: int) -> dict[str, str]:
    variables = outside_of_ranks(os.environ)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        variables[name] = str(threads)
    variables["PYTHONUNBUFFERED"] = "1"
    return {**variables, **(env or {})}


def outside_of_ranks(variables: Mapping[str, str]) -> dict[str, str]:
    """Variables without those of a rank: a launch from inside one must not look like it."""
    ranks = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return {name: value for name, value in variables.items() if name not in ranks}


def _start(
    command: Sequence[str], num_ranks: int, logs: Path, variables: dict[str, str]
) -> subprocess.Popen[bytes]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1"]
    torchrun += [f"--nproc-per-node={num_ranks}", "--max-restarts=0", "--monitor-interval=0.1"]
    # The loopback address by number: a host may not be able to resolve its own name.
    torchrun += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    torchrun += [f"--rdzv-id={uuid.uuid4().hex}", f"--log-dir={logs}", "--redirects=3"]
    with (logs / "torchrun.log").open("wb") as log:
        return subprocess.Popen(
            [*torchrun, *command],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _wait(
    child: subprocess.Popen[bytes], deadline: float, on_poll: Callable[[], None] | None
) -> int | None:
    """Exit status of a process, None if the deadline comes first."""
    while time.monotonic() < deadline:
        try:
            return child.wait(POLL_S)
        except subprocess.TimeoutExpired:
            if on_poll is not None:
                on_poll()
    return None


def _end(child: subprocess.Popen[bytes], stop_s: float) -> None:
    """End torchrun and all that it started, politely first."""
    if child.poll() is not None:
        return
    family = _descendants(child.pid)
    child.terminate()
    try:
        child.wait(stop_s)
    except subprocess.TimeoutExpired:
        family |= _descendants(child.pid)
        child.kill()
        child.wait()
    for pid in family:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it has ended by itself
    deadline = time.monotonic() + stop_s
    while any(map(_is_running, family)) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _descendants(pid: int) -> set[int]:
    """Children of a process, theirs, and so on, as Linux lists them."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = {int(child) for child in task.read_text().split()}
        except OSError:
            continue  # the thread has ended since it was listed
        for child in children:
            found |= {child, *_descendants(child)}
    return found


def _is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # The state follows the name, which is in brackets and may hold anything; Z has ended.
    return not stat.rpartition(")")[2].lstrip().startswith("Z")


def _output(logs: Path, rank: int) -> RankOutput:
    return RankOutput(
        stdout=_text(logs, f"*/attempt_0/{rank}/stdout.log"),
        stderr=_text(logs, f"*/attempt_0/{rank}/stderr.log"),
    )


def _text(logs: Path, pattern: str) -> str:
    return "".join(path.read_text(errors="replace") for path in logs.glob(pattern))


def late(outputs: tuple[RankOutput, ...], timeout_s: float) -> RunError:
    """The error of ranks that have not ended in time."""
    said = "; ".join(
        f"rank {rank} last said {_last_line(output)!r}" for rank, output in enumerate(outputs)
    )
    return RunError(
        need=f"ranks that finish within {timeout_s:g} s",
        got=said,
        hint="allow more time, or look at what the ranks wait for",
    )


def _failed(logs: Path, outputs: tuple[RankOutput, ...], status: int) -> RunError:
    words = words_in(sorted(logs.glob("*/attempt_0/*/error.json")))
    words = words or _root_cause(_text(logs, "torchrun.log"))
    if words:
        return failure_of(outputs, words)
    return RunError(
        need=f"{len(outputs)} ranks that end with status 0",
        got=f"status {status} from torchrun\n{_tail(_text(logs, 'torchrun.log'))}",
        hint="run the command in one process to see the error alone",
    )


def failure_of(outputs: tuple[RankOutput, ...], words: Mapping[str, str]) -> RunError:
    """The error of a rank that failed, by what it left for the launcher."""
    rank, step = int(words.get("rank", -1)), int(words.get("step", -1))
    tail = _tail(outputs[rank].stderr) if 0 <= rank < len(outputs) else ""
    when = f" in step {step}" if step >= 0 else ""
    return RunError(
        need=f"{len(outputs)} ranks that end with status 0",
        got=f"rank {rank} failed{when}: {words.get('cause', 'no cause given')}\n{tail}".rstrip(),
        hint="the lines above are the end of that rank's output",
        rank=rank,
        step=step,
    )


def words_in(files: Sequence[Path]) -> dict[str, str]:
    """What the first rank that failed left for the launcher in one of these files."""
    found: list[dict[str, str]] = []
    for path in files:
        try:
            found.append(json.loads(path.read_text())["message"]["extraInfo"])
        except (ValueError, KeyError, TypeError):
            continue  # torn by a kill; the other ranks name the same failure
    return min(found, key=lambda words: int(words.get("timestamp", 0)), default={})


def _root_cause(report: str) -> dict[str, str]:
    """The rank that torchrun saw fail first, and how its process ended."""
    _, _, cause = report.partition("Root Cause")
    rank = re.search(r"rank\s*: (\d+)", cause)
    status = re.search(r"exitcode\s*: (-?\d+)", cause)
    if rank is None or status is None:
        return {}
    return words_of_status(int(rank[1]), int(status[1]))


def words_of_status(rank: int, status: int) -> dict[str, str]:
    """How the process of a rank ended that left no words for the launcher.

    Example:
        >>> words_of_status(1, -9)
        {'rank': '1', 'cause': 'its process ended with signal SIGKILL'}
    """
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    return {"rank": f"{rank}", "cause": f"its process ended with {how}"}


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_TAIL_LINES:])


def _last_line(output: RankOutput) -> str:
    lines = (output.stderr.strip() or output.stdout.strip()).splitlines()
    return lines[-1] if lines else ""
