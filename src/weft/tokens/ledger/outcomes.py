"""Tasks that ended, and whether they passed."""

from __future__ import annotations

from collections.abc import Sequence

from weft.tokens.ledger.ledger import Ledger
from weft.tokens.ledger.totals import KEYS

__all__ = ["outcomes"]


def outcomes(ledger: Ledger, by: Sequence[str] = ()) -> dict[str, tuple[bool, tuple[str, ...]]]:
    """Of each task that says so: whether it passed, and the keys of the call that ended it.

    A task that was said to have passed and failed went as its last call says.

    Args:
        ledger: to read.
        by: names of KEYS.
    """
    shown = ["date(at, 'unixepoch')" if name == "day" else name for name in by if name in KEYS]
    columns = ", ".join(["task", "passed", *shown])
    rows = ledger.connection.execute(
        f"SELECT {columns} FROM calls WHERE passed IS NOT NULL AND task <> '' ORDER BY at, id"
    )
    return {str(task): (bool(passed), tuple(map(str, key))) for task, passed, *key in rows}
