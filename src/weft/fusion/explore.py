"""Which tasks share a phase: FusionStitching's search, on tasks and what they read.

Candidate patterns, sets of tasks that may share a phase, are made from the last task to the first:
those that begin at a vertex are made from its consumers' candidates and itself, and the best three
are kept (`PatternReduction`). Vertices are tasks and the places in memory that they read, so that
tasks that have nothing in common but an input meet there; a virtual producer of all makes patterns
of what has nothing in common at all. Then a beam of three plans is filled with candidates that
do not overlap, by what they gain; the latency-evaluator chooses among the three.

Source: FusionStitching, arXiv 2009.10924, sections 5.2 to 5.4. Places as vertices are weft's: in
the paper an operator is a vertex, and inputs of operators are operators.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

from weft.fusion.cost import Host, footprint
from weft.fusion.points import Address
from weft.fusion.tasks import Task, Tasks

__all__ = ["Pattern", "Scores", "by_beam", "greedily", "in_sequence", "is_acyclic"]

TOP = 3
"""Candidates of a vertex and plans of the beam. Source: the paper's k = 3 and beam of 3."""

Pattern = frozenset[int]
"""Tasks that share a phase."""


@dataclass
class Scores:
    """The delta-evaluator: what it takes to do tasks in one phase, from bytes and instructions.

    It knows no nests: what is read twice in a phase is read once, threads share out whatever axes
    all tasks have, but for those that a sum is taken over which is read in the phase.
    """

    tasks: Tasks
    host: Host
    _known: dict[Pattern, float | None] = field(default_factory=dict["Pattern", "float | None"])

    def gain(self, pattern: Pattern) -> float | None:
        """What a pattern saves over its tasks one by one [ns]; None if it cannot be a phase."""
        together = self.nanoseconds(pattern)
        if together is None:
            return None
        alone = sum(self.nanoseconds(frozenset({task})) or 0.0 for task in pattern)
        return alone - together

    def nanoseconds(self, pattern: Pattern) -> float | None:
        """Time of a phase [ns]; None if there can be none."""
        if pattern not in self._known:
            self._known[pattern] = self._evaluated(pattern)
        return self._known[pattern]

    def shared_axes(self, pattern: Pattern) -> frozenset[int]:
        """Axes that threads may share out."""
        own = [self.tasks.tasks[number] for number in pattern]
        inside = {read for task in own for read in task.reads if read in pattern}
        shared = frozenset.intersection(*(task.space for task in own))
        return shared.difference(*(self.tasks.tasks[read].over for read in inside))

    def _evaluated(self, pattern: Pattern) -> float | None:
        own = [self.tasks.tasks[number] for number in pattern]
        if any(task.after & pattern for task in own) or self._is_torn(pattern):
            return None
        points, host = self.tasks.points, self.host
        parts = points.num_elements(sorted(self.shared_axes(pattern)))
        loads = frozenset[tuple[int, Address]]().union(*(task.loads for task in own))
        num_bytes = sum(self._place_bytes(place) for place in loads)
        if num_bytes / max(parts, 1) > host.tile_bytes:
            num_bytes *= 1 + self._depth(pattern)  # each pass reads them again
        num_bytes += sum(map(self._stored_bytes, own))
        vectors = sum(map(self._vectors, self._work(own)))
        threads = min(host.threads, parts)
        rate = host.bytes_per_ns(footprint(points))
        compute = vectors * host.vector_ns / threads
        memory = num_bytes / rate * host.threads / threads
        return max(compute, memory) + 0.2 * min(compute, memory) + host.barrier_ns

    def _is_torn(self, pattern: Pattern) -> bool:
        """Whether something outside would have to come between: no phase can wait for that."""
        needs = self.tasks.needs
        return any(
            other not in pattern and needs[other] & pattern
            for number in pattern
            for other in needs[number]
        )

    def _depth(self, pattern: Pattern) -> int:
        """Reductions that follow from one another in a pattern."""
        depth: dict[int, int] = {}
        for number in sorted(pattern):
            reads = self.tasks.tasks[number].reads & pattern
            depth[number] = max((depth[read] + 1 for read in reads), default=0)
        return max(depth.values())

    def _place_bytes(self, place: tuple[int, Address]) -> float:
        points = self.tasks.points
        buffer, address = place
        count = points.num_elements([axis for axis, _ in address.strides])
        return float(count * points.buffers[buffer].dtype.num_bytes)

    def _stored_bytes(self, task: Task) -> float:
        # A line is read before it is written.
        return 2.0 * sum(self._place_bytes((s.buffer, s.address)) for s in task.stores)

    def _work(self, own: Iterable[Task]) -> set[int]:
        found: set[int] = set()
        for task in own:
            found |= task.cone
            if task.reduce >= 0:
                found.add(task.reduce)
        return found

    def _vectors(self, number: int) -> float:
        points = self.tasks.points
        point = points.points[number]
        count = points.num_elements([*point.axes, *point.over])
        return (1.0 + self.tasks.weight.get(number, 1.0)) * max(count / 16.0, 1.0)


