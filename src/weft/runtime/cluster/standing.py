"""A cluster while it stands: built, entered by ranks, and taken down whatever happens.

What a killed starter left behind is known by its name and taken down by the next one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from weft.core.errors import InputError
from weft.runtime.cluster import enter
from weft.runtime.cluster.description import Cluster
from weft.runtime.cluster.network import (
    INTERFACE,
    Names,
    address,
    owner_of,
    setup_commands,
)
from weft.runtime.cluster.quota import Hierarchy, end_group, hierarchy, make_group

__all__ = ["Built", "built", "refusal"]

NAMESPACES = Path("/run/netns")
"""Where `ip netns` keeps them."""

PORT = 29500
"""torchrun's own; nobody else is in the namespace of rank 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A cluster that stands.

    Attributes:
        cluster: what it was to be.
        names: of its parts.
        doors: file of each rank's control group by which a process enters it.
    """

    cluster: Cluster
    names: Names
    doors: tuple[Path, ...]

    def command(self, rank: int, command: Sequence[str]) -> list[str]:
        """What this process has to start so that a command runs as a rank.

        It ends with the thread that starts it.
        """
        namespace = NAMESPACES / self.names.rank(rank)
        # Neither site packages nor the user's settings: it starts in a few milliseconds.
        entry = [sys.executable, "-I", "-S", str(Path(enter.__file__))]
        return [*entry, f"{self.doors[rank]}", f"{namespace}", f"{os.getpid()}", *command]

    def variables(self, rank: int, threads_per_rank: int = 1) -> dict[str, str]:
        """Variables by which a rank finds the others, as torchrun sets them for hosts of one."""
        return {
            "RANK": f"{rank}",
            "WORLD_SIZE": f"{self.cluster.num_ranks}",
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": "1",
            "GROUP_RANK": f"{rank}",
            "MASTER_ADDR": address(0),
            "MASTER_PORT": f"{PORT}",
            "GLOO_SOCKET_IFNAME": INTERFACE,
            "OMP_NUM_THREADS": f"{threads_per_rank}",
            "MKL_NUM_THREADS": f"{threads_per_rank}",
            "PYTHONUNBUFFERED": "1",
            # All ranks are of this host, whose devices have neither quota nor namespace.
            "CUDA_VISIBLE_DEVICES": "",
        }


@contextmanager
def built(cluster: Cluster) -> Iterator[Built]:
    """Build a cluster, and take it down at the end of the block.

    Raises:
        InputError: this host lacks something for it or does not permit it; the error says what.
    """
    _require_tools()
    _require_cores(cluster)
    groups = _hierarchy()
    clear_leftovers(groups)
    names = Names(os.getpid())
    try:
        for command in setup_commands(cluster, names):
            _run(command)
        doors = make_group(groups, names.group, tuple(rank.cores for rank in cluster.ranks))
        yield Built(cluster=cluster, names=names, doors=doors)
    finally:
        _take_down(groups, {names.pid})


def refusal(cluster: Cluster) -> str | None:
    """Why this host does not let such a cluster be built; None if it does."""
    try:
        with built(cluster):
            return None
    except InputError as error:
        return f"{error.need}: {error.got}"


def clear_leftovers(groups: Hierarchy) -> None:
    """Take down what processes left that have ended, their ranks included."""
    folders = (folder for folder in (NAMESPACES, groups.folder) if folder.is_dir())
    owners = {owner_of(path.name) for folder in folders for path in folder.iterdir()}
    _take_down(groups, {o for o in owners if o is not None and not Path(f"/proc/{o}").exists()})


def _take_down(groups: Hierarchy, owners: set[int]) -> None:
    for owner in owners:
        end_group(groups.folder / Names(owner).group)
    left = NAMESPACES.iterdir() if NAMESPACES.is_dir() else ()
    for name in sorted(path.name for path in left):
        if owner_of(name) in owners:
            _run(["ip", "netns", "delete", name])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise InputError(
            need="a kernel and permissions for network namespaces and shaped links",
            got=f"`{' '.join(command)}`: {words}",
            hint=_hint(command),
        )


def _hint(command: Sequence[str]) -> str:
    if "netem" in command:
        return "leave latency_s out, or use a kernel with CONFIG_NET_SCH_NETEM"
    if "tbf" in command:
        return "use a kernel with CONFIG_NET_SCH_TBF"
    return "run as root with CAP_NET_ADMIN and CAP_SYS_ADMIN; a container needs --privileged"


def _require_tools() -> None:
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if sys.platform != "linux" or missing:
        raise InputError(
            need="Linux with iproute2's ip and tc",
            got=f"{sys.platform}, without {', '.join(missing) or 'namespaces'}",
            hint="apt-get install iproute2, and have /usr/sbin on the PATH",
        )


def _require_cores(cluster: Cluster) -> None:
    there = len(os.sched_getaffinity(0))
    if cluster.cores > there:
        raise InputError(
            need=f"{cluster.cores:g} cores, which the ranks of {cluster.name} use together",
            got=f"{there} that this process may use",
            hint="give the ranks less, or run without taskset: a share that is not there is none",
        )


def _hierarchy() -> Hierarchy:
    found = hierarchy(Path("/proc/mounts").read_text(), Path("/proc/self/cgroup").read_text())
    if found is None:
        raise InputError(
            need="control groups with the cpu controller",
            got="no such mount in /proc/mounts",
            hint="mount -t cgroup2 none /sys/fs/cgroup",
        )
    return found
