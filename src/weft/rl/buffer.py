"""Samples between those who make them and the one who trains on them, none too old or lost.

    held = buffer.reserve(version, count=8, together=True)         # a producer, before it begins
    buffer.put(held, samples)
    ticket = buffer.take(32, timeout=60.0)                         # the trainer
    buffer.done(ticket, version=step)

Admission. A sample that is thrown away because it took too long makes training see short ones more
often. So nothing is thrown away here: what would become too old is not begun. Let B be the samples
in a batch and L the largest lag in versions. For each k from 0 to L, what has to be trained within
k more versions must fit into the k + 1 batches that are trained until then:

    trained or in training now + waiting or in flight of a version <= now + k - L    <=    (k + 1) B

For k = L this says that no more than (L + 1) B samples exist that are not trained yet; L = 0 is
synchronous training. `take` keeps the same bounds: it waits for a sample in flight where training
the others first would make that one too old. So no sample is older than L when it is trained, as
long as each new version comes from one batch and is told together with `done`.

Versions count batches that were trained. A sample is as old as the weights that it was begun with.

Source: bounding what is begun by the version follows Fu et al. 2025, arXiv 2505.24298;
the bounds for k < L, which also hold samples that take long, are our own.
"""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Generic, TypeVar

from weft.core.errors import InputError, MismatchError

__all__ = ["Reservation", "SampleBuffer", "Ticket"]

Value = TypeVar("Value")

