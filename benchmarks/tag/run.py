"""TAG's problems, by tree search on a simulator: `weft bench tag`.

Its testbed of 4 V100, 8 GTX 1080 Ti and 4 P100 with the models of its experiments, and a hundred
machines of its random generator, half of them with models that the prior was not trained on. Plans
are compared with data parallelism with all-reduce over all devices, with shares in proportion to
speed, with gradients joined as Horovod joins them, and with one choice after the other.

What a trained prior is worth is told in simulations: how many until data parallelism is beaten,
which is TAG's own measure, and until what a uniform prior finds in all of its simulations.

Beside that whole plans are compared with those of the exact planner (`benchmarks.tag.exact`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import geometric_mean, mean, median

import numpy as np

from benchmarks.tag import exact
from benchmarks.tag.exact import Against
from benchmarks.tag.models import RECIPES, SEEN, UNSEEN, sketch_of
from weft.machine.model import Machine
from weft.machine.presets import preset
from weft.parallel.mcts.baselines import HOROVOD_BYTES, data_parallel, greedy, proportional
from weft.parallel.mcts.cluster import cluster_of
from weft.parallel.mcts.options import PUBLISHED, Options
from weft.parallel.mcts.prior import LearnedPrior
from weft.parallel.mcts.search import Found, Prior, Search, uniform
from weft.parallel.mcts.simulate import Simulator
from weft.parallel.mcts.topologies import PRESET, random_machine
from weft.report.bench import BenchReport, Claim, at_least, at_most, print_report
from weft.report.table import Table

__all__ = ["run"]

MACHINES, SEED = 100, 2023
"""Random machines, and their seed, which is not that of training."""
MOST, LEARNED, REFINED = 400, 60, 1500
"""Simulations with the uniform prior, with the trained one, and to refine what that found."""
SPEEDUP, BEST_SPEEDUP, FEWER, CLOSE = 1.5, 4.56, 0.1, 1.05
"""The best case of TAG's abstract (arXiv 2302.06126); the others are wanted here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model on one machine; times in seconds.

    Attributes:
        model, machine: which.
        data_parallel_s: over all devices, all-reduce.
        data_parallel_fits: whether there is memory for that.
        proportional_s, horovod_s, greedy_s: other baselines.
        published_s: what tree search finds with TAG's own choices and a uniform prior.
        plan_s: what it finds with all choices and the trained prior, refined.
        fits: whether there is memory for that.
        uniform_beats, learned_beats: simulations until data parallelism is beaten, `MOST` if not.
        uniform_best_s: what the uniform prior finds with all choices.
        learned_reaches: simulations until the trained prior has found as much.
        seconds: of the search [s].
    """

    model: str
    machine: str
    data_parallel_s: float
    data_parallel_fits: bool
    proportional_s: float
    horovod_s: float
    greedy_s: float
    published_s: float
    plan_s: float
    fits: bool
    uniform_beats: int
    learned_beats: int
    uniform_best_s: float
    learned_reaches: int
    seconds: float

    @property
    def speedup(self) -> float:
        """Time of data parallelism over that of the plan."""
        return self.data_parallel_s / self.plan_s


def run(quick: bool = False) -> BenchReport:
    """Plan and compare; `quick` takes two models and few machines."""
    testbed = preset(PRESET)
    names = ("VGG-19", "BERT-small") if quick else tuple(RECIPES)
    cases = [_case(name, testbed) for name in names]
    drawn = _random_cases(4 if quick else MACHINES)
    compared = exact.against_exact(names, 0 if quick else exact.MACHINES)
    every = [*cases, *drawn]
    fitting = [case for case in every if case.data_parallel_fits]
    unseen = [case for case in drawn if case.model in UNSEEN]
    gains = [case.speedup for case in fitting]
    return BenchReport(
        bench="tag",
        claims=(
            at_least("data parallel over plan, geometric mean", geometric_mean(gains), SPEEDUP),
            at_least("data parallel over plan, least", min(gains), 1.0),
            at_least("data parallel over plan, most", max(gains), BEST_SPEEDUP),
            at_least("plans that fit [share]", mean(case.fits for case in every), 1.0),
            at_most(
                "unseen models: simulations until data parallel is beaten, trained prior over "
                "uniform",
                sum(c.learned_beats for c in unseen) / sum(c.uniform_beats for c in unseen),
                FEWER,
            ),
            at_most(
                f"unseen models: simulations until as good as {MOST} with a uniform prior, "
                "median share of them",
                median(c.learned_reaches for c in unseen) / MOST,
                FEWER,
            ),
            *_within(compared),
        ),
        table=Table(
            columns=(
                *("model", "machine", "data parallel", "proportional", "Horovod", "greedy"),
                *("TAG's choices", "plan", "speed-up", "simulations: trained, uniform"),
                "whole plans over exact's",
            ),
            rows=(
                *(_row(case, compared) for case in cases),
                *(
                    _summary(model, drawn, compared)
                    for model in dict.fromkeys(case.model for case in drawn)
                ),
            ),
        ),
        facts={
            "simulations": [MOST, LEARNED, REFINED],
            "seen": SEEN,
            "unseen": UNSEEN,
            "cases": [asdict(case) for case in every],
            "exact": [asdict(case) for case in compared],
            "exact proven": sum(case.proven for case in compared),
            "exact searched up to [s]": exact.LIMIT_S,
        },
    )


def _random_cases(count: int) -> list[Case]:
    generator, found = np.random.default_rng(SEED), []
    for at in range(count):
        names = UNSEEN if at % 2 else SEEN
        model = names[at // 2 % len(names)]
        needs = float(sketch_of(model).group_bytes.sum())
        found.append(_case(model, random_machine(generator, needs)))
    return found


def _case(model: str, machine: Machine) -> Case:
    sketch = sketch_of(model)
    cluster = cluster_of(machine, sketch.devices)
    simulator, options = Simulator(sketch, cluster), Options(sketch, cluster)
    start = time.perf_counter()
    plain = simulator.run(data_parallel(simulator, options))
    by_uniform = _searched(simulator, options, uniform, MOST)
    seconds = time.perf_counter()
    search = Search(simulator, options, LearnedPrior())
    learned = search.run(LEARNED)
    reached = _reached(learned, by_uniform.outcome.step_s)
    if reached == MOST:
        learned = search.run(MOST - LEARNED)
        reached = _reached(learned, by_uniform.outcome.step_s)
    plan = search.refine(REFINED)
    seconds = time.perf_counter() - seconds
    published = _searched(simulator, Options(sketch, cluster, PUBLISHED), uniform, MOST)
    joined = Simulator(sketch, cluster, HOROVOD_BYTES)
    case = Case(
        model=model,
        machine=machine.name,
        data_parallel_s=plain.step_s,
        data_parallel_fits=plain.fits,
        proportional_s=simulator.run(proportional(simulator, options)).step_s,
        horovod_s=joined.run(data_parallel(simulator, options)).step_s,
        greedy_s=simulator.run(greedy(simulator, options)).step_s,
        published_s=published.outcome.step_s,
        plan_s=plan.outcome.step_s,
        fits=plan.outcome.fits,
        uniform_beats=_reached(by_uniform, by_uniform.baseline_s, strictly=True),
        learned_beats=_reached(learned, learned.baseline_s, strictly=True),
        uniform_best_s=by_uniform.outcome.step_s,
        learned_reaches=reached,
        seconds=seconds,
    )
    spent = time.perf_counter() - start
    print(
        f"{model} on {machine.name}: {case.speedup:.2f}x, beaten after {case.learned_beats} "
        f"({case.uniform_beats}), {spent:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return case


def _searched(simulator: Simulator, options: Options, prior: Prior, simulations: int) -> Found:
    return Search(simulator, options, prior).run(simulations)


def _reached(found: Found, wanted_s: float, *, strictly: bool = False) -> int:
    """After how many simulations a time was reached; `MOST` if never."""
    for simulation, step_s in found.progress:
        if step_s < wanted_s or (step_s == wanted_s and not strictly):
            return max(simulation, 1)
    return MOST


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms"


def _within(compared: Sequence[Against]) -> tuple[Claim, ...]:
    """That learned planners come close to what is proven, if anything is, and find a plan."""
    proven = [case.worst for case in compared if case.proven and case.learned_s]
    told = f"{len(proven)} proven of {len(compared)} cases"
    claim = "learned planners over exact where exact proves its bound, most"
    without = sum(len(case.without) for case in compared)
    found = at_most("learned planners without a plan where exact has one", without, 0)
    return (at_most(f"{claim} ({told})", max(proven), CLOSE), found) if proven else (found,)


def _over(model: str, compared: Sequence[Against], *, testbed: bool) -> str:
    """Learned planners' steps over those of the exact one, and where its bound was met."""
    own = [c for c in compared if c.model == model and (c.machine == PRESET) is testbed]
    return "; ".join(
        ", ".join(f"{name} {step_s / c.exact_s:.2f}x" for name, step_s in c.learned_s.items())
        + "".join(f", {name} does not fit" for name in c.without)
        + " (proven)" * c.proven
        for c in own
    )


