"""Stages on grids of their own: a dynamic programme over pieces, stages and devices that are left.

Pieces are cut into stages as in `partition`; here each stage also takes one of several grids, and
the grids of all stages share out the devices. From the end: the best way to do the pieces from i on
in k stages on d devices, the first of them on a given grid, is

    best over runs i to j and grids of the next stage:
        stage(i, j), transfer at j, best way to do the pieces from j on in k - 1 stages on the rest

joined once by the longest and once by the sum. A step takes about (micro-batches - 1) times the
longest stage or transfer plus the sum of all, so the least sum is looked for under each limit of
the longest that could still pay.

Source: Alpa (Zheng et al., OSDI 2022, section 5.2) cuts a chain of layers into stages on meshes of
several sizes by a like programme; transfers and the memory of micro-batches under way are weft's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

import numpy as np

from weft.parallel.exact.pipelines.partition import Floats, Ints, Partition, Runs
from weft.parallel.pipeline.again import MIXTURES, Recompute

__all__ = ["Chain", "Chains", "Option", "Transfer"]

STEP = 1.01
"""Limits of the longest stage that are tried, one over the other. Derived: what lies between is at
most as much better."""

NEAR = 1.05
"""Step over the best one, up to which chains of another number of stages are kept. Derived: the
schedule and what happens once a step differ by a few percent from what the programme adds up."""

Transfer: TypeAlias = Callable[[int, int, int], tuple[Floats, Floats]]
"""From the option of a stage, that of the next, and the first rank of the latter: how long a
micro-batch's transfers there and back take, by the piece at which the latter begins [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What a stage may be on.

    Attributes:
        num_devices: devices of its group.
        runs: costs of runs of pieces there.
        first_ranks: ranks at which such a group may begin.
    """

    num_devices: int
    runs: Runs
    first_ranks: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Stages with an option each.

    Attributes:
        stages: cuts, recomputation and times.
        options: of each stage.
        longest_s: longest stage, or transfer one way [s].
        sum_s: all stages, and transfers both ways [s].
    """

    stages: Partition
    options: tuple[int, ...]
    longest_s: float
    sum_s: float

    def step_s(self, micro_batches: int) -> float:
        """Time of all micro-batches [s]."""
        return (micro_batches - 1) * self.longest_s + self.sum_s


_Key: TypeAlias = tuple[int, int, int]
"""Stages left, devices left, option of the first of them."""


