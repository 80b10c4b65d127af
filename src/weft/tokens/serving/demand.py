"""What is asked of a server: requests of a trace, and what they amount to."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from weft.core.errors import FileError, InputError
from weft.tokens.adapters.envelope import seconds
from weft.tokens.serving.simulate import Request

__all__ = ["Demand", "demand_of", "load_requests", "peak_rate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Means over requests; products are means of products, since long prompts have long answers.

    Attributes:
        fresh, cached, output: tokens of a request.
        fresh_fresh, fresh_cached: of squares of fresh tokens, and of fresh times cached ones.
        output_output: of squares of tokens of answers.
        output_fresh, output_cached: of tokens of answers times those of prompts.
    """

    fresh: float
    cached: float
    output: float
    fresh_fresh: float
    fresh_cached: float
    output_output: float
    output_fresh: float
    output_cached: float

    def scaled(self, *, fresh: float = 1.0, cached: float = 1.0, output: float = 1.0) -> Demand:
        """All requests with so many times the tokens of a class.

        Example:
            >>> once = Demand(
            ...     fresh=2.0, cached=0.0, output=1.0, fresh_fresh=4.0, fresh_cached=0.0,
            ...     output_output=1.0, output_fresh=2.0, output_cached=0.0,
            ... )
            >>> once.scaled(fresh=3.0).fresh_fresh
            36.0
        """
        return replace(
            self,
            fresh=self.fresh * fresh,
            cached=self.cached * cached,
            output=self.output * output,
            fresh_fresh=self.fresh_fresh * fresh**2,
            fresh_cached=self.fresh_cached * fresh * cached,
            output_output=self.output_output * output**2,
            output_fresh=self.output_fresh * output * fresh,
            output_cached=self.output_cached * output * cached,
        )


def demand_of(requests: Sequence[Request]) -> Demand:
    """Means over requests.

    Raises:
        InputError: there are none, or they ask for nothing.
    """
    fresh, cached, output = (
        np.array([getattr(own, name) for own in requests], dtype=np.float64)
        for name in ("fresh", "cached_tokens", "output_tokens")
    )
    if not requests:
        raise InputError(
            need="requests", got="0 requests", hint="a trace needs a row for each of them"
        )

    def mean(values: np.ndarray) -> float:
        return float(values.mean())

    return Demand(
        fresh=mean(fresh),
        cached=mean(cached),
        output=mean(output),
        fresh_fresh=mean(fresh * fresh),
        fresh_cached=mean(fresh * cached),
        output_output=mean(output * output),
        output_fresh=mean(output * fresh),
        output_cached=mean(output * cached),
    )


_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
"""Source: Azure LLM inference traces of 2023 (Patel et al., Splitwise, arXiv 2311.18677)."""
_NAMES = {
    "TIMESTAMP": ("TIMESTAMP", "arrival_s"),
    "ContextTokens": ("ContextTokens", "input_tokens"),
    "GeneratedTokens": ("GeneratedTokens", "output_tokens"),
    "CachedTokens": ("CachedTokens", "cached_tokens"),
}
"""What columns may be called: as in those traces, or as fields of `Request`."""
_OTHERS = "arrival_s, input_tokens, output_tokens"


def load_requests(path: Path) -> tuple[Request, ...]:
    """Requests of a trace, in order of arrival, the first of them at 0 s.

    A CSV with columns TIMESTAMP (ISO 8601, in UTC without a zone, or seconds; thousandths and less
    are told by their size, as in logs), ContextTokens and GeneratedTokens, as the
    Azure LLM inference traces have them, and CachedTokens where some of the context is cached; or
    arrival_s, input_tokens, output_tokens and cached_tokens.

    Raises:
        FileError: the file cannot be read, or a row is no request; the error has its number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            found = _read(csv.DictReader(file), path)
    except (OSError, UnicodeError, csv.Error) as error:
        raise _bad(path, str(error)) from error
    if not found:
        raise _bad(path, "no requests")
    found.sort(key=lambda own: own.arrival_s)
    first = found[0].arrival_s
    return tuple(replace(own, arrival_s=own.arrival_s - first) for own in found)


def _read(rows: csv.DictReader[str], path: Path) -> list[Request]:
    head = rows.fieldnames or ()
    called = {column: name for column, names in _NAMES.items() for name in names if name in head}
    missing = [column for column in _COLUMNS if column not in called]
    if missing:
        raise _bad(path, f"no column {', '.join(missing)}")
    return [_request(row, called, path, number) for number, row in enumerate(rows, start=2)]


def _request(row: dict[str, str], called: Mapping[str, str], path: Path, number: int) -> Request:
    try:
        context, output = (int(row[called[column]]) for column in _COLUMNS[1:])
        return Request(
            arrival_s=seconds(row[called[_COLUMNS[0]]]),
            input_tokens=context,
            cached_tokens=int(row.get(called.get("CachedTokens", "")) or 0),
            output_tokens=output,
        )
    except InputError as error:
        raise _bad(path, f"line {number}: {_shown(row)}", error.need) from error
    except (TypeError, ValueError) as error:
        raise _bad(path, f"line {number}: {_shown(row)}", "whole numbers of tokens") from error


def _shown(row: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in row.items())[:200]


def _bad(path: Path, got: str, need: str = "") -> FileError:
    return FileError(
        need=need or f"a trace with columns {', '.join(_COLUMNS)}, or {_OTHERS}",
        got=f"{path}: {got}",
        hint="a row for each request: when it came, tokens of its prompt and of its answer",
    )


def peak_rate(arrivals_s: Iterable[float], window_s: float, share: float) -> float:
    """Requests a second that no more than `1 - share` of all windows go beyond [1/s]."""
    times = np.array(list(arrivals_s), dtype=np.float64)
    if not len(times):
        return 0.0
    windows = int(times.max() // window_s) + 1
    # Windows without a request are counted and not listed: a trace may have gaps of years.
    counts = np.sort(np.unique(times // window_s, return_counts=True)[1])
    place = min(windows - 1, math.ceil(share * windows) - 1) - (windows - len(counts))
    return float(counts[place]) / window_s if place >= 0 else 0.0
