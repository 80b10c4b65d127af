"""Parts of a pass that run in one go: the nodes of one group between two waits for another.

A group is no interval of a program: what it makes may come back to it by way of another group.
Its nodes in one phase are therefore cut in segments, as few as may be, so that what segments
read of each other has no cycle. They run in the order of their first nodes as far as that allows.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from weft.program.graph import Phase, Program

__all__ = ["Segment", "segments"]


@dataclass(frozen=True, slots=True)
class Segment:
    """Nodes of one group and phase, in the program's order."""

    group: int
    nodes: tuple[int, ...]


def segments(program: Program, group: Sequence[int], phase: Phase) -> tuple[Segment, ...]:
    """Segments of a phase in the order in which they run.

    Args:
        program: the step.
        group: for each node its group.
        phase: which part of the step.
    """
    split = _Split(program, phase)
    for number, node in enumerate(program.nodes):
        if node.phase is phase and node.op != "input":
            split.add(number, group[number])
    return split.in_order(group)


class _Split:
    """Assigns nodes to segments; knows for each segment, as bits, all that it depends on."""

    def __init__(self, program: Program, phase: Phase) -> None:
        self._program = program
        self._phase = phase
        self._segment: dict[int, int] = {}
        self._nodes: list[list[int]] = []
        self._above: list[int] = []
        self._of_group: dict[int, list[int]] = {}

    def add(self, number: int, group: int) -> None:
        operands = self._program.operands(number)
        reads = {self._segment[v.node] for v in operands if v.node in self._segment}
        own = self._of_group.setdefault(group, [])
        for segment in reversed(own):
            if not any(self._above[read] >> segment & 1 for read in reads - {segment}):
                break
        else:
            segment = len(self._nodes)
            own.append(segment)
            self._nodes.append([])
            self._above.append(0)
        self._nodes[segment].append(number)
        self._segment[number] = segment
        self._depend(segment, reads - {segment})

    def _depend(self, segment: int, reads: set[int]) -> None:
        gained = 0
        for read in reads:
            gained |= self._above[read] | 1 << read
        if gained & ~self._above[segment]:
            for other, above in enumerate(self._above):
                if other == segment or above >> segment & 1:
                    self._above[other] = above | gained

    def in_order(self, group: Sequence[int]) -> tuple[Segment, ...]:
        waiting = [above.bit_count() for above in self._above]
        ready = [(self._nodes[s][0], s) for s, count in enumerate(waiting) if count == 0]
        heapq.heapify(ready)
        found: list[Segment] = []
        while ready:
            first, done = heapq.heappop(ready)
            found.append(Segment(group[first], tuple(self._nodes[done])))
            for other, above in enumerate(self._above):
                if above >> done & 1:
                    waiting[other] -= 1
                    if waiting[other] == 0:
                        heapq.heappush(ready, (self._nodes[other][0], other))
        assert len(found) == len(self._nodes), "no cycle"
        return tuple(found)
