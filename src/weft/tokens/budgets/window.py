"""Over what time a cap holds: for ever, by the calendar, or the last so many seconds.

Time is cut into numbered slices. What is spent is kept by slice, and counts as long as its slice is
not older than `first`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from weft.core.errors import InputError

__all__ = ["ALWAYS", "SLICES", "Window", "parse_window"]

SLICES = 60
"""Of a rolling window. Chosen: such a window is longer than it says by at most a sixtieth, never
shorter, and its state stays small."""
_CALENDAR_S = {"hourly": 3600, "daily": 86400}


@dataclass(frozen=True, slots=True)
class Window:
    """When what was spent is forgotten. Calendars are UTC.

    Attributes:
        kind: "none", "hourly", "daily", "monthly" or "rolling".
        length_s: of a rolling window [s]; 0 for others.

    Example:
        >>> daily = parse_window("daily")
        >>> daily.slice(86_399.9), daily.slice(86_400.0), daily.first(86_400.0)
        (0, 1, 1)
        >>> last = parse_window("rolling 600 s")
        >>> last, last.slice(1000.0), last.first(1000.0)
        (rolling 600 s, 100, 40)
    """

    kind: str = "none"
    length_s: int = 0

    def slice(self, at: float) -> int:
        """Number of the slice that a moment lies in."""
        if self.kind == "none":
            return 0
        if self.kind == "rolling":
            return int(at * SLICES // self.length_s)
        if self.kind == "monthly":
            day = datetime.fromtimestamp(at, UTC)
            return day.year * 12 + day.month
        return int(at // _CALENDAR_S[self.kind])

    def first(self, now: float) -> int:
        """The oldest slice that counts."""
        return self.slice(now) - (SLICES if self.kind == "rolling" else 0)

    def __str__(self) -> str:
        return f"rolling {self.length_s} s" if self.kind == "rolling" else self.kind

    __repr__ = __str__


ALWAYS = Window()


@lru_cache(maxsize=256)
def parse_window(text: str | int) -> Window:
    """Read "none", "hourly", "daily", "monthly" or "rolling 3600 s"; a number is rolling seconds.

    Raises:
        InputError: it is none of them.
    """
    words = str(text).strip().lower()
    if words in ("none", "hourly", "daily", "monthly"):
        return Window(words)
    match = re.fullmatch(r"(?:rolling\s+)?(\d{1,10})(?:\s*s)?", words)
    if match is None or int(match[1]) < 1:
        raise InputError(
            need="a window: none, hourly, daily, monthly or a number of seconds",
            got=repr(text),
            hint='write "rolling 3600 s" for the last hour, "hourly" for this one by the clock',
        )
    return Window("rolling", int(match[1]))