def by_beam(scores: Scores) -> list[list[Pattern]]:
    """The plans of the beam, the best by gain first."""
    candidates = _Candidates(scores)
    beam: list[tuple[float, tuple[Pattern, ...]]] = [(0.0, ())]
    for number in range(-1, len(scores.tasks.tasks)):
        grown = list(beam)
        for pattern, gain in candidates.beginning_with(number):
            for total, plan in beam:
                if not any(pattern & other for other in plan) and is_acyclic(
                    scores.tasks, (*plan, pattern)
                ):
                    grown.append((total + gain, (*plan, pattern)))
        best = {frozenset(plan): (total, plan) for total, plan in grown}
        beam = sorted(best.values(), key=lambda entry: -entry[0])[:TOP]
    return [_completed(scores.tasks, plan) for _, plan in beam]


def greedily(scores: Scores) -> list[Pattern]:
    """The plan of joining, again and again, the two patterns that gain most: the ablation."""
    plan = [frozenset({number}) for number in range(len(scores.tasks.tasks))]
    while True:
        best: tuple[float, int, int] | None = None
        for first, second in product(range(len(plan)), repeat=2):
            if first >= second:
                continue
            joined = scores.nanoseconds(plan[first] | plan[second])
            if joined is None:
                continue
            apart = (scores.nanoseconds(plan[first]) or 0.0) + (
                scores.nanoseconds(plan[second]) or 0.0
            )
            if apart > joined and (best is None or apart - joined > best[0]):
                rest = [p for at, p in enumerate(plan) if at not in (first, second)]
                if is_acyclic(scores.tasks, (*rest, plan[first] | plan[second])):
                    best = (apart - joined, first, second)
        if best is None:
            return plan
        _, first, second = best
        rest = [p for at, p in enumerate(plan) if at not in (first, second)]
        plan = [*rest, plan[first] | plan[second]]


class _Candidates:
    """Candidate patterns, by the vertex that they begin with; -1 is the virtual producer."""

    def __init__(self, scores: Scores) -> None:
        self._scores = scores
        self._tasks = scores.tasks.tasks
        self._of_task: dict[int, list[Pattern]] = {}
        self._of_place: list[list[Pattern]] = []
        for number in reversed(range(len(self._tasks))):
            self._of_task[number] = self._at(number)
        readers: dict[int, list[int]] = {}
        for number, task in enumerate(self._tasks):
            for buffer, _ in task.loads:
                if number not in readers.setdefault(buffer, []):
                    readers[buffer].append(number)
        for own in readers.values():
            self._of_place.append(self._reduced(own))

    def beginning_with(self, number: int) -> list[tuple[Pattern, float]]:
        """Candidates of a task, or of all places and the virtual producer, that gain something."""
        if number >= 0:
            found = self._of_task[number]
        else:
            places = [pattern for own in self._of_place for pattern in own]
            remote = self._reduced(range(len(self._tasks)))
            found = list(dict.fromkeys([*places, *remote]))
        scored = [(pattern, self._scores.gain(pattern)) for pattern in found]
        kept = [(pattern, gain) for pattern, gain in scored if gain is not None and gain > 0]
        return sorted(kept, key=lambda entry: -entry[1])[: TOP if number >= 0 else 4 * TOP]

    def _at(self, number: int) -> list[Pattern]:
        consumers = [other for other, task in enumerate(self._tasks) if number in task.reads]
        own = frozenset({number})
        return self._best(own | pattern for pattern in [*self._reduced(consumers), frozenset()])

    def _reduced(self, consumers: Sequence[int]) -> list[Pattern]:
        """PatternReduction: the best unions of candidates of consumers, halves first."""
        if not consumers:
            return []
        if len(consumers) == 1:
            return self._of_task[consumers[0]]
        half = len(consumers) // 2
        first = [*self._reduced(consumers[:half]), frozenset[int]()]
        second = [*self._reduced(consumers[half:]), frozenset[int]()]
        return self._best(a | b for a, b in product(first, second) if a or b)

    def _best(self, patterns: Iterable[Pattern]) -> list[Pattern]:
        scored: dict[Pattern, float] = {}
        for pattern in patterns:
            gain = self._scores.gain(pattern)
            if gain is not None:
                scored[pattern] = gain
        return sorted(scored, key=lambda pattern: -scored[pattern])[:TOP]


def _completed(tasks: Tasks, plan: Sequence[Pattern]) -> list[Pattern]:
    """A plan with a pattern for each task that is in none."""
    inside = frozenset[int]().union(*plan)
    alone = [frozenset({n}) for n in range(len(tasks.tasks)) if n not in inside]
    return [*plan, *alone]


def in_sequence(tasks: Tasks, plan: Collection[Pattern]) -> list[Pattern]:
    """Patterns behind those that they need."""
    waiting, done, order = list(plan), set[int](), list[Pattern]()
    while waiting:
        for pattern in sorted(waiting, key=min):
            needed = {other for number in pattern for other in tasks.needs[number]}
            if needed - pattern <= done:
                order.append(pattern)
                done |= pattern
                waiting.remove(pattern)
                break
        else:
            raise ValueError("patterns that wait for one another")
    return order


def is_acyclic(tasks: Tasks, plan: Collection[Pattern]) -> bool:
    """Whether patterns, and tasks that are in none, can be put in an order."""
    try:
        in_sequence(tasks, _completed(tasks, list(plan)))
    except ValueError:
        return False
    return True
