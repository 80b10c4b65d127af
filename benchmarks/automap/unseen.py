"""Models that the trained policy has not seen, planned by it in one go, without learning.

One stage on one server: the best of the ways that the policy follows, against the exact planner's
plan, and against the lessons, of which each cuts all variables that can be cut.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean

import numpy as np

from benchmarks.automap.models import in_single, server
from weft.machine.presets import preset
from weft.parallel.depth import views_of
from weft.parallel.dqn.environment import Observation
from weft.parallel.dqn.following import Follower, plan_network, ways
from weft.parallel.dqn.hybrid import HybridEnvironment, lessons
from weft.parallel.planning import plan
from weft.parallel.request import PlanRequest
from weft.program.fold import fold
from weft.report.bench import Claim, at_most

__all__ = ["Unseen", "unseen_claims", "unseen_models", "unseen_row"]

MODELS = {
    "GPT-2 small": "gpt.py:gpt_small",
    "VGG-19": "vgg.py:vgg19",
    "MoE": "moe.py:moe_small",
    "T5-base": "t5.py:t5_small_biased",
}
MACHINES = {"8 V100": server, "8 H100": lambda: preset("dgx-h100x1")}
MOST_OVER, MOST_S = 1.1, 60.0
"""Mean of the steps over the exact planner's, and the longest time. Chosen: a tenth, since nothing
is learnt; and a minute for what takes the paper's agent half an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """A plan of the policy's.

    Attributes:
        model, machine: which, and where.
        policy_s, lessons_s, exact_s: steps of the policy's, the lessons' and the exact planner's
            best plan [s].
        seconds: that the policy took, simulations included [s].
    """

    model: str
    machine: str
    policy_s: float
    lessons_s: float
    exact_s: float
    seconds: float

    @property
    def over(self) -> float:
        """Step over the exact planner's."""
        return self.policy_s / self.exact_s


def unseen_models(names: tuple[str, ...] = tuple(MODELS)) -> list[Unseen]:
    """Plan models by the policy, by lessons and exactly."""
    found: list[Unseen] = []
    for name in names:
        for machine in MACHINES:
            found.append(_planned(name, machine))
            print(found[-1], file=sys.stderr, flush=True)
    return found


def _planned(name: str, where: str) -> Unseen:
    program, machine = in_single(MODELS[name]), MACHINES[where]()
    plan_network()
    start = time.perf_counter()
    folding = fold(program)
    views = views_of(program, folding)
    request = PlanRequest(program=program, machine=machine)
    own = HybridEnvironment(request, folding, views)
    for way in ways(own):
        _play(own, Follower(plan_network(), way))
    policy_s, seconds = _best(own), time.perf_counter() - start
    taught = HybridEnvironment(request, folding, views)
    for lesson in lessons(taught):
        _play(taught, lesson)
    exact = plan(program, machine, max_stages=1)
    return Unseen(
        model=name,
        machine=where,
        policy_s=policy_s,
        lessons_s=_best(taught),
        exact_s=exact.prediction.step_s,
        seconds=seconds,
    )


def _play(own: HybridEnvironment, choose: Callable[[Observation], int]) -> None:
    observation: Observation | None = own.reset(np.random.default_rng(0))
    while observation is not None:
        observation = own.step(choose(observation)).observation


def _best(own: HybridEnvironment) -> float:
    return min(p.step_s for p in own.known.values() if p is not None and own.fits(p))


def unseen_claims(found: list[Unseen]) -> tuple[Claim, ...]:
    """Near the exact planner's plans, within seconds."""
    return (
        at_most(
            "models unseen, policy alone: mean step over the exact planner's",
            mean(f.over for f in found),
            MOST_OVER,
        ),
        at_most(
            "models unseen, policy alone: longest time [s]", max(f.seconds for f in found), MOST_S
        ),
    )


def unseen_row(found: Unseen) -> tuple[str, ...]:
    """A row of the bench's table."""
    lessons_over = found.lessons_s / found.exact_s
    return (
        f"{found.model} unseen, {found.machine}",
        "trained policy",
        f"{found.policy_s * 1e3:.1f} ms, {found.over:.3f} of exact; lessons {lessons_over:.3f}",
        f"mean {MOST_OVER}",
        f"{found.seconds:.1f} s",
        "",
    )
