"""Planning: one call, several planners behind one protocol.

Whatever planner is asked, the experts' hand-written plans are simulated too, and a plan that
is slower than the best of them that fits is never returned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Protocol

from weft.core.collector import collector_paused
from weft.core.errors import InfeasibleError
from weft.core.units import format_bytes
from weft.machine.topology import smallest_machine, with_nodes
from weft.parallel.candidate import Candidate, Proposal, alternatives, best_of, ranked
from weft.parallel.depth import Views, views_of
from weft.parallel.experts import expert_proposals
from weft.parallel.kept import require_kept
from weft.parallel.outcome import PipelineOutcome
from weft.parallel.pinning import resolve
from weft.parallel.pipeline.kept import require_pipeline_kept
from weft.parallel.pipeline.plan import PipelinePlan, StagedProgram
from weft.parallel.plan import Level, ParallelPlan
from weft.parallel.recompute import expand
from weft.parallel.request import PlanRequest
from weft.program.fold import Folding, fold

__all__ = ["Planner", "Progress", "Search", "plan_request"]

Progress = Callable[[str], None]


class Search(Protocol):
    """A search under way: what can run without the interpreter's lock does so already.

    Attributes:
        notes: lines for people about what was left undone, once it has ended.
    """

    notes: tuple[str, ...]

    def free(self) -> list[Proposal]:
        """The first of the proposals: without a price of memory, some with recomputation."""
        ...

    def proposals(self, most_s: float = inf) -> list[Proposal]:
        """Plans with their predictions, in any order, whether they fit or not.

        Args:
            most_s: where plans made without regard to memory are slower than this, none is made
                to fit, since something else is known to be faster [s].
        """
        ...

    def close(self) -> None:
        """Stop whatever still runs."""
        ...


class Planner(Protocol):
    """Finds candidates; the best is chosen among them and the experts' plans."""

    name: str

    def start(
        self, request: PlanRequest, folding: Folding, views: Views | None, progress: Progress
    ) -> Search:
        """Begin a search for plans of one stage.

        Args:
            request: what to plan.
            folding: of the program: which layers are alike.
            views: short versions of a deep program, to predict the whole one from.
            progress: told in words what is going on.
        """
        ...

    def pipelines(
        self,
        request: PlanRequest,
        views: Views | None,
        progress: Progress,
        least_groups: int,
        most_s: float,
    ) -> PipelineOutcome:
        """Look for the best pipeline.

        Args:
            request, views, progress: as those of `start`.
            least_groups: 2 to leave out steps in micro-batches on one group of all devices, which
                save memory and nothing else.
            most_s: a step that is of no interest, since a plan of one stage is faster [s].
        """
        ...


