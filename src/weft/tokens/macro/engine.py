"""A server that batches, step by step, with whoever decides on order and admission beside it.

Each step gives a token to every request in the batch, and takes prompts along as far as its limit
of tokens goes. Requests join between steps, in the order that is asked for each time, while there
is room for them and for the answers that they will get; nobody is sent away later. Between two
changes of the batch, steps are worked out at once.

It is the oracle of `weft.tokens.macro.batching`, with which it shares the times of steps and
nothing else, and the floor on which `weft.tokens.macro.market` compares mechanisms.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass

import numpy as np

from weft.core.errors import InfeasibleError
from weft.tokens.macro.orders import FifoOrder, Order
from weft.tokens.serving.steps import StepTimes

__all__ = ["Engine", "Job"]

MAX_SEQUENCES, STEP_TOKENS = 256, 2048
"""Most requests in a batch, and tokens in a step. Chosen: settings that are common in use."""
_FEW = 6
"""Steps up to which a loop is quicker than an array. Chosen."""


@dataclass(slots=True)
class Job:
    """A request on its way.

    Attributes:
        arrival_s: when it comes [s].
        fresh: tokens of its prompt that are computed.
        cached: those that are there already.
        output: tokens of its answer.
        path: its payer, and the identity that it comes from.
        start_s, end_s: when it joins the batch and when it is done; NaN before that [s].
    """

    arrival_s: float
    fresh: int
    cached: int
    output: int
    path: tuple[str, ...] = ("", "")
    start_s: float = float("nan")
    end_s: float = float("nan")

    @property
    def place(self) -> int:
        """Tokens that it takes of the memory in the end."""
        return self.fresh + self.cached + self.output


@dataclass(slots=True)
class _Prompt:
    """A prompt that is being computed: whose, and how many tokens are done."""

    number: int
    job: Job
    done: int = 0


class Engine:
    """A server at work.

    Args:
        times: of its steps.
        order: in which those who wait are served; first come, first served if None.
        max_sequences: most requests in the batch.
        step_tokens: most tokens in a step, beyond those of answers.

    Attributes:
        now: [s].
        jobs: all that came.
        waiting: how many have not started.
        present: how many are there.
        area, square: integrals of `present` and its square over time [s].
        served: tokens of prompts and answers, by payer.
        started: numbers of the jobs that joined the batch; whoever looks may empty it.
    """

    def __init__(
        self,
        times: StepTimes,
        order: Order | None = None,
        *,
        max_sequences: int = MAX_SEQUENCES,
        step_tokens: int = STEP_TOKENS,
    ) -> None:
        self.times, self.now = times, 0.0
        self.jobs: list[Job] = []
        self.waiting = self.present = 0
        self.area = self.square = 0.0
        self.served: Counter[str] = Counter()
        self.started: list[int] = []
        self._order = order if order is not None else FifoOrder()
        self._most, self._chunk = max_sequences, step_tokens
        self._prompts: list[_Prompt] = []
        self._ends: list[tuple[int, int]] = []  # step after which a request is done, and its number
        self._paths: Counter[tuple[str, ...]] = Counter()
        self._step = self._context = self._held = 0

    @property
    def token_s(self) -> float:
        """Of a step of answers with one request more in the batch [s]."""
        count, context = len(self._ends) + 1, self._context
        return self._seconds(count, count, context, context)

    @property
    def batch(self) -> int:
        """Requests in the batch, those whose prompts are computed among them."""
        return self.present - self.waiting

    def submit(self, job: Job) -> None:
        """A request comes, now or later than all before.

        Raises:
            InfeasibleError: it would never fit.
        """
        if job.place > self.times.cache_tokens:
            raise InfeasibleError(
                need=f"room for the {job.place:,} tokens of a request",
                got=f"{self.times.cache_tokens:,}",
                options=("more devices", "a limit on requests"),
            )
        self.run(job.arrival_s)
        self._order.add(len(self.jobs), job.path)
        self.jobs.append(job)
        self.waiting += 1
        self.present += 1

    def run(self, until: float = float("inf")) -> None:
        """Work until then, or until nobody is there; a step that began is finished."""
        while self.now < until and self.present:
            self._admit()
            if self._prompts:
                self._mixed_step()
            else:
                self._answer_steps(until)
        if self.now < until < float("inf"):
            self.now = until

    def _admit(self) -> None:
        ahead = sum(own.job.fresh - own.done for own in self._prompts)
        # A prompt that is all cached takes no tokens, but its first step all the same.
        while self.waiting and self.batch < self._most and ahead < self._chunk:
            number = self._order.next()
            job = self.jobs[number]
            if self._held + job.place > self.times.cache_tokens:
                return
            self._order.take(number, job.path, job.fresh)
            job.start_s = self.now
            self.started.append(number)
            self.waiting -= 1
            self._held += job.place
            self._prompts.append(_Prompt(number, job))
            ahead += job.fresh

    def _mixed_step(self) -> None:
        """One step with some of the prompts."""
        answers, context = len(self._ends), self._context
        left, tokens, pairs, reads = self._chunk, answers, float(context), context
        ready: list[_Prompt] = []
        for own in self._prompts:
            piece = min(own.job.fresh - own.done, left)
            if not piece and own.job.fresh:
                break
            before = own.job.cached + own.done
            tokens += piece
            pairs += piece * (before + 0.5 * (piece + 1))
            reads += before
            left -= piece
            own.done += piece
            self.served[own.job.path[0]] += piece
            if own.done >= own.job.fresh:
                ready.append(own)
        self._pass(self._seconds(tokens, answers + len(ready), pairs, reads))
        self._answered(1)
        self._prompts = [own for own in self._prompts if own.done < own.job.fresh]
        for own in ready:  # the step of the last piece gives the first token of the answer
            self._context += own.job.fresh + own.job.cached + 1
            self._paths[own.job.path] += 1
            self._order.served(own.job.path, 1)
            self.served[own.job.path[0]] += 1
            heapq.heappush(self._ends, (self._step + own.job.output - 1, own.number))
        self._leave()

    def _answer_steps(self, until: float) -> None:
        """Steps of answers alone, until one is done or somebody may come."""
        count, steps = len(self._ends), self._ends[0][0] - self._step
        if steps <= _FEW:
            done = 0
            while done < steps and self.now < until:
                self._pass(self._seconds(count, count, self._context, self._context))
                self._context += count
                done += 1
            self._context -= done * count
        else:
            context = self._context + count * np.arange(steps, dtype=np.float64)
            each = np.max(
                [
                    own.fixed_s
                    + (own.token_s + own.sequence_s) * count
                    + (own.pair_s + own.context_token_s) * context
                    for own in self.times.resources
                ],
                axis=0,
            )
            ends = np.cumsum(each)
            done = min(int(np.searchsorted(ends, until - self.now)) + 1, steps)
            self._pass(float(ends[done - 1]))
        self._answered(done)
        self._leave()

    def _seconds(self, tokens: float, sequences: float, pairs: float, reads: float) -> float:
        return max(
            own.fixed_s
            + own.token_s * tokens
            + own.sequence_s * sequences
            + own.pair_s * pairs
            + own.context_token_s * reads
            for own in self.times.resources
        )

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        self.area += seconds * self.present
        self.square += seconds * self.present**2

    def _answered(self, steps: int) -> None:
        """Every request in the batch whose prompt is done got so many tokens."""
        self._step += steps
        self._context += steps * len(self._ends)
        for path, count in self._paths.items():
            self._order.served(path, steps * count)
            self.served[path[0]] += steps * count

    def _leave(self) -> None:
        while self._ends and self._ends[0][0] <= self._step:
            job = self.jobs[heapq.heappop(self._ends)[1]]
            job.end_s = self.now
            self._context -= job.place
            self._held -= job.place
            self.present -= 1
            self._paths[job.path] -= 1
            if not self._paths[job.path]:
                del self._paths[job.path]
