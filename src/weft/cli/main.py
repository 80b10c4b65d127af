"""Where the `weft` command starts: next to nothing is loaded before interrupts are answered."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        from weft.cli.border import run  # a third of a second, in which people change their mind
    except KeyboardInterrupt:
        if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison]
            sys.stderr.write("weft: stopped.\n")
        return 130
    return run(argv)
