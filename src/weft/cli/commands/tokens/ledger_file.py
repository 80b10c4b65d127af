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
    try:
        got = "a folder" if path.is_dir() else "" if path.is_file() else f"no {path}"
        if not got and path.stat().st_size == 0:
            got = f"{path}, which is empty"
    except OSError as error:
        got = f"{path}: {error.strerror}"
    if got:
        raise FileError(
            need="a ledger's file",
            got=got,
            hint="weft tokens ingest LOGS -o ledger.db makes one",
        )
    return path
