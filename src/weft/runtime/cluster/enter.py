"""Becomes a rank: enters its control group and its network, ties its life to its parent's.

    python enter.py GROUP NAMESPACE PARENT COMMAND...

Run as a file by an interpreter that has loaded nothing else, so that no second process stands
between the starter and the rank. Imports the standard library only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

__all__ = ["main"]

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_SETTINGS = {
    # One that paces by its own guess of the link's rate would be measured instead of the link.
    "tcp_congestion_control": "reno",
    # A step sends after a pause, and its first bytes are to go as fast as its last.
    "tcp_slow_start_after_idle": "0",
}


def main(arguments: list[str]) -> None:
    """Do it, and become the command."""
    group, namespace, parent, *command = arguments
    libc = ctypes.CDLL(None, use_errno=True)
    _require(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0, "prctl")
    if os.getppid() != int(parent):
        sys.exit("the starter has ended before its rank")
    Path(group).write_text(f"{os.getpid()}")
    with Path(namespace).open("rb") as network:
        _require(libc.setns(network.fileno(), _CLONE_NEWNET) == 0, f"setns {namespace}")
    for name, value in _SETTINGS.items():
        Path("/proc/sys/net/ipv4", name).write_text(value)
    os.execvp(command[0], command)


def _require(well: bool, what: str) -> None:
    if not well:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main(sys.argv[1:])
