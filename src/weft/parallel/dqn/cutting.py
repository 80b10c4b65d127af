"""Cutting a chain into stages, one cut after the other, and what random chains there are.

A choice is a cut: the first piece and the first device of the next stage. It is described by what
the stage that it ends would take, by what is left, and by the shortest pipeline that could still
come of it; all over what an even cut without any transfers would take, so that nothing depends on
units. The reward, at the end, is that ideal over the pipeline's length: 1 where nothing better can
exist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from weft.parallel.dqn.chain import (
    Array,
    Chain,
    Cuts,
    Line,
    Places,
    crossing_seconds,
    near_boundary,
    pipeline_seconds,
    stage_seconds,
    sync_seconds,
)
from weft.parallel.dqn.environment import Observation, Turn

__all__ = ["CutEnvironment", "Cutting", "random_chain", "random_cutting"]

Whole: TypeAlias = npt.NDArray[np.int64]

POINTS = 128
"""Pieces of a random chain at most. Source: Auto-MAP, section 3.4."""
MOST_CHOICES = 48
"""Cuts that are offered at a time: those from which the shortest pipelines could still come.
Chosen: of 900, and learning is as many times faster."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Cutting:
    """What is to be cut.

    Attributes:
        chain, line: pieces and devices.
        stages: how many there are to be.
        micro_batches: parts of the batch.
        radius: how far device cuts may lie from the boundaries of nodes [devices].
    """

    chain: Chain
    line: Line
    stages: int
    micro_batches: int = 16
    radius: int = 3

    @property
    def ideal_s(self) -> float:
        """What an even cut without any transfers would take [s]."""
        even = self.chain.seconds_before[-1] / self.line.num_devices / self.micro_batches
        return float(even) * (self.micro_batches + self.stages - 1)


def random_cutting(generator: np.random.Generator) -> Cutting:
    """A chain with numbers of one of several kinds on a line of a random size.

    Source of the kinds: Auto-MAP, section 3.4 (uniform, normal, binomial); those of layers that
    repeat, of widths that grow, and of one piece that outweighs all others are added, since real
    models have them.
    """
    size = int(generator.integers(24, POINTS + 1))
    nodes, per_node = int(generator.integers(2, 6)), int(generator.choice([1, 2, 4, 8]))
    inside = 10 ** generator.uniform(10, 11.5)
    line = Line(
        nodes=nodes,
        per_node=per_node,
        inside_bytes_per_s=inside,
        network_bytes_per_s=inside / 10 ** generator.uniform(0, 2),
    )
    return Cutting(
        chain=random_chain(generator, size, line),
        line=line,
        stages=int(generator.integers(2, min(4, line.num_devices) + 1)),
        micro_batches=int(generator.choice([4, 8, 16, 32, 64])),
    )


def random_chain(generator: np.random.Generator, size: int, line: Line) -> Chain:
    """Pieces that take a second in all, with numbers of one of several kinds.

    Args:
        generator: of chance.
        size: how many.
        line: what they run on. What crosses and what is reduced takes from nothing to as long as
            the computation.
    """
    seconds = _numbers(generator, size) + 1e-3
    seconds /= seconds.sum()
    per_piece = line.network_bytes_per_s / line.num_devices
    crossing = _numbers(generator, size - 1) * per_piece * 10 ** generator.uniform(-3, 0)
    weights = _numbers(generator, size)
    weights *= per_piece * 10 ** generator.uniform(-3, 0) / max(weights.sum(), 1e-9)
    return Chain(seconds=seconds, crossing_bytes=crossing, weight_bytes=weights)


def _numbers(generator: np.random.Generator, size: int) -> Array:
    """Numbers from 0 to about 1 of a random kind [size]."""
    draw: Sequence[Callable[[], Array]] = (
        lambda: generator.uniform(0, 1, size),
        lambda: np.abs(generator.normal(0.5, 0.2, size)),
        lambda: generator.binomial(10, generator.uniform(0.1, 0.9), size) / 10,
        lambda: np.resize(generator.uniform(0, 1, int(generator.integers(2, 17))), size),
        lambda: np.geomspace(1, 10 ** generator.uniform(-3, 3), size) / 10,
        lambda: generator.uniform(0, 0.2, size) + (np.arange(size) == generator.integers(size)),
    )
    return draw[int(generator.integers(len(draw)))]()


class CutEnvironment:
    """Episodes of cuts.

    Args:
        draw: what an episode cuts, from a generator; `random_cutting`, or always the same.
    """

    shared_width = 6
    choice_width = 12

    def __init__(self, draw: Callable[[np.random.Generator], Cutting] = random_cutting) -> None:
        self._draw = draw
        self.task: Cutting | None = None
        self.cuts: Cuts = ()
        self._offered = _NONE_OFFERED

    def reset(self, generator: np.random.Generator) -> Observation:
        """Begin with nothing cut."""
        self.task, self.cuts = self._draw(generator), ()
        return self._observed()

    def resume(self, task: Cutting, cuts: Cuts) -> Observation:
        """Go on where some cuts have been made, but not all."""
        self.task, self.cuts = task, cuts
        return self._observed()

    def step(self, choice: int) -> Turn:
        """Cut."""
        assert self.task is not None, "step after reset"
        self.cuts = (*self.cuts, self.cut_at(choice))
        if len(self.cuts) < self.task.stages - 1:
            return Turn(0.0, self._observed())
        task = self.task
        length = pipeline_seconds(task.chain, task.line, self.cuts, task.micro_batches)
        return Turn(task.ideal_s / length, None)

    def cut_at(self, choice: int) -> tuple[int, int]:
        """First piece and first device that a choice means."""
        piece, device = self._offered[choice]
        return int(piece), int(device)

    def _observed(self) -> Observation:
        assert self.task is not None
        sight = _Sight(self.task, self.cuts)
        pieces, devices = sight.offered()
        described = sight.described(pieces, devices)
        best = np.argsort(-described[:, _Sight.PROMISE], kind="stable")[:MOST_CHOICES]
        self._offered = np.stack([pieces[best], devices[best]], 1)
        return Observation(
            shared=sight.shared().astype(np.float32),
            choices=described[best].astype(np.float32),
            allowed=np.ones(len(best), dtype=np.bool_),
        )


