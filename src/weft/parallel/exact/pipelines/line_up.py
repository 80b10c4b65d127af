"""Unlike groups in line: which of them does which stage, by a dynamic programme.

Groups of several kinds are given, of each kind some. A step of M micro-batches takes about

    (M - 1) * round + sum of all stages and of what crosses between them + longest end

where the end is what happens once a step. A round, from one micro-batch to the next, is at least as
long as what a micro-batch sends over a boundary takes. And it is at least as long as the mean of
any n stages that follow each other, n < M, with what crosses between them both ways: when the first
of them begins with a micro-batch, the one n before has to be back from all of them. With n = 2
these are the two ends of a slow link, with all that follow a stage what it has under way. From the
end: the least that pieces from i on take once, if so many groups of each kind are left and the next
is of kind k, is

    best over runs i to j and kinds of the group after it:
        stage(i, j) on a group of k, what crosses at j, least that pieces from j on take once

for several limits of a round. Kept to are the means of one stage, of a stage and the first of the
best that follow it, and of all from one to the last; those between are left to the simulator.

How many groups are left says how many micro-batches a stage holds; a run that does not fit a kind
recomputes what it has to, and takes the quickest way to share a micro-batch out inside a group that
fits. Groups of a kind are taken in the order of ranks, so which link leads to the next is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, product
from math import inf, sqrt
from typing import TypeAlias

import numpy as np

from weft.parallel.exact.pipelines.partition import SLACKS, Floats, Ints, Runs

__all__ = ["Inside", "Kind", "LineUps", "LinedUp"]

Counts: TypeAlias = tuple[int, ...]
"""Groups of each kind."""
_Key: TypeAlias = tuple[Counts, int]
"""Groups that are left, and the kind of the next of them."""
Crossing: TypeAlias = Callable[[int, int, int, int], tuple[Floats, Floats]]
"""From kind and number of a group, and those of the next: what a micro-batch takes from one to the
other, and back [s], of shape [pieces + 1], by the piece at which the latter begins."""

STEP = 1.02
"""Bisection of the shortest limit ends where one that is enough is so many times one that is not.
Chosen: pieces tell the step to two percent."""
ROUGH = (1.1, 1.4, 2.0, 4.0, inf)
"""Limits of a round that are tried at first, over one in which work is shared out evenly, until
there are stages under two of them. Derived: of 99 and 318 ways to cut TAG's testbed for BERT-large
and VGG-19 the best was one of the first ten so."""


@dataclass(frozen=True, slots=True)
class Inside:
    """A way to share out a micro-batch inside of a group.

    Attributes:
        runs: what runs of pieces take there, both ways, and whether they fit.
        finish_s: of each piece, what happens once a step [s].
    """

    runs: Runs
    finish_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """Groups that are alike.

    Attributes:
        count: how many there are.
        ways: to share out a micro-batch inside of one.
        limit_bytes: of each of their devices [bytes].
    """

    count: int
    ways: tuple[Inside, ...]
    limit_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LinedUp:
    """Stages on groups.

    Attributes:
        kinds: of the group of each stage.
        ways: how each shares out a micro-batch.
        cuts: first piece of each stage but the first.
        round_s: from one micro-batch to the next [s].
        once_s: of one micro-batch there and back, and of finishing the step [s].
    """

    kinds: tuple[int, ...]
    ways: tuple[int, ...]
    cuts: tuple[int, ...]
    round_s: float
    once_s: float

    def step_s(self, micro_batches: int) -> float:
        """Time of all micro-batches [s]."""
        return (micro_batches - 1) * self.round_s + self.once_s


@dataclass(frozen=True, slots=True)
class _Table:
    """Of runs of pieces on a kind, the quickest way that fits [s]; of shape [pieces, length]."""

    busy_s: Floats
    finish_s: Floats
    way: Ints


@dataclass(frozen=True, slots=True)
class _Rest:
    """Stages from a piece on, and what crosses before them; all of shape [pieces + 1].

    Attributes:
        sum_s: of one micro-batch there and back [s].
        finish_s: the longest of what they do once a step [s].
        next_s: the first of them [s].
    """

    sum_s: Floats
    finish_s: Floats
    next_s: Floats

    @property
    def once_s(self) -> Floats:
        """One micro-batch there and back, and finishing [s]."""
        return self.sum_s + self.finish_s


@dataclass(frozen=True, slots=True)
class _Reached:
    """The best stages from a piece on.

    Attributes:
        rest: what they take.
        length: pieces of the first of them, less one; of shape [pieces].
        after: by where it ends, the kind of the one after it, -1 after the last; [pieces + 1].
    """

    rest: _Rest
    length: Ints
    after: Ints


class LineUps:
    """Looks for the best stages on some groups; tables are worked out once.

    Args:
        kinds: groups; all of them are used.
        micro_batches: parts of the batch.
        crossing: what is sent.
        bounds: the lowest and the highest stage that each piece may be in, both rising.
        waits: whether all stages keep as many micro-batches as the first, as they may where
            gradients of weights wait; as in 1F1B if not.
    """

    def __init__(
        self,
        kinds: Sequence[Kind],
        micro_batches: int,
        crossing: Crossing,
        bounds: Sequence[tuple[int, int]],
        *,
        waits: bool = False,
    ) -> None:
        self._kinds, self._micro_batches, self._crossing = kinds, micro_batches, crossing
        self._waits, self._bounds = waits, bounds
        self._all = tuple(kind.count for kind in kinds)
        runs = kinds[0].ways[0].runs
        self._pieces = runs.num_pieces
        ends = np.arange(1, runs.longest + 1)[None, :] + np.arange(self._pieces)[:, None]
        self._ends = np.minimum(ends, self._pieces)
        self._order = sorted(product(*(range(n + 1) for n in self._all)), key=sum)[1:]
        self._is_free = all(bound == (0, sum(self._all) - 1) for bound in bounds)
        self._tables: dict[tuple[int, float], _Table] = {}
        self._sent: dict[tuple[int, int, int, int], tuple[Floats, Floats]] = {}

    def rough(self, round_s: float) -> LinedUp | None:
        """The best stages with rounds about as short as one can be; none if there are none.

        Args:
            round_s: what a round would take if work could be shared out in any proportion [s].
        """
        found = filter(None, (self.least(slack * round_s) for slack in ROUGH))
        return min(islice(found, 2), key=self._step_s, default=None)

    def best(self) -> list[LinedUp]:
        """The best stages under each limit of a round that is tried, best first; none if none fit.

        Of limits between the shortest and the longest that matter; what is found under a longer one
        takes less once.
        """
        free = self.least(inf)
        if free is None:
            return []
        found = {free}
        enough = free.round_s
        too_short = enough / self._micro_batches / sum(self._all)
        while enough > STEP * too_short:
            limit_s = sqrt(enough * too_short)
            one = self.least(limit_s)
            found |= set() if one is None else {one}
            enough, too_short = (enough, limit_s) if one is None else (limit_s, too_short)
        for slack in SLACKS:
            if slack * enough >= free.round_s:
                break  # what takes least once is below this limit and those after it
            one = self.least(slack * enough)
            found |= set() if one is None else {one}
        return sorted(found, key=lambda one: (self._step_s(one), one.kinds, one.cuts))

    def _step_s(self, own: LinedUp) -> float:
        return own.step_s(self._micro_batches)

    def least(self, limit_s: float) -> LinedUp | None:
        """Stages that take least once, with rounds below a limit; none if there are none."""
        reached: dict[_Key, _Reached] = {}
        for left in self._order:
            for kind in self._of(left):
                reached[left, kind] = self._best(left, kind, reached, limit_s)
        first = min(self._of(self._all), key=lambda kind: reached[self._all, kind].rest.once_s[0])
        if reached[self._all, first].rest.once_s[0] == inf:
            return None
        return self._followed(first, reached)

    @staticmethod
    def _of(left: Counts) -> Iterator[int]:
        """Kinds of which some are left."""
        return (kind for kind, count in enumerate(left) if count)

    def _best(
        self, left: Counts, kind: int, reached: Mapping[_Key, _Reached], limit_s: float
    ) -> _Reached:
        """The best stages on the groups that are left, the first of them of a kind."""
        rest, after = self._after(left, kind, reached, limit_s)
        table, ends = self._table(left, kind), self._ends
        busy_s = self._allowed(left, kind, table.busy_s)
        sum_s = busy_s + rest.sum_s[ends]
        finish_s = np.maximum(table.finish_s, rest.finish_s[ends])
        broken = busy_s > limit_s
        if self._micro_batches > 2:
            broken |= busy_s + rest.next_s[ends] > 2 * limit_s
        if self._micro_batches > sum(left):
            broken |= sum_s > sum(left) * limit_s
        sum_s = np.where(broken, inf, sum_s)
        length = np.argmin(sum_s + finish_s, axis=1)
        at = (np.arange(self._pieces), length)
        return _Reached(
            _Rest(
                np.append(sum_s[at], inf),
                np.append(finish_s[at], 0.0),
                np.append(busy_s[at], inf),
            ),
            length,
            after,
        )

    def _allowed(self, left: Counts, kind: int, busy_s: Floats) -> Floats:
        """How long runs take on a group of a kind that is followed by all the others [s]."""
        if self._is_free:
            return busy_s
        stage = sum(self._all) - sum(left)
        may_be = self._kinds[kind].ways[0].runs.may_be(stage, self._bounds)
        return np.where(may_be, busy_s, inf)

    def _table(self, left: Counts, kind: int) -> _Table:
        held = float(min(self._micro_batches, sum(self._all if self._waits else left)))
        if (kind, held) not in self._tables:
            self._tables[kind, held] = self._tabled(self._kinds[kind], held)
        return self._tables[kind, held]

    def _tabled(self, kind: Kind, held: float) -> _Table:
        """What runs take in the quickest way for each, finishing shared out over micro-batches."""
        busy = np.stack([own.runs.costs(held, kind.limit_bytes)[0] for own in kind.ways])
        finish = np.stack([self._sums(own.finish_s) for own in kind.ways])
        way = np.argmin(busy + finish / self._micro_batches, axis=0)

        def chosen(of: Floats) -> Floats:
            return np.take_along_axis(of, way[None], axis=0)[0]

        return _Table(chosen(busy), chosen(finish), way)

    def _sums(self, seconds: Sequence[float]) -> Floats:
        """Of runs, by first piece and length."""
        ends = np.array([*accumulate(seconds, initial=0.0)])
        return ends[self._ends] - ends[:-1, None]

    def _after(
        self, left: Counts, kind: int, reached: Mapping[_Key, _Reached], limit_s: float
    ) -> tuple[_Rest, Ints]:
        """What comes after a stage, by where that ends, on the kind where it takes least."""
        count = self._pieces + 1
        after = np.full(count, -1)
        remaining = _without(left, kind)
        if not sum(remaining):
            best = np.full(count, inf)
            best[-1] = 0.0
            return _Rest(best, np.zeros(count), np.zeros(count)), after
        several = [(own, *self._sending(left, kind, own)) for own in self._of(remaining)]
        ways: list[_Rest] = []
        for own, there, back in several:
            rest = reached[remaining, own].rest
            next_s = there + back + rest.next_s
            broken = np.maximum(there, back) > limit_s
            if self._micro_batches > 2:
                broken |= next_s > 2 * limit_s
            sum_s = np.where(broken, inf, there + back + rest.sum_s)
            ways.append(_Rest(sum_s, rest.finish_s, next_s))
        choice = np.argmin(np.stack([way.once_s for way in ways]), axis=0)

        def chosen(of: Callable[[_Rest], Floats]) -> Floats:
            return np.take_along_axis(np.stack(list(map(of, ways))), choice[None], axis=0)[0]

        best = _Rest(
            chosen(lambda way: way.sum_s),
            chosen(lambda way: way.finish_s),
            chosen(lambda way: way.next_s),
        )
        return best, np.array([own for own, _, _ in several])[choice]

    def _sending(self, left: Counts, kind: int, after: int) -> tuple[Floats, Floats]:
        """What crosses from the next group to the one after it."""
        rest = _without(left, kind)
        key = (kind, self._all[kind] - left[kind], after, self._all[after] - rest[after])
        if key not in self._sent:
            self._sent[key] = self._crossing(*key)
        return self._sent[key]

    def _followed(self, first: int, reached: Mapping[_Key, _Reached]) -> LinedUp:
        """The stages that were chosen."""
        left, kind, at = self._all, first, 0
        once_s = float(reached[left, kind].rest.once_s[0])
        kinds: list[int] = []
        ways: list[int] = []
        cuts: list[int] = []
        busy: list[float] = []
        sent: list[tuple[float, float]] = []
        while True:
            own = reached[left, kind]
            length = int(own.length[at])
            table = self._table(left, kind)
            kinds.append(kind)
            ways.append(int(table.way[at, length]))
            busy.append(float(table.busy_s[at, length]))
            at += length + 1
            after = int(own.after[at])
            if after < 0:
                break
            there, back = self._sending(left, kind, after)
            sent.append((float(there[at]), float(back[at])))
            cuts.append(at)
            left, kind = _without(left, kind), after
        return LinedUp(
            kinds=tuple(kinds),
            ways=tuple(ways),
            cuts=tuple(cuts),
            round_s=max([_longest_mean_s(busy, sent, self._micro_batches), *map(max, sent)]),
            once_s=once_s,
        )


def _without(left: Counts, kind: int) -> Counts:
    """One group of a kind less."""
    return tuple(count - (number == kind) for number, count in enumerate(left))


def _longest_mean_s(
    busy_s: Sequence[float], sent_s: Sequence[tuple[float, float]], micro_batches: int
) -> float:
    """The longest mean of stages that follow each other, with what crosses between them [s].

    Of fewer than there are micro-batches: no stage waits for more.
    """
    longest = 0.0
    for first in range(len(busy_s)):
        total = 0.0
        for last in range(first, min(len(busy_s), first + micro_batches - 1)):
            total += busy_s[last] + (sum(sent_s[last - 1]) if last > first else 0.0)
            longest = max(longest, total / (last - first + 1))
    return longest
