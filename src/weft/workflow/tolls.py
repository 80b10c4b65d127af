"""What a server should charge by how full it is: requests of a trace or a ledger, and its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from weft.core.errors import InputError
from weft.tokens.classes import TokenClass
from weft.tokens.ledger import Ledger
from weft.tokens.macro.batching import BatchServer
from weft.tokens.macro.tariff import Tariff, tariff
from weft.tokens.macro.trace import Trace, read_trace, size_kinds
from weft.tokens.serving import StepTimes

__all__ = ["Requests", "TollReport", "read_requests", "toll_report"]

LOADS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
"""Shown where nobody asks for others. Chosen."""
_LEAST = 1e-6
"""Of loads. Chosen: below it nobody meets anybody."""
_BINS = 4
_SQLITE = b"SQLite format 3\x00"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """Requests that were read.

    Attributes:
        name: of the file.
        trace: they.
        left_out: of a ledger, calls without known counts or without an answer.
    """

    name: str
    trace: Trace
    left_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TollReport:
    """Tolls by load.

    Attributes:
        source: where requests are from.
        requests: how many.
        rate: at which they came, on average; NaN where all came at one moment [1/s].
        load: which that is of the server; likewise.
        delay_usd_per_s: what a second of delay costs a request [usd/s].
        rows: rates of requests [1/s] and the tariff at them, by load.
    """

    source: str
    requests: int
    rate: float
    load: float
    delay_usd_per_s: float
    rows: tuple[tuple[float, Tariff], ...]


def read_requests(path: Path, *, model: str = "") -> Requests:
    """Requests of a trace (CSV) or of a ledger.

    Args:
        path: of either.
        model: of a ledger, the calls of this model alone; all if empty.

    Raises:
        FileError: it is neither.
        InputError: no request is left.
    """
    try:
        with path.open("rb") as file:
            is_ledger = file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        is_ledger = False
    if not is_ledger:
        return Requests(name=str(path), trace=read_trace(path))
    rows: list[tuple[float, int, int, int]] = []
    left_out = 0
    with Ledger(path) as ledger:
        for call in ledger.calls():
            if model and call.model != model:
                continue
            cached = call.usage[TokenClass.CACHE_READ]
            counts = (call.usage.input, cached, call.usage.output)
            if not all(own.is_exact for own in counts) or call.usage.output.low < 1:
                left_out += 1
                continue
            fresh = call.usage.input.low - cached.low
            rows.append((call.at, fresh, cached.low, call.usage.output.low))
    if not rows:
        raise InputError(
            need="calls whose tokens are known",
            got=f"none in {path}{f' of {model}' if model else ''}, {left_out} of others",
            hint="weft tokens report says what is unknown, and which models there are",
        )
    columns = np.array(rows)
    trace = Trace(
        arrival_s=columns[:, 0] - columns[0, 0],
        fresh=columns[:, 1].astype(np.int64),
        cached=columns[:, 2].astype(np.int64),
        output=columns[:, 3].astype(np.int64),
    )
    return Requests(name=str(path), trace=trace, left_out=left_out)


def toll_report(
    requests: Requests,
    times: StepTimes,
    *,
    delay_usd_per_s: float,
    loads: Sequence[float] = LOADS,
    max_sequences: int = 256,
) -> TollReport:
    """Tolls of a server that gets such requests.

    Args:
        requests: whose mix of sizes is taken.
        times: of the server's steps.
        delay_usd_per_s: what a second of delay costs a request [usd/s].
        loads: shares of what the server can do.
        max_sequences: most requests in a batch.

    Raises:
        InputError: a load is not between 0 and 1, or a second of delay costs less than nothing.
        InfeasibleError: a request does not fit.
    """
    is_good = bool(loads) and all(_LEAST <= load < 1.0 for load in loads)
    if not is_good or not delay_usd_per_s >= 0.0:
        raise InputError(
            need=f"loads between 0 and 1, at least {_LEAST:g}, and a cost of delay of at least 0",
            got=f"{', '.join(map(str, loads))}; {delay_usd_per_s} usd/s",
            hint="at a load of 1 a queue grows without end",
        )
    kinds, which = size_kinds(requests.trace, _BINS)
    # n requests have n - 1 times between them; those of one moment have sizes and no rate.
    seconds, between = requests.trace.seconds, len(requests.trace) - 1
    rate = between / seconds if seconds > 0.0 else math.nan
    mix = np.bincount(which, minlength=len(kinds)) / len(requests.trace)
    server = BatchServer(times, kinds, max_sequences)
    whole = server.load(mix)
    costs = np.full(len(kinds), delay_usd_per_s)
    rows: list[tuple[float, Tariff]] = []
    for load in sorted(loads):
        rates = mix * load / whole
        rows.append((float(rates.sum()), replace(tariff(server, rates, costs), load=load)))
    return TollReport(
        source=requests.name,
        requests=len(requests.trace),
        rate=rate,
        load=whole * rate,
        delay_usd_per_s=delay_usd_per_s,
        rows=tuple(rows),
    )
