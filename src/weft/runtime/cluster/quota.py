"""Shares of a core by control groups, of the first or of the second version.

A group may compute for a quota of each period. The period is short, so that what takes a few
milliseconds is slowed as what takes seconds is. The kernel looks at its tick, which comes 100 to
1,000 times a second, and takes what a group has used too much off its next periods: a rank runs
for some milliseconds and then waits for some. Only the mean over tens of milliseconds is the share.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from weft.core.errors import InputError

__all__ = ["Hierarchy", "end_group", "hierarchy", "limit_texts", "make_group"]

PERIOD_US = 10_000
"""A tenth of the kernel's usual period. Measured: shares of 0.2 to 0.8 of a core on a kernel with
250 ticks a second come out to 1 % or so; with 5 ms and less they do not."""

_WEIGHTS = {1: ("cpu.shares", "262144"), 2: ("cpu.weight", "10000")}
"""The largest there are: what ranks may use they get, whatever else runs on the host."""

LEAST_QUOTA_US = 1_000
"""The kernel allows no shorter one. Source: min_cfs_quota_period in kernel/sched."""

_END_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """Where groups with a quota are made.

    Attributes:
        version: of control groups, 1 or 2.
        folder: the group in which to make them.
    """

    version: int
    folder: Path


def hierarchy(mounts: str, own_groups: str) -> Hierarchy | None:
    """Where this process may make groups with a quota; None if nowhere.

    Args:
        mounts: text of /proc/mounts.
        own_groups: text of /proc/self/cgroup.

    Example:
        >>> found = hierarchy("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0", "2:cpu:/")
        >>> found.version, str(found.folder)
        (1, '/sys/fs/cgroup/cpu')
    """
    lines = [line.split() for line in mounts.splitlines() if len(line.split()) > 3]
    for _, place, kind, options, *_ in lines:
        if kind == "cgroup" and "cpu" in options.split(","):
            return Hierarchy(version=1, folder=_within(Path(place), own_groups))
    for _, place, kind, *_ in lines:
        # A group with processes of its own gives its children no controllers: the root may.
        if kind == "cgroup2":
            return Hierarchy(version=2, folder=Path(place))
    return None


def _within(place: Path, own_groups: str) -> Path:
    """The group of this process, so that limits of its own go on to hold."""
    for line in own_groups.splitlines():
        _, controllers, path = line.split(":", 2)
        own = place / path.strip("/")
        if "cpu" in controllers.split(",") and own.is_dir():
            return own
    return place


def limit_texts(version: int, cores: float) -> dict[str, str]:
    """What to write into which file of a group, in order.

    Example:
        >>> limit_texts(2, 0.25), limit_texts(2, 0.05)
        ({'cpu.max': '2500 10000'}, {'cpu.max': '1000 20000'})
    """
    period = max(PERIOD_US, round(LEAST_QUOTA_US / cores))
    quota = max(LEAST_QUOTA_US, round(period * cores))
    if version == 2:
        return {"cpu.max": f"{quota} {period}"}
    return {"cpu.cfs_period_us": f"{period}", "cpu.cfs_quota_us": f"{quota}"}


def make_group(where: Hierarchy, name: str, shares: tuple[float, ...]) -> tuple[Path, ...]:
    """A group with one inside for each rank; returns where ranks enter theirs.

    Raises:
        InputError: this host does not permit it.
    """
    outer = where.folder / name
    try:
        if where.version == 2:
            (where.folder / "cgroup.subtree_control").write_text("+cpu")
        outer.mkdir()
        if where.version == 2:
            (outer / "cgroup.subtree_control").write_text("+cpu")
        file, weight = _WEIGHTS[where.version]
        (outer / file).write_text(weight)
        for rank, cores in enumerate(shares):
            inner = outer / f"{rank}"
            inner.mkdir()
            for file, text in limit_texts(where.version, cores).items():
                (inner / file).write_text(text)
    except OSError as error:
        raise InputError(
            need="permission to make control groups with a CPU quota",
            got=f"{error.filename or outer}: {error.strerror or error}",
            hint="run as root, where control groups are mounted for writing and have `cpu`",
        ) from error
    return tuple(outer / f"{rank}" / "cgroup.procs" for rank in range(len(shares)))


def end_group(outer: Path) -> None:
    """Kill what still runs in a group and those inside it, and remove them."""
    if not outer.is_dir():
        return
    deadline = time.monotonic() + _END_S
    for group in (*(path for path in outer.iterdir() if path.is_dir()), outer):
        while pids := (group / "cgroup.procs").read_text().split():
            for pid in pids:
                _kill(int(pid))
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        group.rmdir()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has ended since it was listed
