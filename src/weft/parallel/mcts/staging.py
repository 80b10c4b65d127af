"""Tree search over pipelines: which groups of devices, what each does inside, in which schedule.

The first step chooses groups and micro-batches; the next ones, for each kind of group, how it
shares out a micro-batch, by rows and by tensors, and what of its state is cut; then the schedule.
Stages share out work by speed, or are cut where little crosses, whichever is shorter; what nobody
has decided yet is what is simplest. A leaf is put together from what pieces cost
(`weft.parallel.pipeline.stage_sketch`). The best is then varied, a choice or the end of a stage at
a time; and the best of all become plans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from math import isfinite
from typing import TypeVar

import numpy as np

from weft.parallel.degrees import Degrees
from weft.parallel.mcts.search import Tree, value_of
from weft.parallel.mcts.shapes import Expected, shapes, shapes_of_lots, ways
from weft.parallel.mcts.sketch import Floats
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.insides import insides
from weft.parallel.pipeline.stage_sketch import StageSketch
from weft.parallel.pipeline.staged import Lies, Shape, Staged, Staging

__all__ = ["StageSearch", "StageState"]

T = TypeVar("T")

_SHARP = 0.1
"""Share of the shortest step expected by which one has to be longer for its prior to fall e-fold.
Chosen: expectations leave out what tensors cost that are cut."""
_UNIFORM = 0.1
"""Share of the prior that all choices have alike, so that none is ruled out. Chosen."""


@dataclass(frozen=True, slots=True)
class StageState:
    """What is decided: numbers of choices, -1 while open.

    Attributes:
        shape: groups and micro-batches.
        inside: of each kind of group, how it shares out a micro-batch.
        way: schedule.
    """

    shape: int = -1
    inside: tuple[int, ...] = ()
    way: int = -1


@dataclass(frozen=True, slots=True)
class _Kinds:
    """Groups of a shape that are alike do alike.

    Attributes:
        of_group: kind of each group.
        choices: what each kind may do inside.
    """

    of_group: tuple[int, ...]
    choices: tuple[tuple[Degrees, ...], ...]


class StageSearch:
    """Searches pipelines of one step; it can go on after it was stopped.

    Args:
        sketch: prices them.
        least_groups: 1 to look at micro-batches on one group of all devices as well.
        baseline_s: time of a plan that there is already [s]; if inf, that of the first that fits.
    """

    def __init__(self, sketch: StageSketch, least_groups: int, baseline_s: float) -> None:
        self._sketch, self._baseline_s = sketch, baseline_s
        self.shapes, self._prior = _expected(sketch, least_groups)
        self._kinds: dict[Shape, _Kinds] = {}
        self._known: dict[Staged, Staging] = {}
        self._cuts: dict[tuple[Shape, tuple[Degrees, ...], tuple[str, int]], Staged | None] = {}
        self._root = Tree(StageState())

    def run(self, simulations: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Simulate so many pipelines that were not seen before, or until somebody says stop."""
        most = len(self._known) + simulations
        while self.shapes and self._root.is_open and len(self._known) < most and not stop():
            self._root.play(self._visit)

    def refine(self, simulations: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Vary the best, as long as that makes it better."""
        most, improved = len(self._known) + simulations, bool(self._known)
        while improved:
            improved = False
            best = self._best()
            for changed in self._variations(best.staged):
                if len(self._known) >= most or stop():
                    return
                if self._staging(changed).rank < best.rank:
                    improved = True
                    break

    def best(self, count: int) -> list[Staging]:
        """The best pipelines that differ in more than where stages are cut, best first.

        Args:
            count: how many at most.
        """
        found: dict[object, Staging] = {}
        for own in sorted(self._known.values(), key=lambda own: own.rank):
            if len(found) == count:
                break
            staged = own.staged
            found.setdefault((staged.shape, staged.inside, staged.schedule), own)
        return list(found.values())

    def _best(self) -> Staging:
        return min(self._known.values(), key=lambda own: own.rank)

    def _visit(self, leaf: Tree[StageState]) -> float:
        value = self._value(leaf.state)
        if leaf.children is None:
            leaf.expand(*self._following(leaf.state))
        return value

    def _value(self, state: StageState) -> float:
        """As in the search over homes: 0 for the baseline, -1 for what is no pipeline."""
        if state.shape < 0:
            return 0.0
        staged = self._completed(state)
        if staged is None:
            return -1.0
        staging = self._staging(staged)
        if staging.fits and not isfinite(self._baseline_s):
            self._baseline_s = staging.step_s
        return value_of(staging, self._baseline_s)

    def _staging(self, staged: Staged) -> Staging:
        if staged not in self._known:
            self._known[staged] = self._sketch.staging(staged)
        return self._known[staged]

    def _following(self, state: StageState) -> tuple[tuple[StageState, ...], Floats]:
        """States after one more step, with their priors."""
        if state.shape < 0:
            return tuple(StageState(k) for k in range(len(self.shapes))), self._prior
        shape = self.shapes[state.shape]
        kinds = self._of_shape(shape)
        if len(state.inside) < len(kinds.choices):
            count = len(kinds.choices[len(state.inside)])
            steps = (replace(state, inside=(*state.inside, k)) for k in range(count))
            return tuple(steps), _alike(count)
        possible = self._ways(shape)
        if state.way >= 0:
            return (), np.zeros(0)
        return tuple(replace(state, way=k) for k in range(len(possible))), _alike(len(possible))

    def _ways(self, shape: Shape) -> tuple[tuple[str, int], ...]:
        count = shape.micro_batches
        rows = self._sketch.rows(count)
        return () if rows is None else _possible(self._sketch, shape, rows, count)

    def _of_shape(self, shape: Shape) -> _Kinds:
        if shape not in self._kinds:
            known: dict[tuple[Lies, int], int] = {}
            own = zip(self._sketch.lies(shape), shape.sizes, strict=True)
            of_group = tuple(known.setdefault(lies, len(known)) for lies in own)
            first = [of_group.index(kind) for kind in range(len(known))]
            self._kinds[shape] = _Kinds(
                of_group, tuple(insides(self._sketch, shape, group) for group in first)
            )
        return self._kinds[shape]

    def _completed(self, state: StageState) -> Staged | None:
        """The pipeline, with what is simplest where nothing is decided; none if there is none."""
        shape = self.shapes[state.shape]
        kinds, possible = self._of_shape(shape), self._ways(shape)
        if not all(kinds.choices) or not possible:
            return None
        chosen = [*state.inside, *(0,) * (len(kinds.choices) - len(state.inside))]
        inside = tuple(kinds.choices[kind][chosen[kind]] for kind in kinds.of_group)
        return self._cut(shape, inside, possible[max(state.way, 0)])

    def _cut(
        self, shape: Shape, inside: tuple[Degrees, ...], way: tuple[str, int]
    ) -> Staged | None:
        """The shortest pipeline of those whose cuts are worth a try; none without any."""
        key = (shape, inside, way)
        if key not in self._cuts:
            priced = [
                self._sketch.staging(
                    Staged(shape=shape, inside=inside, schedule=way[0], chunks=way[1], cuts=cuts)
                )
                for cuts in self._sketch.cuts(shape, inside, way[1])
            ]
            best = min(priced, key=lambda own: own.rank, default=None)
            if best is not None:
                self._known.setdefault(best.staged, best)
            self._cuts[key] = None if best is None else best.staged
        return self._cuts[key]

    def _variations(self, staged: Staged) -> Iterator[Staged]:
        """Pipelines that differ in one choice, most telling first."""
        shape, way = staged.shape, (staged.schedule, staged.chunks)
        kinds = self._of_shape(shape)
        for other in self._near(shape):
            theirs = self._of_shape(other)
            of_block = dict(zip(shape.standing, staged.inside, strict=True))
            inside = tuple(of_block[block] for block in other.standing)
            pairs = zip(theirs.of_group, inside, strict=True)
            if way in self._ways(other) and all(own in theirs.choices[k] for k, own in pairs):
                yield from _some(self._cut(other, inside, way))
        yield from self._moved(staged)
        for kind, choices in enumerate(kinds.choices):
            for own in choices:
                inside = tuple(
                    own if kind == of else before
                    for of, before in zip(kinds.of_group, staged.inside, strict=True)
                )
                if inside != staged.inside:
                    yield from _some(self._cut(shape, inside, way))
        for other_way in self._ways(shape):
            if other_way != way:
                yield from _some(self._cut(shape, staged.inside, other_way))
        yield from self._sketch.shifted(staged)

    def _moved(self, staged: Staged) -> Iterator[Staged]:
        """Pipelines in which a group has another place, where groups are unlike."""
        shape, way = staged.shape, (staged.schedule, staged.chunks)
        of_group = self._of_shape(shape).of_group
        seen = {of_group}
        for source, target in permutations(range(len(of_group)), 2):
            kinds = _with_moved(of_group, source, target)
            if kinds not in seen:
                seen.add(kinds)
                other = replace(
                    shape,
                    sizes=_with_moved(shape.sizes, source, target),
                    standing=_with_moved(shape.standing, source, target),
                )
                inside = _with_moved(staged.inside, source, target)
                yield from _some(self._cut(other, inside, way))

    def _near(self, shape: Shape) -> list[Shape]:
        """The same blocks with the next number of micro-batches either way, or in another order."""
        alike = [own for own in self.shapes if _sizes(own) == _sizes(shape)]
        same = sorted({own.micro_batches for own in alike})
        at = same.index(shape.micro_batches)
        counts = same[max(at - 1, 0) : at] + same[at + 1 : at + 2]
        found = [replace(shape, micro_batches=count) for count in counts]
        return found + [
            own
            for own in alike
            if own.standing != shape.standing and own.micro_batches == shape.micro_batches
        ]


def _sizes(shape: Shape) -> dict[int, int]:
    """Devices of each block of ranks."""
    return dict(zip(shape.standing, shape.sizes, strict=True))


def _some(staged: Staged | None) -> tuple[Staged, ...]:
    return () if staged is None else (staged,)


def _with_moved(of: tuple[T, ...], source: int, target: int) -> tuple[T, ...]:
    """With what is in one place put in another."""
    rest = [*of[:source], *of[source + 1 :]]
    return (*rest[:target], of[source], *rest[target:])


def _alike(count: int) -> Floats:
    return np.full(count, 1.0 / max(count, 1))


def _expected(sketch: StageSketch, least_groups: int) -> tuple[list[Shape], Floats]:
    """Shapes with their priors."""
    request = sketch.request
    candidates = shapes(request, least_groups)
    if not any(_can_share_out(sketch, shape) for shape in candidates):
        candidates = shapes_of_lots(request)
    counts = sorted({shape.micro_batches for shape in candidates})
    known = next(((n, rows) for n in counts if (rows := sketch.rows(n)) is not None), None)
    if known is None:
        return [], np.zeros(0)
    count, rows = known
    most = len(rows.pieces.order)
    found = [
        shape
        for shape in candidates
        if len(shape.sizes) <= most and _possible(sketch, shape, rows, count)
    ]
    expected = Expected(request, rows, count)
    seconds = np.asarray([expected.seconds(shape) for shape in found])
    if not len(seconds):
        return [], np.zeros(0)
    shares = np.exp((seconds.min() - seconds) / (_SHARP * seconds.min()))
    return found, (1.0 - _UNIFORM) * shares / shares.sum() + _UNIFORM * _alike(len(found))


def _can_share_out(sketch: StageSketch, shape: Shape) -> bool:
    """Whether all groups can share out a micro-batch in some way."""
    return all(insides(sketch, shape, group) for group in range(len(shape.sizes)))


def _possible(
    sketch: StageSketch, shape: Shape, rows: Rows, count: int
) -> tuple[tuple[str, int], ...]:
    """Schedules in which stages can be where they are pinned, with their numbers of chunks."""
    groups = len(shape.sizes)
    return tuple(
        way
        for way in ways(shape, len(rows.pieces.order))
        if sketch.may_be_pinned(count, groups * way[1])
    )
