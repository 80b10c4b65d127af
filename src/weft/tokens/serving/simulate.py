"""A server of a model at work on requests as they come, from step to step.

In each step every request whose prompt is done gets a token, and prompts are computed along with
that, up to a limit of tokens (chunked prefill). Requests join between steps, in the order in which
they came, if there is a place in the batch and room for the keys and values of their prompt and of
their whole answer; so nobody is sent away later. The step with the last piece of a prompt gives the
first token of its answer.

Steps between two changes of the batch are worked out at once. Each resource of a `StepTimes` is
busy for a time that grows by the same amount from one such step to the next, so a stretch of steps
is a sum of parts of lines, and the step that an arrival falls into is the root of a quadratic.

Source: batching between steps, Yu et al., Orca, OSDI 2022, section 4.1; chunked prefill, Agrawal et
al., Sarathi-Serve, OSDI 2024, section 4.2.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, isfinite, sqrt

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import InfeasibleError, InputError
from weft.tokens.serving.steps import StepLoad, StepTimes

__all__ = ["MAX_SEQUENCES", "STEP_TOKENS", "Request", "Served", "serve"]

MAX_SEQUENCES = 256
"""Most requests in a batch unless asked otherwise. Source: vLLM, `max_num_seqs`."""
STEP_TOKENS = 2048
"""Most tokens of prompts in a step unless asked otherwise. Source: vLLM,
`max_num_batched_tokens` with chunked prefill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call.

    Attributes:
        arrival_s: when it comes [s].
        input_tokens: of its prompt, cached ones among them.
        cached_tokens: those of them whose keys and values are there already.
        output_tokens: of its answer, one or more.
        payer: whose it is.

    Raises:
        InputError: a number is negative, or there is no prompt or no answer.

    Example:
        >>> Request(arrival_s=0.0, input_tokens=1000, cached_tokens=800, output_tokens=50).fresh
        200
    """

    arrival_s: float
    input_tokens: int
    cached_tokens: int = 0
    output_tokens: int
    payer: str = ""

    def __post_init__(self) -> None:
        if not (
            isfinite(self.arrival_s)
            and 0 <= self.cached_tokens <= self.input_tokens
            and self.input_tokens >= 1
            and self.output_tokens >= 1
        ):
            raise InputError(
                need="a prompt and an answer of at least one token, and no more cached than sent",
                got=f"{self}",
                hint="leave out requests that failed",
            )

    @property
    def fresh(self) -> int:
        """Tokens of the prompt that have to be computed."""
        return self.input_tokens - self.cached_tokens

    @property
    def tokens(self) -> int:
        """Of prompt and answer together: so many keys and values it has in the end."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """What became of requests, in the order in which they were given.

    Attributes:
        requests: they.
        start_s: when each joined the batch [requests] [s].
        first_token_s: when each got the first token of its answer [requests] [s].
        done_s: when each was done [requests] [s].
        steps: of the server.
        busy_s: for how long there was a step [s].
        total: of all steps.
        held_token_s: integral over time of the tokens that memory was set aside for [s].
        batch_s: integral over time of the requests in the batch [s].
    """

    requests: tuple[Request, ...]
    start_s: NDArray[np.float64]
    first_token_s: NDArray[np.float64]
    done_s: NDArray[np.float64]
    steps: int
    busy_s: float
    total: StepLoad
    held_token_s: float
    batch_s: float

    @cached_property
    def arrival_s(self) -> NDArray[np.float64]:
        """When each came [requests] [s]."""
        return np.array([own.arrival_s for own in self.requests])

    @property
    def elapsed_s(self) -> float:
        """From the first arrival until all were done [s]."""
        return float(self.done_s.max() - self.arrival_s.min())

    @property
    def delay_s(self) -> NDArray[np.float64]:
        """From arrival to done [requests] [s]."""
        return self.done_s - self.arrival_s

    def resource_s(self, times: StepTimes) -> dict[str, float]:
        """For how long each resource of the server was busy, by its name [s]."""
        return {
            own.name: own.seconds(self.total) + own.fixed_s * (self.steps - 1)
            for own in times.resources
        }


def serve(
    arrivals: Sequence[Request],
    times: StepTimes,
    *,
    max_sequences: int = MAX_SEQUENCES,
    step_tokens: int = STEP_TOKENS,
) -> Served:
    """Let a server work until all requests are done.

    Args:
        arrivals: requests, in any order; of those that come at once, the first given is first.
        times: of steps of the server.
        max_sequences: most requests in the batch.
        step_tokens: most tokens of prompts in a step.

    Raises:
        InputError: there is no request, or room for none.
        InfeasibleError: a request has more tokens than fit into memory.

    Example:
        >>> from weft.tokens.serving.steps import ResourceTime
        >>> times = StepTimes((ResourceTime("memory", fixed_s=0.010),), cache_tokens=10_000)
        >>> call = Request(arrival_s=1.0, input_tokens=5000, output_tokens=100)
        >>> done = serve([call], times)
        >>> done.steps, round(float(done.first_token_s[0]), 3), round(float(done.done_s[0]), 3)
        (102, 1.03, 2.02)
    """
    if not arrivals or max_sequences < 1 or step_tokens < 1:
        raise InputError(
            need="a request or more, a place in the batch or more, and steps of a token or more",
            got=f"{len(arrivals)} requests, {max_sequences} places, steps of {step_tokens} tokens",
            hint="arrivals of a trace, for example",
        )
    largest = max(own.tokens for own in arrivals)
    if largest > times.cache_tokens:
        raise InfeasibleError(
            need=f"room for the keys and values of {largest:,} tokens, as one request has",
            got=f"{times.cache_tokens:,}",
            options=("more devices", "a limit on the length of requests"),
        )
    return _Server(tuple(arrivals), times, max_sequences, step_tokens).run()


class _Server:
    """One that works."""

    def __init__(
        self, requests: tuple[Request, ...], times: StepTimes, most: int, chunk: int
    ) -> None:
        self.requests, self.most, self.chunk = requests, most, chunk
        self.costs = [
            (r.fixed_s, r.token_s, r.sequence_s, r.pair_s, r.context_token_s)
            for r in times.resources
        ]
        order = sorted(range(len(requests)), key=lambda n: requests[n].arrival_s)
        self.coming = deque(order)
        self.prompts: deque[list[int]] = deque()  # number, tokens to compute, tokens before them
        self.ends: list[tuple[int, int]] = []  # the step that is its last one, and its number
        self.free, self.batch, self.context, self.ahead = times.cache_tokens, 0, 0, 0
        self.room = times.cache_tokens
        self.now, self.step, self.busy = 0.0, 0, 0.0
        self.held_token_s = self.batch_s = 0.0
        self.tokens = self.sequences = self.reads = 0
        self.pairs = 0.0
        self.start = np.zeros(len(requests))
        self.first = np.zeros(len(requests))
        self.done = np.zeros(len(requests))

    def run(self) -> Served:
        while self.coming or self.batch:
            if not self.batch:
                self.now = max(self.now, self.requests[self.coming[0]].arrival_s)
            self._admit()
            if self.prompts:
                self._with_prompts()
            else:
                self._answers_only()
        return Served(
            requests=self.requests,
            start_s=self.start,
            first_token_s=self.first,
            done_s=self.done,
            steps=self.step,
            busy_s=self.busy,
            total=StepLoad(self.tokens, self.sequences, self.pairs, self.reads),
            held_token_s=self.held_token_s,
            batch_s=self.batch_s,
        )

    def _admit(self) -> None:
        while self.coming and self.batch < self.most and self.ahead < self.chunk:
            number = self.coming[0]
            own = self.requests[number]
            if own.arrival_s > self.now or own.tokens > self.free:
                return
            self.coming.popleft()
            self.start[number] = self.now
            self.free -= own.tokens
            self.batch += 1
            self.ahead += own.fresh
            self.prompts.append([number, own.fresh, own.cached_tokens])

    def _with_prompts(self) -> None:
        """One step, with as much of the prompts as goes into it."""
        answers = len(self.ends)
        left, tokens, pairs, reads = self.chunk, answers, float(self.context), self.context
        ready: list[int] = []
        for entry in self.prompts:
            number, wanted, before = entry
            piece = min(wanted, left)
            if wanted and not piece:
                break
            tokens += piece
            pairs += piece * (before + 0.5 * (piece + 1))
            reads += before
            left -= piece
            entry[1], entry[2] = wanted - piece, before + piece
            if wanted == piece:
                ready.append(number)
        self.ahead -= self.chunk - left
        sequences = answers + len(ready)
        seconds = max(
            fixed + token * tokens + sequence * sequences + pair * pairs + read * reads
            for fixed, token, sequence, pair, read in self.costs
        )
        self._pass(1, seconds)
        self.tokens += tokens
        self.sequences += sequences
        self.pairs += pairs
        self.reads += reads
        self.context += answers
        self._leave()
        for number in ready:
            self.prompts.popleft()
            own = self.requests[number]
            self.first[number] = self.now
            if own.output_tokens == 1:
                self._end(number)
            else:
                self.context += own.input_tokens + 1
                heapq.heappush(self.ends, (self.step + own.output_tokens - 1, number))

    def _answers_only(self) -> None:
        """Steps that give tokens alone, until one is done or somebody can join."""
        count, context = len(self.ends), self.context
        lines = [
            (fixed + (token + sequence) * count + (pair + read) * context, (pair + read) * count)
            for fixed, token, sequence, pair, read in self.costs
        ]
        until = float("inf")
        if self.coming and self.batch < self.most:
            own = self.requests[self.coming[0]]
            # Who waits for memory waits until somebody leaves, which ends the stretch anyway.
            until = own.arrival_s - self.now if own.tokens <= self.free else until
        steps, seconds = stretch(lines, self.ends[0][0] - self.step, until)
        grown = count * steps * (steps - 1) // 2
        self._pass(steps, seconds)
        self.tokens += count * steps
        self.sequences += count * steps
        self.pairs += context * steps + grown
        self.reads += context * steps + grown
        self.context += count * steps
        self._leave()

    def _pass(self, steps: int, seconds: float) -> None:
        self.now += seconds
        self.busy += seconds
        self.step += steps
        self.held_token_s += seconds * (self.room - self.free)
        self.batch_s += seconds * self.batch

    def _leave(self) -> None:
        while self.ends and self.ends[0][0] == self.step:
            number = heapq.heappop(self.ends)[1]
            self.context -= self.requests[number].tokens
            self._end(number)

    def _end(self, number: int) -> None:
        self.done[number] = self.now
        self.free += self.requests[number].tokens
        self.batch -= 1


def stretch(
    lines: Sequence[tuple[float, float]], most: int, until: float = float("inf")
) -> tuple[int, float]:
    """Steps one after the other, of which number i takes the largest of a + b i.

    Args:
        lines: (a, b) of each resource, none negative [s].
        most: steps, one or more.
        until: no step begins after that [s].

    Returns:
        How many steps there are, at least one, and how long they take together [s].

    Example:
        >>> stretch([(4.0, 0.0), (1.0, 1.0)], 6)
        (6, 27.0)
        >>> stretch([(4.0, 0.0), (1.0, 1.0)], 6, until=17.0)
        (5, 21.0)
    """
    done, seconds = 0, 0.0
    while done < most and (not done or seconds < until):
        base, slope = max((a + b * done, b) for a, b in lines)
        # Until another resource takes longer.
        steps = most - done
        for a, b in lines:
            ahead, closing = base - a - b * done, b - slope
            if closing > 0.0 and ahead < closing * steps:
                steps = min(steps, int(ahead / closing) + 1)
        if until < float("inf"):
            steps = min(steps, _steps_within(base, slope, until - seconds))
        seconds += steps * base + slope * (steps * (steps - 1) // 2)
        done += steps
    return done, seconds


def _steps_within(base: float, slope: float, left: float) -> int:
    """Steps of base + slope i, the last of which is the first to end at `left` or later."""
    if base <= 0.0 and slope <= 0.0:
        return 2**62
    if left <= base:
        return 1
    half = 0.5 * slope
    if half * left < 1e-12 * base * base:
        return ceil(left / base)
    # n base + n (n - 1) slope / 2 = left
    middle = base - half
    return max(1, ceil((sqrt(middle * middle + 4.0 * half * left) - middle) / slope))
