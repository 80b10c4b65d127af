from random import Random

import pytest

from benchmarks.fusion_planner.exhaustive import best_of_all
from benchmarks.fusion_planner.regions import random_region
from weft.fusion.cost import Host
from weft.fusion.explore import Scores, by_beam, greedily, in_sequence, is_acyclic
from weft.fusion.lower import lower
from weft.fusion.stitch import Stitcher
from weft.fusion.tasks import tasks_of

HOST = Host(threads=2)
SEEDS = range(1, 13)


def tasks_from(seed, operators=9):
    return tasks_of(lower(random_region(seed, operators)))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_plan_has_each_task_once(seed):
    tasks = tasks_from(seed)
    scores = Scores(tasks, HOST)
    for plan in [*by_beam(scores), greedily(scores)]:
        assert sorted(task for pattern in plan for task in pattern) == list(range(len(tasks.tasks)))


@pytest.mark.parametrize("seed", SEEDS)
def test_patterns_come_behind_what_they_need(seed):
    tasks = tasks_from(seed)
    done = set()
    for pattern in in_sequence(tasks, by_beam(Scores(tasks, HOST))[0]):
        for task in pattern:
            assert tasks.needs[task] <= done | pattern
        done |= pattern


@pytest.mark.parametrize("seed", SEEDS)
def test_plans_of_small_regions_are_the_best_of_all(seed):
    tasks = tasks_from(seed)
    if len(tasks.tasks) > 7:
        pytest.skip(f"{len(tasks.tasks)} tasks have too many plans to try all")
    stitcher = Stitcher(tasks, HOST)
    found, best = stitcher.seconds(stitcher.best("beam")[0]), best_of_all(stitcher)
    assert found == pytest.approx(best, rel=1e-9)


def test_patterns_that_wait_for_one_another_have_no_order():
    for seed in range(200):
        tasks = tasks_from(seed)
        late = [n for n, needed in enumerate(tasks.needs) if any(tasks.needs[m] for m in needed)]
        if late:
            middle = next(m for m in sorted(tasks.needs[late[0]]) if tasks.needs[m])
            first = min(tasks.needs[middle])
            ends = frozenset({first, late[0]})
            assert not is_acyclic(tasks, [ends])
            assert Scores(tasks, HOST).nanoseconds(ends) is None
            return
    pytest.fail("no region with three tasks in a row")


def test_regions_repeat_with_their_seed():
    seed = Random(0).randrange(1000)
    assert random_region(seed, 20).digest == random_region(seed, 20).digest