_AGE = attrgetter("age")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Leave to make samples.

    Attributes:
        number: which, in the order they were given.
        version: of the weights that the samples are made with.
        count: how many.
        together: whether the samples stay together.
        begun_s: when it was given, on the buffer's clock [s].
    """

    number: int
    version: int
    count: int
    together: bool
    begun_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket(Generic[Value]):
    """Samples that were taken, until `done` or `back`; oldest first.

    Attributes:
        number: which.
        version: of the weights when they were taken.
        values: the samples, as they were put.
        versions: of the weights that each was begun with.
        groups: the number of the reservation that each was made on.
    """

    number: int
    version: int
    values: tuple[Value, ...]
    versions: tuple[int, ...]
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry(Generic[Value]):
    """What is taken at once: a sample, or a group that counts for `seats` samples.

    Its age orders it: by version, reservation and place on that.
    """

    age: tuple[int, int, int]
    seats: int
    values: tuple[Value, ...]


class SampleBuffer(Generic[Value]):
    """Holds samples by the version of the weights that made them, for any number of threads.

    Args:
        capacity: how many samples may be in flight, waiting and in training together.
        max_lag: how many versions old a sample may be when it is trained; 0 for none but new ones.
        batch: how many samples are trained from one version to the next. `capacity` split over
            `max_lag` + 1 batches if left out. A larger capacity than these batches is not used.
        clock: seconds from anywhere, for the age of reservations [s].

    Groups that stay together count for as many samples as were reserved, also where fewer came.
    Their size should divide a batch.

    Raises:
        InputError: a capacity below a batch, or an argument out of range.

    Example:
        >>> buffer = SampleBuffer(capacity=4, max_lag=1)
        >>> held = buffer.reserve(version=0, count=2)
        >>> buffer.put(held, ["a", "b"])
        >>> ticket = buffer.take(2)
        >>> buffer.done(ticket, version=1)
        >>> ticket.values, buffer.lags
        (('a', 'b'), {0: 2})
    """

    def __init__(
        self,
        capacity: int,
        max_lag: int,
        *,
        batch: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_lag = max_lag
        self.batch = capacity // max(1, max_lag + 1) if batch is None else batch
        if max_lag < 0 or not 1 <= self.batch <= capacity:
            raise InputError(
                need="a lag of at least 0, and room for a batch of at least one sample",
                got=f"capacity={capacity}, max_lag={max_lag}, batch={batch}",
                hint="a capacity of (max_lag + 1) batches; max_lag=0 trains on new samples only",
            )
        self.capacity = min(capacity, (max_lag + 1) * self.batch)
        self._clock = clock
        self._changed = threading.Condition()
        self._version = 0
        self._next = 0
        self._closed = False
        self._flying: dict[int, Reservation] = {}
        self._waiting: list[_Entry[Value]] = []
        self._taken: dict[int, tuple[Ticket[Value], Sequence[_Entry[Value]]]] = {}
        self._trained = 0  # seats, since the version began
        self._lags: Counter[int] = Counter()

    @property
    def version(self) -> int:
        """The newest version of the weights."""
        with self._changed:
            return self._version

    @property
    def in_flight(self) -> tuple[Reservation, ...]:
        """Reservations that were neither redeemed nor given up, oldest first."""
        with self._changed:
            return tuple(self._flying.values())

    @property
    def waiting(self) -> int:
        """How many samples wait for training."""
        with self._changed:
            return sum(len(entry.values) for entry in self._waiting)

    @property
    def taken(self) -> int:
        """How many samples were taken and neither trained nor put back."""
        with self._changed:
            return sum(len(ticket.values) for ticket, _ in self._taken.values())

    @property
    def lags(self) -> dict[int, int]:
        """How many samples were trained at each lag, smallest first."""
        with self._changed:
            return dict(sorted(self._lags.items()))

    def may_begin(self, version: int, count: int = 1) -> bool:
        """Whether `reserve` would succeed now; between the two, another producer may be faster."""
        with self._changed:
            self._check_request(version, count)
            return not self._closed and self._has_room(version, count)

    def reserve(
        self, version: int, count: int = 1, *, together: bool = False, timeout: float | None = 0.0
    ) -> Reservation | None:
        """Ask for leave to make samples.

        Args:
            version: of the weights that they will be begun with.
            count: how many.
            together: whether they are to be trained in one batch.
            timeout: how long to wait for it; None for as long as it takes [s].

        Returns:
            What `put` or `give_up` wants; None if there is no leave, at once where the version is
            so old that there never will be.

        Raises:
            InputError: a version from the future, more samples than there is ever room for, or a
                closed buffer.
        """
        with self._changed:
            self._check_request(version, count)
            self._changed.wait_for(
                lambda: self._closed or self._is_past(version) or self._has_room(version, count),
                timeout,
            )
            self._check_open("reserve")
            if not self._has_room(version, count):
                return None
            held = Reservation(
                number=self._number(),
                version=version,
                count=count,
                together=together,
                begun_s=self._clock(),
            )
            self._flying[held.number] = held
            return held

    def put(self, reservation: Reservation, samples: Iterable[Value]) -> None:
        """Hand over what was made. This redeems the whole reservation, also with fewer samples.

        Args:
            reservation: what they were made on.
            samples: at least one, at most as many as were reserved.

        Raises:
            InputError: another number of samples, a reservation not in flight, a closed buffer.
        """
        values = tuple(samples)
        with self._changed:
            self._check_open("put")
            held = self._held(reservation)
            if not 1 <= len(values) <= held.count:
                raise InputError(
                    need=f"between 1 and {held.count} samples, as reserved",
                    got=f"{len(values)}",
                    hint="give_up(reservation) where none was made",
                )
            del self._flying[held.number]
            parts = [values] if held.together else [(value,) for value in values]
            seats = held.count if held.together else 1
            for index, part in enumerate(parts):
                age = (held.version, held.number, index)
                insort(self._waiting, _Entry(age=age, seats=seats, values=part), key=_AGE)
            self._changed.notify_all()

    def give_up(self, reservation: Reservation) -> None:
        """Free what a producer will not make. What it puts later is refused."""
        with self._changed:
            del self._flying[self._held(reservation).number]
            self._changed.notify_all()

    def give_up_older(self, age_s: float) -> tuple[Reservation, ...]:
        """Give up, and return, what has been in flight for more than `age_s` seconds."""
        with self._changed:
            now = self._clock()
            lost = tuple(held for held in self._flying.values() if now - held.begun_s > age_s)
            for held in lost:
                del self._flying[held.number]
            self._changed.notify_all()
            return lost

    def take(self, count: int, timeout: float | None = None) -> Ticket[Value] | None:
        """Take the oldest samples, when there are as many and none in flight has to go first.

        A producer that died in flight can hold this up until its reservation is given up.

        Args:
            count: how many. Groups that stay together are taken as long as they fit whole.
            timeout: how long to wait; None for as long as it takes [s].

        Returns:
            The samples, to be told of by `done` or `back`; None if time is up.

        Raises:
            InputError: a count that can never be had, or a closed buffer that holds fewer.
        """
        with self._changed:
            self._check_count(count)
            self._changed.wait_for(lambda: self._closed or self._choose(count) is not None, timeout)
            chosen = self._choose(count)
            if chosen is None:
                self._check_open("take")
                return None
            entries = self._waiting[:chosen]
            del self._waiting[:chosen]
            ticket = Ticket(
                number=self._number(),
                version=self._version,
                values=tuple(value for entry in entries for value in entry.values),
                versions=tuple(entry.age[0] for entry in entries for _ in entry.values),
                groups=tuple(entry.age[1] for entry in entries for _ in entry.values),
            )
            self._taken[ticket.number] = ticket, entries
            return ticket

    def done(self, ticket: Ticket[Value], version: int | None = None) -> None:
        """Say that samples were trained; they are gone.

        Args:
            ticket: what `take` gave.
            version: of the weights that came out of it. Left out where more of the batch follows.

        Raises:
            InputError: a ticket that is not out, or a version below the current one.
        """
        with self._changed:
            entries = self._out(ticket)
            self._advance(self._version if version is None else version)
            del self._taken[ticket.number]
            if ticket.version == self._version:
                self._trained += _seats(entries)
            self._lags.update(ticket.version - version for version in ticket.versions)
            self._changed.notify_all()

    def back(self, ticket: Ticket[Value]) -> None:
        """Put samples back that were not trained, each to its place."""
        with self._changed:
            for entry in self._out(ticket):
                insort(self._waiting, entry, key=_AGE)
            del self._taken[ticket.number]
            self._changed.notify_all()

    def publish(self, version: int) -> None:
        """Say that there are new weights. After training, `done` says it without a gap."""
        with self._changed:
            self._advance(version)
            self._changed.notify_all()

    def close(self) -> None:
        """End it: nothing is begun or put any more, and nobody waits. What waits can be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def state_dict(self) -> dict[str, Any]:
        """All samples, those that were taken and not trained among the waiting ones.

        What is in flight is not in it: it is no sample yet, and who makes it may not survive.
        """
        with self._changed:
            out = [entry for _, entries in self._taken.values() for entry in entries]
            return {
                "version": self._version,
                "trained": self._trained,
                "next": self._next,
                "lags": dict(self._lags),
                "waiting": [
                    {field.name: getattr(entry, field.name) for field in fields(entry)}
                    for entry in sorted(self._waiting + out, key=_AGE)
                ],
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` made, in place of all that is here.

        Reservations and tickets of before are not known any more.

        Raises:
            MismatchError: it holds more samples than there is room for.
        """
        entries: list[_Entry[Value]] = [_Entry(**found) for found in state["waiting"]]
        if (seats := _seats(entries)) > self.capacity:
            raise MismatchError(
                need=f"at most {self.capacity} samples, which there is room for",
                got=f"{seats}",
                hint="make the buffer with the capacity, batch and lag of before",
            )
        with self._changed:
            self._version = int(state["version"])
            self._trained = int(state["trained"])
            self._next = max(self._next, int(state["next"]))  # no number is given twice
            self._lags = Counter(state["lags"])
            self._flying, self._taken = {}, {}
            self._waiting = sorted(entries, key=_AGE)
            self._changed.notify_all()

    # Decisions. Whoever calls these holds the lock.

    def _has_room(self, version: int, count: int) -> bool:
        """Whether that many more samples of a version can all be trained in time."""
        waiting = [(entry.age[0], entry.seats) for entry in self._waiting]
        rest = [(version, count), *self._flights(), *waiting]
        return not self._is_past(version) and self._fits(rest, self._busy(), since=version)

    def _choose(self, count: int) -> int | None:
        """How many entries make up a batch; None if there is something to wait for."""
        chosen = seats = 0
        while seats < count:
            if chosen == len(self._waiting):
                return None
            if seats + (more := self._waiting[chosen].seats) > count:
                break
            chosen, seats = chosen + 1, seats + more
        if not chosen:
            raise InputError(
                need=f"at least {self._waiting[0].seats} samples to take, as many as the oldest"
                " group has",
                got=f"{count}",
                hint="take a batch of whole groups",
            )
        if not (flights := self._flights()):
            return chosen
        rest = flights + [(entry.age[0], entry.seats) for entry in self._waiting[chosen:]]
        is_safe = self._fits(rest, self._busy() + seats, since=min(flights)[0])
        return chosen if is_safe else None

    def _fits(self, rest: Sequence[tuple[int, int]], busy: int, *, since: int) -> bool:
        """Whether the bounds hold for `rest` (versions and numbers of samples) beside a busy batch.

        Those on nothing but samples older than `since` are not looked at.
        """
        numbers: Counter[int] = Counter()
        for version, seats in rest:
            numbers[version] += seats
        for k in range(max(0, since + self.max_lag - self._version), self.max_lag + 1):
            last = self._version + k - self.max_lag
            due = sum(seats for version, seats in numbers.items() if version <= last)
            if busy + due > min((k + 1) * self.batch, self.capacity):
                return False
        return True

    def _flights(self) -> list[tuple[int, int]]:
        return [(held.version, held.count) for held in self._flying.values()]

    def _busy(self) -> int:
        return self._trained + sum(_seats(entries) for _, entries in self._taken.values())

    def _is_past(self, version: int) -> bool:
        return version + self.max_lag < self._version

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    def _advance(self, version: int) -> None:
        if version < self._version:
            raise InputError(
                need=f"a version of at least {self._version}, the newest that was published",
                got=f"version {version}",
                hint="versions count batches that were trained, and only grow",
            )
        if version > self._version:
            self._version, self._trained = version, 0

    def _held(self, reservation: Reservation) -> Reservation:
        held = self._flying.get(reservation.number)
        if held is None or held != reservation:
            raise InputError(
                need="a reservation in flight",
                got=f"number {reservation.number}: redeemed, given up, or of before a load",
                hint="reserve again",
            )
        return held

    def _out(self, ticket: Ticket[Value]) -> Sequence[_Entry[Value]]:
        found, entries = self._taken.get(ticket.number, (None, ()))
        if found is not ticket:
            raise InputError(
                need="a ticket that is out",
                got=f"number {ticket.number}: done, put back, or of before a load",
                hint="each ticket is told of once, by done or back",
            )
        return entries

    def _check_request(self, version: int, count: int) -> None:
        self._check_count(count)
        if version > self._version:
            raise InputError(
                need=f"a version of at most {self._version}, the newest that was published",
                got=f"version {version}, from the future",
                hint="publish(version), or done(ticket, version), before producers use it",
            )

    def _check_count(self, count: int) -> None:
        if not 1 <= count <= self.capacity:
            raise InputError(
                need=f"between 1 and {self.capacity} samples, which there is room for",
                got=f"{count}",
                hint=f"a batch is {self.batch}; make the buffer larger for more",
            )

    def _check_open(self, what: str) -> None:
        if self._closed:
            raise InputError(
                need=f"an open buffer to {what}",
                got="one that was closed",
                hint="close it when producers and trainer have ended",
            )


def _seats(entries: Iterable[_Entry[Any]]) -> int:
    return sum(entry.seats for entry in entries)