_NONE_OFFERED = np.zeros((0, 2), dtype=np.int64)


class _Sight:
    """What can be seen after some cuts."""

    PROMISE = 10
    """Column of choices that says how short the pipeline could still be, over the ideal."""

    def __init__(self, task: Cutting, cuts: Cuts) -> None:
        self._task = task
        self._starts = ((0, 0), *cuts)
        self._left = task.stages - len(self._starts)  # stages that come after this one
        chain, line = task.chain, task.line
        self._unit = float(chain.seconds_before[-1]) / line.num_devices / task.micro_batches
        self._total, self._longest, self._sync = self._done()

    def _done(self) -> tuple[float, float, float]:
        """Sum and longest of the stages that are settled, and the longest reduction [s]."""
        total = longest = sync = 0.0
        for number in range(1, len(self._starts)):
            times = self._of_stage(number, *self._starts[number])
            time, move, own = (float(x) for x in times)
            total += time + move
            longest, sync = max(longest, time, move), max(sync, own)
        return total, longest, sync

    def _of_stage(self, number: int, end: Places, high: Places) -> tuple[Array, Array, Array]:
        """Of the stage before cut `number`: its time, what crosses into it, its reduction [s]."""
        task = self._task
        first, low = self._starts[number - 1]
        many = np.subtract(high, low)
        time = stage_seconds(task.chain, many, first, end, task.micro_batches)
        sync = sync_seconds(task.chain, task.line, (first, end), (low, high))
        if number == 1:
            return time, np.zeros_like(time), sync
        before = self._starts[number - 2][1]
        move = crossing_seconds(
            task.chain, task.line, first, (before, low, high), task.micro_batches
        )
        return time, move, sync

    def offered(self) -> tuple[Whole, Whole]:
        """Pieces and devices of all cuts that leave something for each later stage."""
        task, number = self._task, len(self._starts)
        piece, device = self._starts[-1]
        pieces = np.arange(piece + 1, len(task.chain) - self._left + 1)
        near = near_boundary(task.line, task.stages, number, task.radius)
        devices = np.asarray([d for d in near if d > device])
        if not len(devices):  # an earlier cut took them: what is next to it is the nearest
            devices = np.asarray([device + 1])
        grid = np.meshgrid(pieces, devices, indexing="ij")
        return grid[0].ravel(), grid[1].ravel()

    def shared(self) -> Array:
        """What all choices have in common [S]."""
        task, unit = self._task, self._unit
        return np.asarray(
            [
                self._left,
                self._total / unit,
                self._longest / unit,
                np.log1p(self._sync / unit),
                np.log2(task.micro_batches),
                np.log10(task.line.inside_bytes_per_s / task.line.network_bytes_per_s),
            ]
        )

    def described(self, pieces: Whole, devices: Whole) -> Array:
        """What tells choices apart [A,F]."""
        task, unit = self._task, self._unit
        chain, line, micro = task.chain, task.line, task.micro_batches
        time, move, sync = self._of_stage(len(self._starts), pieces, devices)
        rest = line.num_devices - devices
        later = stage_seconds(chain, rest, pieces, len(chain), micro)
        low = self._starts[-1][1]
        after = np.maximum(rest // self._left, 1)
        crossing = crossing_seconds(chain, line, pieces, (low, devices, devices + after), micro)
        longest = np.maximum(np.maximum(time, move), self._longest)
        # If no later stage takes longer than an even share of what is left, and nothing crosses.
        bound_longest = np.maximum(np.maximum(longest, later), crossing)
        bound_total = self._total + time + move + crossing + later * self._left
        bound_sync = np.maximum(self._sync, sync)
        if self._left == 1:  # the last stage is settled with this one
            ends = (pieces, len(chain)), (devices, line.num_devices)
            bound_sync = np.maximum(bound_sync, sync_seconds(chain, line, *ends))
        bound = bound_total + (micro - 1) * bound_longest + bound_sync
        held = chain.weights_before[-1] - chain.weights_before[pieces]
        later_sync = 2 * held / self._left / line.network_bytes_per_s
        cheapest = self._cheapest_crossing(pieces)
        worst = np.maximum(bound_longest, cheapest)
        columns = [
            time / unit,
            later / unit,
            move / unit,
            crossing / unit,
            np.log1p(sync / unit),
            np.log1p(later_sync / unit),
            longest / unit,
            bound_longest / unit,
            cheapest / unit,
            task.ideal_s / bound,
            task.ideal_s
            / (bound + (micro - 1) * (worst - bound_longest) + cheapest * (self._left > 1)),
            devices % line.per_node == 0,
        ]
        return np.stack(np.broadcast_arrays(*columns), 1)

    def _cheapest_crossing(self, pieces: Whole) -> Array:
        """The least that the next cut would send over the network, if there is one more [s]."""
        if self._left < 2:
            return np.zeros(len(pieces))
        task = self._task
        least = np.minimum.accumulate(task.chain.crossing_bytes[::-1])[::-1]
        least = np.append(least, least[-1])
        return 2 * least[pieces] / task.micro_batches / task.line.network_bytes_per_s