def plan_request(
    request: PlanRequest, planner: Planner, progress: Progress = lambda _: None
) -> ParallelPlan | PipelinePlan:
    """The best plan that a planner and the experts know, of one stage or of several.

    Args:
        request: what to plan.
        planner: who looks.
        progress: told in words what is going on.

    Raises:
        InfeasibleError: nothing fits; names the tightest constraint and a machine that would do. Or
            nothing keeps the pins; names them.
        RuleError: an operator has no sharding rule.
    """
    started = time.perf_counter()
    with collector_paused(), ExitStack() as open_until_chosen:
        _require_stages(request)
        folding = fold(request.program, request.pinning.marks)
        alike = _Alike(folding, views_of(request.program, folding))
        whole = _of_one_stage(request, planner, alike, progress, open_until_chosen)
        pipelines = PipelineOutcome()
        if _may_gain(request, whole.first):
            left_s = request.time_limit_s - (time.perf_counter() - started)
            later = replace(request, time_limit_s=max(left_s, 0.0))
            first = whole.first
            roomy = first is not None and first.fits and not first.recomputes
            known_s = first.prediction.step_s if first is not None and first.fits else inf
            least = 2 if roomy else 1
            pipelines = planner.pipelines(later, alike.views, progress, least, CLOSE * known_s)
        whole = whole.made_to_fit(pipelines.plan)
        if pipelines.plan is None:
            _require_fit(request, planner, alike, whole, pipelines, progress)
        chosen = _faster(whole, pipelines)
        _require_pins(chosen, request)
    return replace(
        chosen,
        planner=planner.name,
        level=request.level,
        search_s=time.perf_counter() - started,
        notes=(
            *_pin_notes(request),
            *(whole.notes if isinstance(chosen, ParallelPlan) else ()),
            *pipelines.notes,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _OneStage:
    """Plans of one stage.

    Attributes:
        order: what was looked at, best first, whether it fits or not; empty if pins forbid all.
        experts: names of those that were written by hand.
        left_undone: lines for people.
        broken: why there is none.
        under_way: the search, if it has not yet tried to make plans fit that do not.
    """

    order: Sequence[Proposal] = ()
    experts: frozenset[str] = frozenset()
    left_undone: tuple[str, ...] = ()
    broken: InfeasibleError | None = None
    under_way: Search | None = None

    @property
    def first(self) -> Proposal | None:
        """The best one, as far as short versions tell."""
        return self.order[0] if self.order else None

    @cached_property
    def best(self) -> Candidate | None:
        """The best one, built."""
        return best_of(self.order, self.experts) if self.order else None

    def made_to_fit(self, pipeline: PipelinePlan | None) -> _OneStage:
        """With what the search makes room for, where that may be faster than a pipeline."""
        if self.under_way is None:
            return self
        most_s = inf if pipeline is None else CLOSE * pipeline.prediction.step_s
        experts = [proposal for proposal in self.order if proposal.name in self.experts]
        searched = self.under_way.proposals(most_s)
        return replace(
            self,
            order=ranked([*searched, *experts]),
            left_undone=self.under_way.notes,
            under_way=None,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for people, about the best one."""
        name = "" if self.best is None else self.best.name
        if name not in self.experts:
            return self.left_undone
        found = f"the search found nothing faster than the hand-written plan: {name}"
        return (found, *self.left_undone)


MOST_DEVICES = 512
"""Devices beyond which one stage is looked at on the fast level if pipelines are looked at as well.
Derived: on 16,384 devices the best level's further nine mesh shapes take minutes."""


def _of_one_stage(
    request: PlanRequest,
    planner: Planner,
    alike: _Alike,
    progress: Progress,
    open_until_chosen: ExitStack,
) -> _OneStage:
    """Plans of one stage.

    On a large machine a pipeline often wins, so placements that save memory are looked for only
    once it is known how fast that is; unless time is limited, since then it might run out before.
    """
    if request.pinning.num_stages > 1:
        return _OneStage()
    large = _may_split(request) and request.machine.num_devices > MOST_DEVICES
    own = replace(request, level=Level.FAST) if large else request
    try:
        if large and request.time_limit_s == inf:
            search = planner.start(own, alike.folding, alike.views, progress)
            open_until_chosen.enter_context(closing(search))
            progress("simulating the experts' plans")
            experts = expert_proposals(own, alike.views)
            return _OneStage(
                order=ranked([*search.free(), *experts]),
                experts=frozenset(proposal.name for proposal in experts),
                under_way=search,
            )
        outcome = _look(own, planner, alike, progress)
    except InfeasibleError as error:
        if not request.pinning or not _may_split(request):
            raise
        return _OneStage(broken=error)
    return _OneStage(
        order=ranked([*outcome.searched, *outcome.experts]),
        experts=frozenset(proposal.name for proposal in outcome.experts),
        left_undone=outcome.notes,
    )


def _require_fit(
    request: PlanRequest,
    planner: Planner,
    alike: _Alike,
    whole: _OneStage,
    pipelines: PipelineOutcome,
    progress: Progress,
) -> None:
    """Check that one stage suffices where no pipeline was found.

    Raises:
        InfeasibleError: it does not; says what stands in the way.
    """
    reasons = "; ".join(filter(None, (pipelines.tightest, *pipelines.notes)))
    if whole.best is not None:
        if not whole.best.fits:
            way_out = _way_out(request, planner, whole.best, alike, progress)
            raise _infeasible(request, whole.best, way_out, reasons)
        return
    broken = whole.broken or pipelines.broken
    if broken is None:
        if not request.pinning:
            raise InfeasibleError(
                need=f"a plan on {request.mesh or request.machine.num_devices} devices",
                got=f"none that {planner.name} or an expert writes",
                hint="sizes that divide among so many devices, or another mesh or planner",
                constraint="sizes",
            )
        raise InfeasibleError(
            need=f"a pipeline that fits and keeps {request.pinning.text}",
            got=reasons or f"none on {request.machine.name} that {planner.name} finds",
            hint="a larger machine, a smaller batch, another planner, or without some of the pins",
            constraint="pins",
        )
    if whole.broken is None or pipelines.broken is None:
        raise broken
    raise InfeasibleError(
        need=broken.need,
        got=f"{broken.got}\nof pipelines: {pipelines.broken.got}",
        hint=broken.hint,
        constraint=broken.constraint,
        options=broken.options,
    )


def _require_stages(request: PlanRequest) -> None:
    """Check that there may be as many stages as pins ask for."""
    later = [one for of in request.pinning.stages.values() for one in of if one.wish.stage]
    if later and not _may_split(request):
        raise InfeasibleError(
            need=f"a pipeline, for {later[0].text}",
            got="a plan without pipeline stages",
            hint="drop the pin, or ask for stages: no mesh, no max_stages=1, several devices",
            constraint="pins",
        )


def _require_pins(plan: ParallelPlan | PipelinePlan, request: PlanRequest) -> None:
    """The law: whoever planned, the pins are kept."""
    if isinstance(plan, PipelinePlan):
        if request.pinning:
            staged = StagedProgram(request.program, plan.micro_batches, plan.cut)
            require_pipeline_kept(plan.plans, staged, resolve(staged.part, request.pins))
    elif request.pinning.values:
        expanded = expand(request.program, plan.recompute)
        pinning = request.pinning.through(expanded.origin, expanded.program)
        require_kept(plan.mesh, plan.strategies, plan.copies, expanded.program, pinning)


def _pin_notes(request: PlanRequest) -> tuple[str, ...]:
    counts = request.pinning.counts.items()
    return tuple(f"kept {text} ({n} tensor{'s' * (n > 1)})" for text, n in counts)


WORTHWHILE = 0.05
"""Share of a step that waits for communication or runs twice, below which pipelines are not looked
at on the fast level. Derived: a pipeline removes some of both and adds a bubble."""


def _may_split(request: PlanRequest) -> bool:
    """Whether the plan may have several stages."""
    one_stage = request.max_stages == 1 or request.mesh is not None
    return not one_stage and request.machine.num_devices > 1


def _may_gain(request: PlanRequest, best: Proposal | None) -> bool:
    """Whether pipelines are to be looked at.

    They can remove communication and recomputation, and give devices something to do.
    """
    if not _may_split(request) or best is None:
        return _may_split(request)
    found = best.prediction
    waits = found.exposed_s > WORTHWHILE * found.step_s
    gains = waits or best.recomputes or best.idles
    return request.level is Level.BEST or not best.fits or gains


CLOSE = 1.05
"""Step of a plan of one stage, as short versions tell it, over that of a pipeline, up to which both
are built and compared. Derived: short versions tell the step of the whole to a percent."""


def _faster(whole: _OneStage, pipelines: PipelineOutcome) -> ParallelPlan | PipelinePlan:
    """The faster of the best plan of one stage and the best pipeline, with all that lost."""
    found, first = pipelines.plan, whole.first
    if first is None:
        assert found is not None
        return replace(found, alternatives=pipelines.alternatives)
    if found is None or (first.fits and first.prediction.step_s <= CLOSE * found.prediction.step_s):
        best = whole.best
        assert best is not None
        if found is None or (best.fits and best.step_s <= found.prediction.step_s):
            others = (*best.plan.alternatives, *pipelines.alternatives)
            return replace(best.plan, alternatives=others)
    one_stage, *others = alternatives(whole.order)
    one_stage = replace(one_stage, name=f"one stage, {one_stage.name}")
    return replace(found, alternatives=(one_stage, *pipelines.alternatives, *others))


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """Proposals of a planner and of the experts, and what was left undone."""

    searched: list[Proposal]
    experts: list[Proposal]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Alike:
    """Which layers of the program are alike, on whatever machine."""

    folding: Folding
    views: Views | None


def _look(request: PlanRequest, planner: Planner, alike: _Alike, progress: Progress) -> _Outcome:
    with closing(planner.start(request, alike.folding, alike.views, progress)) as search:
        progress("simulating the experts' plans")
        experts = expert_proposals(request, alike.views)
        return _Outcome(searched=search.proposals(), experts=experts, notes=search.notes)


def _infeasible(
    request: PlanRequest, smallest: Candidate, way_out: str, of_pipelines: str
) -> InfeasibleError:
    limit = request.limit_bytes
    state = smallest.plan.prediction.state_bytes
    rest = smallest.peak_bytes - state
    pins = ", without some of the pins" if request.pinning else ""
    return InfeasibleError(
        need=f"at most {format_bytes(limit)} on each device of {request.machine.name}",
        got=f"{format_bytes(smallest.peak_bytes)} in the smallest plan found ({smallest.name}): "
        f"{format_bytes(state)} of parameters and optimizer state, "
        f"{format_bytes(rest)} of activations, gradients and buffers"
        + (f"; {of_pipelines}" if of_pipelines else ""),
        hint=f"{way_out}{pins}, a smaller batch, or compute_dtype=torch.bfloat16",
        constraint="parameters and optimizer state" if state > rest else "activations",
        options=(way_out,),
    )


MOST_TRIALS = 4
"""Larger machines that are planned for before one is named. Derived: each takes as long as the
search that failed, and the second sufficed in all cases but those in which none does."""


def _way_out(
    request: PlanRequest,
    planner: Planner,
    smallest: Candidate,
    alike: _Alike,
    progress: Progress,
) -> str:
    """The limit that would do if it was set by hand, else a machine on which a plan was found.

    Nodes are added until the state and activations would fit if they divided evenly, to the
    next power of two, which batches and widths divide by; where that is not enough, more. The
    planner is asked only where no expert's plan fits.
    """
    own = min(group.device.memory_bytes.value for group in request.machine.groups)
    if smallest.peak_bytes <= own:
        return f"a memory limit of {format_bytes(smallest.peak_bytes * 1.05)}"
    machine, peak = request.machine, smallest.peak_bytes
    for _ in range(MOST_TRIALS):
        estimate = smallest_machine(machine, peak * machine.num_devices)
        machine = with_nodes(machine, 2 ** (estimate.num_nodes - 1).bit_length())
        progress(f"would {machine.name} do?")
        larger = replace(request, machine=machine, mesh=None)
        looked_at = expert_proposals(larger, alike.views)
        if not any(proposal.fits for proposal in looked_at):
            try:
                looked_at += _look(larger, planner, alike, progress).searched
            except InfeasibleError:
                break  # the pins cannot be kept there
        if not looked_at:
            break  # nothing divides among so many
        best = min(looked_at, key=lambda proposal: proposal.rank)
        if best.fits:
            return f"a machine such as {machine.name} ({machine.num_devices} devices)"
        if best.prediction.peak_bytes > SHRINKS * peak:
            break
        peak = best.prediction.peak_bytes
    return f"more memory on each device ({machine.name} would not do either)"


SHRINKS = 0.95
"""Share of the peak that more devices have to leave for yet more to be tried."""
