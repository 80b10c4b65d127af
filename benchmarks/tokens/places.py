"""Where public data may be: beside the checkout, or where a variable says. None is kept in it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["VARIABLE", "data_file"]

VARIABLE = "WEFT_DATA"
"""A folder to look in first."""
BESIDE = Path(__file__).parents[3] / "shared" / "data"


def data_file(name: str) -> Path | None:
    """A file of that name; None where there is none."""
    folders = [Path(os.environ[VARIABLE])] if VARIABLE in os.environ else []
    return next((f / name for f in (*folders, BESIDE) if (f / name).is_file()), None)
