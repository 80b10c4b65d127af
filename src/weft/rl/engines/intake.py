"""Which prompts are begun, by whom, and that each is trained on once.

A job is leave to answer some prompts with weights of one version. Numbers of prompts are given out
in order. Where a job is given up, because who did it has died, they are given out again, before any
others. What was put is in the buffer, what is out is in a job, so a snapshot of both, and of the
next number, accounts for every prompt.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weft.core.errors import InputError
from weft.rl.buffer import Reservation, SampleBuffer
from weft.rl.rollout import Rollout

__all__ = ["Intake", "Job", "whole_share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Leave to answer prompts.

    Attributes:
        version: of the weights to do it with.
        numbers: of the prompts.
        reservations: one for each prompt.
    """

    version: int
    numbers: tuple[int, ...]
    reservations: tuple[Reservation, ...]


class Intake:
    """Gives out prompts as far as their answers can be trained in time, and takes the answers in.

    Safe to use from several threads.

    Args:
        buffer: where answers go; its batch is what a step trains on.
        group: answers to each prompt.
        job: prompts in a job.

    Raises:
        InputError: groups that do not make up a batch.

    Example:
        >>> intake = Intake(SampleBuffer(4, 1), group=2, job=1)
        >>> first, second = intake.begin(0), intake.begin(0)
        >>> intake.begin(0) is None  # no more could be trained in time
        True
        >>> intake.give_up(first)
        >>> second.numbers, intake.begin(0).numbers
        ((1,), (0,))
    """

    def __init__(self, buffer: SampleBuffer[Rollout], *, group: int, job: int) -> None:
        if group < 1 or job < 1 or buffer.batch % group:
            raise InputError(
                need="a batch of whole groups, and at least one prompt in a job",
                got=f"a batch of {buffer.batch}, groups of {group}, jobs of {job}",
                hint="a batch is groups_per_step times group",
            )
        self.buffer = buffer
        self._group = group
        self._job = min(job, buffer.batch // group)
        self._lock = threading.Lock()
        self._next = 0
        self._returned: list[int] = []
        self._out: dict[int, Job] = {}  # by the first number, which no other job has
        self._fresh: tuple[int, list[float]] = (-1, [])

    @property
    def begun(self) -> int:
        """How many prompts were given out so far."""
        with self._lock:
            return self._next

    def begin(self, version: int) -> Job | None:
        """A job, if there is room for all of it; for a smaller one only where nothing is out.

        Args:
            version: of the weights that it will be done with.
        """
        with self._lock:
            count = self._job
            while not self.buffer.may_begin(version, count * self._group):
                count -= 1
                if count == 0 or self._out:
                    return None
            found = [self.buffer.reserve(version, self._group, together=True) for _ in range(count)]
            held = tuple(one for one in found if one is not None)
            assert len(held) == count, "nobody else reserves"
            job = Job(version=version, numbers=self._numbers(count), reservations=held)
            self._out[job.numbers[0]] = job
            return job

    def finish(self, job: Job, groups: Sequence[Sequence[Rollout]]) -> None:
        """Take in the answers, a group for each prompt of the job.

        Raises:
            InputError: a job that is not out, or groups of other prompts or another version.
        """
        wanted = [(number, job.version) for number in job.numbers]
        made = [{(one.number, one.version) for one in group} for group in groups]
        if made != [{one} for one in wanted]:
            raise InputError(
                need=f"answers to prompts {list(job.numbers)}, of version {job.version}",
                got=f"{[sorted(one) for one in made]}, as prompts and versions",
                hint="a job is done by who began it, with the weights of its version",
            )
        with self._lock:
            self._close(job)
            for reservation, group in zip(job.reservations, groups, strict=True):
                self.buffer.put(reservation, group)
            rewards = [one.reward for group in groups for one in group]
            version, fresh = self._fresh
            if job.version > version:
                self._fresh = (job.version, rewards)
            elif job.version == version:
                fresh.extend(rewards)

    def give_up(self, job: Job) -> None:
        """Its prompts are given out again, before any others.

        Raises:
            InputError: a job that is not out.
        """
        with self._lock:
            self._close(job)
            for reservation in job.reservations:
                self.buffer.give_up(reservation)
            self._returned = sorted([*self._returned, *job.numbers])

    def fresh_reward(self) -> float | None:
        """Mean reward of answers that came in since this was last asked.

        Of these, those that were begun with the newest weights. None if there are none.
        """
        with self._lock:
            rewards = self._fresh[1]
            self._fresh = (-1, [])
            return sum(rewards) / len(rewards) if rewards else None

    def state_dict(self) -> dict[str, Any]:
        """Samples, and what is to be given out: plain values. Jobs that are out will be again."""
        with self._lock:
            held = self.buffer.state_dict()
            waiting = [
                {**entry, "values": [rollout.to_plain() for rollout in entry["values"]]}
                for entry in held["waiting"]
            ]
            out = [number for job in self._out.values() for number in job.numbers]
            return {
                "buffer": {**held, "waiting": waiting},
                "next": self._next,
                "returned": sorted([*self._returned, *out]),
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` made, in place of all that is here.

        Raises:
            MismatchError: it holds more samples than there is room for.
        """
        held = state["buffer"]
        waiting = [
            {
                **entry,
                "age": tuple(entry["age"]),
                "values": tuple(map(Rollout.from_plain, entry["values"])),
            }
            for entry in held["waiting"]
        ]
        with self._lock:
            self.buffer.load_state_dict({**held, "waiting": waiting})
            self._next = int(state["next"])
            self._returned = sorted(map(int, state["returned"]))
            self._out = {}
            self._fresh = (-1, [])

    def _numbers(self, count: int) -> tuple[int, ...]:
        again, self._returned = self._returned[:count], self._returned[count:]
        new = range(self._next, self._next + count - len(again))
        self._next += len(new)
        return (*again, *new)

    def _close(self, job: Job) -> None:
        if self._out.get(job.numbers[0]) is not job:
            raise InputError(
                need="a job that is out",
                got=f"that of prompts {list(job.numbers)}: done or given up",
                hint="begin another",
            )
        del self._out[job.numbers[0]]


def whole_share(groups: int, parts: int) -> int:
    """Prompts in a job where a step's are to be spread: the largest that divides them evenly.

    Args:
        groups: prompts in a step.
        parts: how many jobs they shall at least make.

    Example:
        >>> whole_share(16, 3), whole_share(16, 40), whole_share(16, 1)
        (4, 1, 16)
    """
    return next(size for size in range(max(1, groups // parts), 0, -1) if groups % size == 0)
