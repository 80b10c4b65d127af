"""Records into rows of a ledger: what each process does that reads a part of a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from weft.core.errors import InputError
from weft.tokens.adapters.formats import find_format, read_calls
from weft.tokens.adapters.table import Columns
from weft.tokens.call import Call
from weft.tokens.ledger.ledger import Bad
from weft.tokens.ledger.records import Raw
from weft.tokens.ledger.schema import call_row, plain_text

__all__ = ["Parsed", "Reading", "parse"]

_TOLERANCE_S = 300.0
"""A clock may be so far ahead before a call counts as one of the future; clocks that are kept at
all are within a second. Chosen."""
_EARLIEST_S = 1_591_833_600.0
"""2020-06-11, when OpenAI's API was announced, the first that bills tokens: earlier calls have a
clock that is wrong, or none. Source: openai.com/index/openai-api."""
_SHOWN = 20_000
"""Characters that are kept of a broken record; whoever logs prompts has larger ones. Chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How records are read.

    Attributes:
        form: their format; empty to find out of each.
        columns: what the columns are, where records are rows of a table.
        at: the time of calls that have none [s since 1970].
        now: the time of reading [s since 1970]; later calls are of the future.

    Raises:
        InputError: there is no such format.
    """

    form: str = ""
    columns: Columns | None = None
    at: float | None = None
    now: float

    def __post_init__(self) -> None:
        if self.form:
            find_format(self.form)

    def calls(self, record: object) -> Iterator[Call]:
        """Calls that a record is about.

        Raises:
            InputError: it is none.
        """
        if not isinstance(record, dict):
            raise InputError(
                need="an object of JSON",
                got=repr(record)[:80],
                hint="a record has names and values",
            )
        plain = cast("dict[str, object]", record)
        if self.columns is not None:
            return self.columns.calls(plain, self.at)
        return read_calls(self.form, plain, at=self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What records became: rows of calls, those kept aside, and how many are of something else."""

    rows: list[tuple[object, ...]]
    bad: list[Bad]
    ignored: int


_BROKEN = (
    InputError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""What reading something ends with that only looks like a record."""


def parse(path: str, raws: Sequence[Raw], reading: Reading) -> Parsed:
    """Read some records of a file."""
    rows: list[tuple[object, ...]] = []
    bad: list[Bad] = []
    ignored = 0
    latest = reading.now + _TOLERANCE_S
    for raw in raws:
        try:
            content = raw.content
            record = json.loads(content) if isinstance(content, str) else content
            if raw.is_torn:
                raise InputError(
                    need="a row with a line break after it",
                    got="the end of a file that was written to just now",
                )
            before = len(rows)
            for call in reading.calls(record):
                row = call_row(call, skew=_skew(call.at, latest, reading.now))
                rows.append(row)  # those before one that is broken stay
            ignored += len(rows) == before
        except _BROKEN as error:
            reason = plain_text(_reason(error))
            bad.append(Bad(path=path, line=raw.line, reason=reason, record=_text(raw)))
    return Parsed(rows=rows, bad=bad, ignored=ignored)


def _skew(at: float, latest: float, now: float) -> str:
    if at > latest:
        return f"{at - now:.0f} s in the future"
    return "" if at >= _EARLIEST_S else f"{at:.0f} s after 1970, when there were no such calls"


def _reason(error: Exception) -> str:
    if isinstance(error, InputError):
        return f"need {error.need}; got {error.got}"
    if isinstance(error, json.JSONDecodeError):
        return f"need JSON; got {error}"
    return f"need a record; got {type(error).__name__}: {error}"


def _text(raw: Raw) -> str:
    content = raw.content
    return (content if isinstance(content, str) else json.dumps(content, default=str))[:_SHOWN]
