"""One door to all planners."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, overload

from weft.core.errors import InputError
from weft.machine.model import Machine
from weft.parallel.exact.planner import ExactPlanner
from weft.parallel.mcts.planner import MctsPlanner
from weft.parallel.pinning import listed
from weft.parallel.pins import Pin
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.placement import Mesh
from weft.parallel.plan import Level, ParallelPlan
from weft.parallel.planner import Planner, Progress, plan_request
from weft.parallel.request import PlanRequest
from weft.program.graph import Program

__all__ = ["PLANNERS", "plan"]


def _dqn() -> Planner:
    from weft.parallel.dqn.planner import DqnPlanner  # which loads torch

    return DqnPlanner()


PLANNERS: Mapping[str, Callable[[], Planner]] = MappingProxyType(
    {"exact": ExactPlanner, "dqn": _dqn, "mcts": MctsPlanner}
)
"""Planners by name."""


@overload
def plan(
    program: Program,
    machine: Machine,
    *,
    planner: str | Planner = ...,
    level: Level | str = ...,
    memory_limit_bytes: float = ...,
    mesh: tuple[int, ...],
    time_limit_s: float = ...,
    pins: Sequence[Pin] = ...,
    progress: Progress = ...,
) -> ParallelPlan: ...
@overload
def plan(
    program: Program,
    machine: Machine,
    *,
    planner: str | Planner = ...,
    level: Level | str = ...,
    memory_limit_bytes: float = ...,
    mesh: tuple[int, ...] | None = ...,
    max_stages: Literal[1],
    time_limit_s: float = ...,
    pins: Sequence[Pin] = ...,
    progress: Progress = ...,
) -> ParallelPlan: ...
@overload
def plan(
    program: Program,
    machine: Machine,
    *,
    planner: str | Planner = ...,
    level: Level | str = ...,
    memory_limit_bytes: float = ...,
    mesh: tuple[int, ...] | None = ...,
    max_stages: int = ...,
    time_limit_s: float = ...,
    pins: Sequence[Pin] = ...,
    progress: Progress = ...,
) -> ParallelPlan | PipelinePlan: ...
def plan(
    program: Program,
    machine: Machine,
    *,
    planner: str | Planner = "exact",
    level: Level | str = Level.FAST,
    memory_limit_bytes: float = 0.0,
    mesh: tuple[int, ...] | None = None,
    max_stages: int = 0,
    time_limit_s: float = float("inf"),
    pins: Sequence[Pin] = (),
    progress: Progress = lambda _: None,
) -> ParallelPlan | PipelinePlan:
    """Decide how a training step is split over a machine.

    Args:
        program: one training step, as `weft.capture` makes it.
        machine: what it runs on.
        planner: who decides: a name of `PLANNERS`, or a planner made with settings of its own.
        level: "fast" or "best": how hard to look.
        memory_limit_bytes: limit of one device; its own memory if 0 [bytes].
        mesh: plan on this device grid only, in one stage.
        max_stages: 1 for plans of one stage only; 0 for as many as pay.
        time_limit_s: stop looking for better plans after this time [s].
        pins: placements and stages that the plan has to keep to, from `weft.pin`, beside those
            that the model's own code has.
        progress: told in words what is going on.

    Returns:
        The fastest plan found in the simulator, of one stage or of several; never slower than
        an expert's of one stage that fits. On the fast level pipelines are looked at only where
        the best plan of one stage waits, recomputes or does not fit.

    Raises:
        InputError: no such planner or level, a mesh that the machine is too small for, or a pin
            that names nothing.
        InfeasibleError: nothing fits; names the tightest constraint and a machine that would do, or
            a smallest set of pins that cannot be kept.
        RuleError: an operator has no sharding rule.
    """
    request = PlanRequest(
        program=program,
        machine=machine,
        level=_level(level),
        memory_limit_bytes=memory_limit_bytes,
        mesh=None if mesh is None else Mesh(tuple(mesh)),
        max_stages=max_stages,
        time_limit_s=time_limit_s,
        pins=listed(pins),
    )
    return plan_request(request, _named(planner), progress)


def _named(planner: str | Planner) -> Planner:
    if not isinstance(planner, str):
        return planner
    make = PLANNERS.get(planner)
    if make is None:
        raise InputError(
            need="the name of a planner",
            got=repr(planner),
            hint=f"there are {', '.join(sorted(PLANNERS))}",
        )
    return make()


def _level(level: Level | str) -> Level:
    if isinstance(level, Level):
        return level
    try:
        return {"fast": Level.FAST, "best": Level.BEST}[level]
    except KeyError:
        raise InputError(
            need="a level, fast or best", got=repr(level), hint="fast is the default"
        ) from None
