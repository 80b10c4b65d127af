# pyright: standard
"""Pipelines whose stages the trained policy cuts.

The policy says where a step is cut into stages and how many devices each has, for data parallelism
and one forward and one backward pass in turn. For each such cut, what else there is to choose is
tried on what pieces cost (`weft.parallel.pipeline.stage_sketch`): over how many devices of a node
variables are cut, what of the state is stored in parts, and whether gradients of weights wait,
which fills the bubble and keeps more; and whether stages are shorter that share out work by what
pieces then take, or between which little is sent. The best become plans.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from itertools import count, pairwise, takewhile
from math import gcd

from weft.core.errors import InputError
from weft.parallel.degrees import Degrees
from weft.parallel.depth import Views
from weft.parallel.dqn.acting import cut
from weft.parallel.dqn.cutting import Cutting
from weft.parallel.dqn.pieces import chain_of, line_of
from weft.parallel.estimate import slowest_device
from weft.parallel.outcome import PipelineOutcome, outcome_of
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.pipeline.stage_sketch import StageSketch
from weft.parallel.pipeline.staged import Shape, Staged, Staging
from weft.parallel.pipeline.standing import in_rank_order
from weft.parallel.planner import Progress
from weft.parallel.request import PlanRequest
from weft.parallel.rows import batch_rows
from weft.parallel.sequence import has_sequence

__all__ = ["cut_pipelines"]

STAGES, MICRO_BATCHES = (2, 3, 4), (3, 4, 6, 8, 12, 16, 24, 32)
"""What is tried. The policy was trained on these stages and on 4, 8, 16 and 32 micro-batches; the
others divide batches that are multiples of 3."""
SCHEDULES = ("1f1b", "zero-bubble")
"""The one that the policy was trained for, and one with less of a bubble."""
EVERY, GOOD = 4, 2
"""Cuts that are tried with variables over any number of devices, those that the policy expects to
be shortest; and numbers of devices that others are tried with, the best by then. Chosen: pieces
take about half a second on each kind of group of a model of 10,000 operators."""
FAR = 1.5
"""Time of the best of the first cuts by its pieces over what is known to be possible, beyond which
no others are tried. Derived: on T5s the best of all was up to a third shorter than that of four."""
MADE = 3
"""Pipelines that become plans. Chosen: each takes as long as an expert's."""
CLOSE = 1.1
"""Time of a pipeline by its pieces over that of the best plan, up to which it becomes a plan too.
Derived: pieces tell the step to two percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """A cut by the policy.

    Attributes:
        seconds: that a step is expected to take [s].
        shape: groups and micro-batches.
        cuts: of each stage but the first, its first piece; none where two of the policy's stages
            begin in one piece.
    """

    seconds: float
    shape: Shape
    cuts: tuple[int, ...]


def cut_pipelines(
    request: PlanRequest,
    views: Views | None,
    progress: Progress,
    most_s: float,
    stop: Callable[[], bool] = lambda: False,
) -> PipelineOutcome:
    """The fastest pipeline that fits, of those that the policy expects most of.

    Args:
        request: what to plan.
        views: short versions of a deep program.
        progress: told in words what is going on.
        most_s: a step that is of no interest, since a plan of one stage is faster [s].
        stop: asked before each pipeline whether to end with the best so far.
    """
    return _Pipelines(request, views, progress, stop).best(most_s)


class _Pipelines:
    """Those of one request; lives only inside `cut_pipelines`."""

    def __init__(
        self,
        request: PlanRequest,
        views: Views | None,
        progress: Progress,
        stop: Callable[[], bool],
    ) -> None:
        self._request, self._progress, self._stop = request, progress, stop
        self._until_s = time.perf_counter() + request.time_limit_s
        self._sketch = StageSketch(request, views)
        self._by_sequence = has_sequence(request.program)
        self._notes: tuple[str, ...] = ()

    def best(self, most_s: float) -> PipelineOutcome:
        """The best of all, with the others."""
        found = self._priced(sorted(self._ways(), key=lambda way: way.seconds), FAR * most_s)
        made: list[PipelinePlan] = []
        for staging in found[:MADE]:
            least_s = min((plan.prediction.step_s for plan in made), default=staging.step_s)
            if made and (staging.step_s > CLOSE * least_s or self._is_over()):
                break
            self._progress(f"{staging.staged.schedule} on {len(staging.staged.inside)} stages")
            plan = self._sketch.fitted(staging)
            made += [] if plan is None else [plan]
        outcome = outcome_of(made, most_s, self._notes)
        return outcome if made else replace(outcome, broken=self._sketch.broken)

    def _priced(self, ways: Sequence[_Way], most_s: float) -> list[Staging]:
        """The best of each cut and number of devices that share a row, best first.

        Args:
            ways: in the order of what is expected.
            most_s: if the first of them take longer, no others are tried [s].
        """
        found: dict[object, Staging] = {}
        for number, way in enumerate(ways, start=1):
            if found and self._is_over():
                break
            self._progress(f"pipeline {number} of {len(ways)}: {len(way.shape.sizes)} stages")
            best = sorted(found.values(), key=lambda own: own.rank)
            if number > EVERY and best and best[0].fits and best[0].step_s > most_s:
                break
            shared = dict.fromkeys(own.staged.inside[0].tp for own in best)
            tried = set(list(shared)[:GOOD]) if number > EVERY else set[int]()
            for staging in self._stagings(way, tried):
                key = (staging.staged.shape, staging.staged.inside)
                if key not in found or staging.rank < found[key].rank:
                    found[key] = staging
        return sorted(found.values(), key=lambda own: own.rank)

    def _is_over(self) -> bool:
        late = time.perf_counter() > self._until_s
        if not (late or self._stop()):
            return False
        why = "for want of time" if late else "since the search was stopped"
        self._notes = (f"pipelines were left out {why}",)
        return True

    def _ways(self) -> Iterator[_Way]:
        """Cuts of each number of stages and micro-batches, by the policy."""
        machine, rows = self._request.machine, batch_rows(self._request.program)
        line = line_of(machine)
        for parts in MICRO_BATCHES:
            part = self._sketch.rows(parts) if rows % parts == 0 else None
            if part is None:
                continue
            try:
                chain, firsts = chain_of(part.whole.program, slowest_device(machine), parts)
            except InputError:
                continue
            for stages in STAGES:
                if stages > min(len(chain), line.num_devices):
                    continue
                if not self._sketch.may_be_pinned(parts, stages):
                    continue
                task = Cutting(chain=chain, line=line, stages=stages, micro_batches=parts, radius=0)
                found, seconds = cut(task)
                edges = (0, *(device for _, device in found), line.num_devices)
                sizes = tuple(b - a for a, b in pairwise(edges))
                cuts = _in_pieces(part, [firsts[piece] for piece, _ in found])
                shape = Shape(sizes, in_rank_order(stages), parts)
                yield _Way(seconds=seconds, shape=shape, cuts=cuts)

    def _stagings(self, way: _Way, tried: Set[int]) -> Iterator[Staging]:
        """What a cut comes to, variables cut over ever more devices of a node.

        Args:
            way: the cut.
            tried: these numbers of devices only; any if empty.
        """
        count = way.shape.micro_batches
        is_possible = way.cuts and self._sketch.keeps_stages(count, way.cuts)
        own_cuts = (way.cuts,) if is_possible else ()
        for inner in self._inner(way.shape):
            if tried and inner not in tried:
                continue
            for zero in (1, 3):
                inside = tuple(self._degrees(size, inner, zero) for size in way.shape.sizes)
                if not all(self._sketch.is_possible(way.shape.micro_batches, d) for d in inside):
                    continue
                priced = [
                    self._sketch.staging(
                        Staged(
                            shape=way.shape, inside=inside, schedule=schedule, chunks=1, cuts=cuts
                        )
                    )
                    for cuts in dict.fromkeys((*own_cuts, *self._sketch.cuts(way.shape, inside, 1)))
                    for schedule in SCHEDULES
                ]
                yield from priced
                if priced and all(own.fits for own in priced):
                    break  # there is no need to store parameters in parts

    def _degrees(self, size: int, inner: int, zero: int) -> Degrees:
        data, by_sequence = size // inner, self._by_sequence and inner > 1
        return Degrees(dp=data, tp=inner, sp=by_sequence, zero=zero if data > 1 else 0)

    def _inner(self, shape: Shape) -> Iterator[int]:
        """Devices that may share a row, so that rows divide among the rest."""
        node = min(group.devices_per_node for group in self._request.machine.groups)
        most = gcd(node, *shape.sizes)
        rows = batch_rows(self._request.program) // shape.micro_batches
        for inner in takewhile(lambda n: n <= most, (2**power for power in count())):
            if all(size % inner == 0 == rows % (size // inner) for size in shape.sizes):
                yield inner


def _in_pieces(rows: Rows, firsts: Sequence[int]) -> tuple[int, ...]:
    """Pieces that begin where stages do, or just before; none if two stages would begin there."""
    cuts = tuple(rows.whole_cut.stage_at(first) for first in firsts)
    rising = all(a < b for a, b in pairwise((0, *cuts)))
    return cuts if rising else ()
