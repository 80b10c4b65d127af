"""A fleet in this process: samples whose lag is what was asked for, the same in each run.

For studies, and for machines with one processor. Samples are made between steps, with the weights
of the moment, and come in later as if somebody else had taken that long over them.

    fifo    in the order in which they were begun: after a start, each is exactly `max_lag` old
    random  in any order that the buffer's bounds on age leave, of a supply that swings between one
            batch and all that is allowed: lags from 0 to `max_lag`, mixed within a batch

In order, nothing is out when a step ends, and a run that was broken off goes on bit for bit.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from weft.rl.engines.intake import Intake, Job
from weft.rl.rollout import Rollout
from weft.rl.sampling import make_sampler, roll
from weft.rl.task import Task
from weft.rl.weights import Weights

__all__ = ["LocalFleet", "Order"]

Order = Literal["fifo", "random"]


class LocalFleet:
    """Makes samples when it is asked to work.

    Args:
        intake: what gives out prompts and takes answers.
        task: what is answered.
        seed: of the run.
        order: in which samples come in.
    """

    patience_s = 0.0
    """How long the trainer waits for samples before it asks again [s]: they are made when asked."""

    def __init__(self, intake: Intake, task: Task, *, seed: int, order: Order = "fifo") -> None:
        self._intake = intake
        self._task = task
        self._sampler = make_sampler(task)
        self._seed = seed
        self._order: Order = order
        self._version = 0
        self._supply = 0
        self._chance = np.random.default_rng(seed)
        self._held: list[tuple[Job, tuple[tuple[Rollout, ...], ...]]] = []

    def publish(self, version: int, weights: Weights) -> None:
        """Use these weights for what is begun from now on."""
        self._sampler.load(weights)
        self._version = version
        buffer = self._intake.buffer
        self._supply = buffer.capacity
        if self._order == "random":
            self._supply = int(self._chance.integers(buffer.batch, buffer.capacity, endpoint=True))

    def work(self) -> bool:
        """Do a job, if one may be begun; else, in random order, let one of those done come in."""
        if self._is_short() and (job := self._intake.begin(self._version)) is not None:
            made = roll(
                self._task,
                self._sampler,
                job.numbers,
                version=job.version,
                seed=self._seed,
            )
            if self._order == "fifo":
                self._intake.finish(job, made)
            else:
                self._held.append((job, made))
            return True
        if self._held:
            self._intake.finish(*self._held.pop(int(self._chance.integers(len(self._held)))))
        return False

    def _is_short(self) -> bool:
        buffer = self._intake.buffer
        return buffer.waiting + sum(held.count for held in buffer.in_flight) < self._supply

    def close(self) -> None:
        """Give up what is under way."""
        for job, _ in self._held:
            self._intake.give_up(job)
        self._held = []
