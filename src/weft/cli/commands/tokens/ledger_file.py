"""A ledger that is there, as an argument of those actions that read one."""

from __future__ import annotations

import argparse
from pathlib import Path

from weft.core.errors import FileError

__all__ = ["add_ledger"]


def add_ledger(parser: argparse.ArgumentParser) -> None:
    """The ledger's file, as a positional argument."""
    parser.add_argument("ledger", metavar="LEDGER", type=_ledger_file, help="a ledger's file")


def _ledger_file(text: str) -> Path:
    # Opened, a ledger that is missing would be made.
    path = Path(text)
    if not path.is_file():
        raise FileError(
            need="a ledger's file",
            got=f"no {path}",
            hint="weft tokens ingest LOGS -o ledger.db makes one",
        )
    return path
