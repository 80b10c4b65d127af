"""`python -m weft.runtime.cluster CLUSTER.yaml -- COMMAND...`: a command in each rank."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType

from weft.core.errors import WeftError
from weft.runtime.cluster.description import load_cluster
from weft.runtime.cluster.ranks import run_ranks
from weft.runtime.cluster.standing import built

__all__ = ["main"]

_DAY_S = 86400.0


def main(arguments: list[str] | None = None) -> int:
    """Run a command in each rank, with lines of output that say whose they are.

    Returns:
        0; 1 if a rank failed or the cluster cannot be built here; 130 after an interrupt.
    """
    parser = argparse.ArgumentParser(
        prog="python -m weft.runtime.cluster", description="run a command in each rank"
    )
    parser.add_argument("cluster", metavar="CLUSTER", help="a description in YAML")
    parser.add_argument("--timeout", type=float, default=_DAY_S, metavar="S", help="end it then")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    given = parser.parse_args(arguments)
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not command:
        parser.error("name a command after --")
    # Asked to end by the system, it takes the cluster down as after an interrupt.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with built(load_cluster(given.cluster)) as stands:
            run_ranks(stands, command, timeout_s=given.timeout, on_line=_show)
    except WeftError as error:
        sys.stderr.write(f"weft: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _show(rank: int, line: str) -> None:
    sys.stdout.write(f"[{rank}] {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