class Chains:
    """Looks for the best stages on options.

    Args:
        options: what a stage may be on.
        num_devices: that all stages together use.
        most_stages: that are looked at.
        micro_batches: parts of the batch.
        limit_bytes: limit of one device [bytes].
        transfer: what crosses between stages.
        in_flight: of a stage, micro-batches whose activations are kept at once, from how many
            stages there are from it to the last and how many in all; as in 1F1B if not given.
    """

    def __init__(
        self,
        options: Sequence[Option],
        num_devices: int,
        most_stages: int,
        micro_batches: int,
        limit_bytes: float,
        transfer: Transfer,
        in_flight: Callable[[int, int], int] = lambda left, _: left,
    ) -> None:
        self._options = options
        self._num_devices = num_devices
        self._count = micro_batches
        self._pieces = options[0].runs.num_pieces
        self._most = min(most_stages, num_devices, self._pieces)
        self._transfer = transfer
        self._known: dict[_Key, tuple[Floats, Floats]] = {}
        self._limit = limit_bytes
        self._in_flight = in_flight
        self._costs: dict[tuple[int, int], tuple[Floats, Ints, Ints]] = {}
        starts = np.arange(self._pieces)[:, None]
        self._ends = {
            number: starts + 1 + np.arange(option.runs.longest)[None, :]
            for number, option in enumerate(options)
        }

    def best(self) -> list[Chain]:
        """The best chain of each number of stages that comes near the best of all, best first."""
        found: list[Chain] = []
        for number in range(1, self._most + 1):
            least = min((chain.step_s(self._count) for chain in found), default=inf)
            chain = self._best_of(number, NEAR * least)
            if chain is not None:
                found.append(chain)
        return sorted(found, key=lambda chain: chain.step_s(self._count))

    def _best_of(self, num_stages: int, most_s: float) -> Chain | None:
        shortest = self._least(num_stages, np.maximum, inf)
        free = self._least(num_stages, np.add, inf)
        if shortest is None or free is None:
            return None
        if (self._count - 1) * shortest.longest_s + free.sum_s > most_s:
            return None
        found, longest = [shortest, free], shortest.longest_s
        while longest < free.longest_s:
            chain = self._least(num_stages, np.add, longest * (1 + 1e-12))
            if chain is not None:
                found.append(chain)
            # What is left has a longer stage, and no less than the least sum.
            longest *= STEP
            if (self._count - 1) * longest + free.sum_s >= min(
                c.step_s(self._count) for c in found
            ):
                break
        return min(found, key=lambda chain: chain.step_s(self._count))

    def _least(self, num_stages: int, join: np.ufunc, limit_s: float) -> Chain | None:
        """The chain whose joined seconds are least, all stages and transfers below a limit."""
        values: dict[_Key, Floats] = {}
        choices: dict[_Key, tuple[Ints, Ints]] = {}
        for left in range(1, num_stages + 1):
            for devices in range(left, self._num_devices + 1):
                for number, option in enumerate(self._options):
                    key = (left, devices, number)
                    first = self._num_devices - devices
                    if option.num_devices > devices or first not in option.first_ranks:
                        continue
                    rest, following = self._rest(key, values, join, limit_s)
                    seconds = self._table(left, num_stages, number)[0]
                    allowed = np.where(seconds <= limit_s, seconds, inf)
                    reached = join(allowed, rest[np.minimum(self._ends[number], self._pieces)])
                    length = np.argmin(reached, axis=1)
                    values[key] = np.append(reached[np.arange(self._pieces), length], inf)
                    choices[key] = (length, following)
        keys = [key for key in values if key[:2] == (num_stages, self._num_devices)]
        best = min(keys, key=lambda key: values[key][0], default=None)
        if best is None or values[best][0] == inf:
            return None
        return self._followed(best, choices)

    def _table(self, left: int, num_stages: int, number: int) -> tuple[Floats, Ints, Ints]:
        """What runs of pieces cost on an option, so many stages from the end."""
        kept = min(self._count, self._in_flight(left, num_stages))
        key = (kept, number)
        if key not in self._costs:
            self._costs[key] = self._options[number].runs.costs(float(kept), self._limit)
        return self._costs[key]

    def _rest(
        self, key: _Key, values: dict[_Key, Floats], join: np.ufunc, limit_s: float
    ) -> tuple[Floats, Ints]:
        """What comes after a stage costs at least, by where it ends, and on which option."""
        left, devices, number = key
        rest = np.full(self._pieces + 1, inf)
        following = np.full(self._pieces + 1, -1)
        if left == 1:
            if devices == self._options[number].num_devices:
                rest[self._pieces] = 0.0
            return rest, following
        others = devices - self._options[number].num_devices
        for after in range(len(self._options)):
            value = values.get((left - 1, others, after))
            if value is None:
                continue
            there, back = self._sent(number, after, self._num_devices - others)
            crossing = np.maximum(there, back) if join is np.maximum else there + back
            found = join(crossing, value)
            found[np.maximum(there, back) > limit_s] = inf
            better = found < rest
            rest[better], following[better] = found[better], after
        return rest, following

    def _sent(self, number: int, after: int, rank: int) -> tuple[Floats, Floats]:
        key = (number, after, rank)
        if key not in self._known:
            self._known[key] = self._transfer(number, after, rank)
        return self._known[key]

    def _followed(self, first: _Key, choices: dict[_Key, tuple[Ints, Ints]]) -> Chain:
        """The chain that the choices make."""
        key, at = first, 0
        cuts: list[int] = []
        options: list[int] = []
        recompute: list[Recompute] = []
        seconds: list[float] = []
        crossing: list[tuple[float, float]] = []
        while True:
            left, devices, number = key
            lengths, following = choices[key]
            length = int(lengths[at])
            own, mixture, more = self._table(left, first[0], number)
            lesser, greater = MIXTURES[int(mixture[at, length])]
            recompute.append(Recompute(lesser, greater, int(more[at, length])))
            seconds.append(float(own[at, length]))
            options.append(number)
            at += length + 1
            if left == 1:
                break
            devices -= self._options[number].num_devices
            after = int(following[at])
            there, back = self._sent(number, after, self._num_devices - devices)
            crossing.append((float(there[at]), float(back[at])))
            cuts.append(at)
            key = (left - 1, devices, after)
        return Chain(
            stages=Partition(cuts=tuple(cuts), recompute=tuple(recompute), seconds=tuple(seconds)),
            options=tuple(options),
            longest_s=max([*seconds, *(max(pair) for pair in crossing)]),
            sum_s=sum(seconds) + sum(map(sum, crossing)),
        )
