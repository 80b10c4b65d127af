"""The best of some proposals is the best of what they turn out to be, as far as they are built."""

from __future__ import annotations

from dataclasses import replace

from tests.programs import mlp
from weft.machine.presets import preset
from weft.parallel.candidate import Candidate, Proposal, best_of
from weft.parallel.degrees import Degrees
from weft.parallel.experts import expert_candidate

LIMIT = 100.0
PLAN = expert_candidate(
    mlp(num_layers=1, batch=8, width=8), preset("dgx-h100x1"), Degrees(dp=8), memory_limit_bytes=1e9
)


def proposal(
    name: str, said_s: float, built_s: float, peak: float = 1.0, built: list | None = None
):
    said = replace(PLAN.plan.prediction, step_s=said_s, peak_bytes=min(peak, LIMIT))

    def build() -> Candidate:
        if built is not None:
            built.append(name)
        found = replace(said, step_s=built_s, peak_bytes=peak)
        plan = replace(PLAN.plan, prediction=found, memory_limit_bytes=LIMIT)
        return replace(PLAN, name=name, plan=plan)

    return Proposal(name, said, LIMIT, build)


def test_the_first_is_built_alone_where_it_is_as_it_was_said_to_be() -> None:
    built: list[str] = []
    best = best_of([proposal("b", 2.0, 2.0, built=built), proposal("a", 1.0, 1.01, built=built)])
    assert (best.name, built) == ("a", ["a"])
    assert [other.name for other in best.plan.alternatives] == ["b"]


def test_one_that_turns_out_slower_gives_way() -> None:
    built: list[str] = []
    best = best_of(
        [
            proposal("a", 1.0, 3.0, built=built),
            proposal("b", 2.0, 2.1, built=built),
            proposal("c", 4.0, 4.0, built=built),
        ]
    )
    assert (best.name, built) == ("b", ["a", "b"])


def test_one_that_turns_out_not_to_fit_gives_way() -> None:
    best = best_of([proposal("a", 1.0, 1.0, peak=2 * LIMIT), proposal("b", 5.0, 5.0)])
    assert best.name == "b"


def test_nothing_that_is_said_to_be_faster_is_left_unbuilt() -> None:
    built: list[str] = []
    searched = proposal("searched", 1.0, 1.01, built=built)
    expert = proposal("expert", 1.005, 1.005, built=built)
    best = best_of([searched, expert])
    assert (best.name, built) == ("expert", ["searched", "expert"])


def test_no_baseline_that_is_said_to_be_nearly_as_fast_is_left_unbuilt() -> None:
    offered = [proposal("searched", 1.0, 1.0), proposal("expert", 1.015, 0.99)]
    assert best_of(offered).name == "searched"
    assert best_of(offered, {"expert"}).name == "expert"
    assert best_of(offered, {"another"}).name == "searched"


def test_nobody_gives_way_to_something_slower() -> None:
    best = best_of([proposal("a", 1.0, 2.5), proposal("b", 2.0, 3.0)])
    assert best.name == "a"