def _row(case: Case, compared: Sequence[Against]) -> tuple[str, ...]:
    fits = "" if case.data_parallel_fits else " (does not fit)"
    return (
        case.model,
        "testbed",
        _milliseconds(case.data_parallel_s) + fits,
        _milliseconds(case.proportional_s),
        _milliseconds(case.horovod_s),
        _milliseconds(case.greedy_s),
        _milliseconds(case.published_s),
        _milliseconds(case.plan_s),
        f"{case.speedup:.2f}x",
        f"{case.learned_beats}, {case.uniform_beats}",
        _over(case.model, compared, testbed=True),
    )


def _summary(model: str, cases: Sequence[Case], compared: Sequence[Against]) -> tuple[str, ...]:
    """A model on its random machines: how much faster the plan is than each, geometric means."""
    own = [case for case in cases if case.model == model]
    fitting = [case for case in own if case.data_parallel_fits]

    def over(times: Sequence[float]) -> str:
        pairs = zip(times, own, strict=True)
        return f"{geometric_mean(time_s / case.plan_s for time_s, case in pairs):.2f}x"

    gains = f"{geometric_mean(c.speedup for c in fitting):.2f}x" if fitting else "none fits"
    unseen = ", unseen" if model in UNSEEN else ""
    return (
        model + unseen,
        f"{len(own)} random",
        f"{gains} on {len(fitting)}",
        over([c.proportional_s for c in own]),
        over([c.horovod_s for c in own]),
        over([c.greedy_s for c in own]),
        over([c.published_s for c in own]),
        "1x",
        gains,
        f"{mean(c.learned_beats for c in own):.1f}, {mean(c.uniform_beats for c in own):.1f}",
        _over(model, compared, testbed=False),
    )


if __name__ == "__main__":
    print_report(run("--quick" in sys.argv))
