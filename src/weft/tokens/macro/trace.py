"""Requests as they came: times and sizes, from a table, and what they take of a server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from weft.core.errors import InputError
from weft.tokens.macro.batching import Kind
from weft.tokens.micro.estimate import Floats, Ints
from weft.tokens.serving.demand import load_requests
from weft.tokens.serving.steps import StepLoad, StepTimes

__all__ = ["Trace", "read_trace", "server_seconds", "size_kinds"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Requests in the order of their arrival.

    Attributes:
        arrival_s: from zero on [requests] [s].
        fresh, cached, output: tokens [requests].

    Raises:
        InputError: there is none, or times go back.
    """

    arrival_s: Floats
    fresh: Ints
    cached: Ints
    output: Ints

    def __post_init__(self) -> None:
        sizes = (self.fresh, self.cached, self.output)
        if not len(self.arrival_s) or any(len(own) != len(self.arrival_s) for own in sizes):
            raise InputError(
                need="requests, each with an arrival and three numbers of tokens",
                got=f"{len(self.arrival_s)} arrivals",
                hint="read_trace reads a CSV file",
            )
        is_good = (np.diff(self.arrival_s) >= 0).all() and min(own.min() for own in sizes) >= 0
        if not is_good or self.output.min() < 1:
            raise InputError(
                need="arrivals in order, tokens of at least zero, and answers of at least one",
                got="others",
                hint="leave out requests that failed",
            )

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def seconds(self) -> float:
        """From the first arrival to the last [s]."""
        return float(self.arrival_s[-1] - self.arrival_s[0])

    def first(self, count: int) -> Trace:
        """The first so many."""
        return Trace(
            arrival_s=self.arrival_s[:count],
            fresh=self.fresh[:count],
            cached=self.cached[:count],
            output=self.output[:count],
        )

    def at_load(self, load: float, times: StepTimes, max_sequences: int) -> Trace:
        """The same requests, as much faster or slower that they ask for so much of a server.

        Raises:
            InputError: all come at one moment.
        """
        if not self.seconds > 0.0:
            raise InputError(
                need="requests at different times",
                got=f"{len(self)} at one moment",
                hint="there is no rate of them that could be stretched",
            )
        asked = float(server_seconds(self, times, max_sequences).sum()) / self.seconds
        return replace(self, arrival_s=self.arrival_s * (asked / load))


def read_trace(path: Path) -> Trace:
    """Requests of a table, see `weft.tokens.serving.load_requests`.

    Args:
        path: a CSV file.

    Raises:
        FileError: it cannot be read, or a row is no request.
    """
    requests = load_requests(path)
    return Trace(
        arrival_s=np.array([own.arrival_s for own in requests]),
        fresh=np.array([own.fresh for own in requests]),
        cached=np.array([own.cached_tokens for own in requests]),
        output=np.array([own.output_tokens for own in requests]),
    )


def server_seconds(trace: Trace, times: StepTimes, max_sequences: int) -> Floats:
    """What each request takes of a server whose batch is full [requests] [s].

    The seconds that a step with prompts and answers in their proportion takes are those of its
    busiest resource; each request is charged its part of them.

    Args:
        trace: requests.
        times: of steps.
        max_sequences: most requests in a batch.
    """
    sizes = (trace.fresh, trace.cached, trace.output)
    fresh, cached, output = (own.astype(np.float64) for own in sizes)
    place = fresh + cached + output
    held = float(output @ place) / float(output.sum())
    room = min(float(max_sequences), times.cache_tokens / held)
    context = place - 0.5 * output
    prompts = room * len(trace) / float(output.sum())
    own = (
        fresh + output,
        output,
        fresh * (cached + 0.5 * (fresh + 1.0)) + output * context,
        cached + output * context,
    )
    whole = StepLoad(*(float(column.mean()) * prompts for column in own))
    busy = max(times.resources, key=lambda resource: resource.seconds(whole))
    slope = (busy.token_s, busy.sequence_s, busy.pair_s, busy.context_token_s)
    parts = [cost * column for cost, column in zip(slope, own, strict=True)]
    return np.sum(parts, axis=0) + busy.fixed_s * output / room


def size_kinds(trace: Trace, bins: int) -> tuple[tuple[Kind, ...], Ints]:
    """Kinds of requests that stand for those of a trace.

    Requests are parted by the length of their prompts, and each part by that of its answers, into
    parts of about the same number; each part is the kind of its means.

    Args:
        trace: requests.
        bins: parts of each; the kinds are at most the square of that.

    Returns:
        The kinds, and the number of the kind of each request [requests].
    """
    kinds: list[Kind] = []
    which = np.zeros(len(trace), dtype=np.int64)
    for some in _parts(trace.fresh + trace.cached, np.arange(len(trace)), bins):
        for own in _parts(trace.output, some, bins):
            which[own] = len(kinds)
            answers = trace.output[own].astype(np.float64)
            kinds.append(
                Kind(
                    fresh=float(trace.fresh[own].mean()),
                    cached=float(trace.cached[own].mean()),
                    output=float(answers.mean()),
                    square=float((answers**2).mean()),
                )
            )
    return tuple(kinds), which


def _parts(sizes: Ints, some: Ints, bins: int) -> list[Ints]:
    """Some requests, parted at the quantiles of their sizes."""
    edges = np.quantile(sizes[some], np.linspace(0.0, 1.0, bins + 1)[1:-1])
    place = np.searchsorted(edges, sizes[some])
    return [some[place == part] for part in range(bins) if bool((place == part).any())]
