"""Budgets whose processes are killed at any moment lose nothing, and are not overspent."""

import asyncio
import multiprocessing
import os
import signal

import pytest

from benchmarks.tokens.budget_storm import storm
from tests.budgets import Clock, Places, redis_or_skip
from weft.tokens import usd
from weft.tokens.budgets import Budget, BudgetError

LEASE_S = 60.0


@pytest.fixture(params=["sqlite", "redis"])
def where(request, tmp_path):
    if request.param == "redis":
        with redis_or_skip(tmp_path) as address:
            yield Places("redis", tmp_path, address).where("killed")
    else:
        yield Places("sqlite", tmp_path).where("killed")


def in_a_process(work, *arguments):
    """Ends as the work ends it; its exit code."""
    child = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    child.start()
    child.join()
    return child.exitcode


def die_with_a_hold(where):
    budget = Budget.open(where, lease_s=LEASE_S)
    budget.settle(budget.reserve("", usd("0.2")), usd("0.1"))
    budget.reserve("", usd("0.5"))
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_held_is_held_until_its_lease_ends_and_then_spent(where):
    clock = Clock()
    Budget.open(where, cap=usd(1)).close()
    assert in_a_process(die_with_a_hold, where) == -signal.SIGKILL
    with Budget.open(where, lease_s=LEASE_S) as budget:
        assert [budget.standing()[0].spent, budget.standing()[0].held] == [usd("0.1"), usd("0.5")]
        assert budget.recover() == ()
        with pytest.raises(BudgetError):
            budget.reserve("", usd("0.5"))
        now = budget.standing()  # the child's clock was the real one
        assert now[0].flying == 1
    clock.now = 4e9
    with Budget.open(where, clock=clock) as budget:
        assert [own.spent for own in budget.recover()] == [(usd("0.5"),)]
        assert [budget.standing()[0].spent, budget.standing()[0].held] == [usd("0.6"), usd(0)]
        budget.verify()


def test_a_storm_of_kills_overspends_nothing(where, tmp_path):
    found = storm(where, tmp_path, processes=4, threads=2, operations=1200, kill=True)
    assert found.overspent == 0
    assert found.kills >= 4
    assert found.operations >= 1200


def inherit(budget, where):
    budget.settle(budget.reserve("", usd("0.1")), usd("0.1"))
    os._exit(0 if Budget.open(where).verify() else 1)


def test_a_fork_may_go_on_with_its_parents_budget(tmp_path):
    where = str(tmp_path / "team.db")
    with Budget.open(where, cap=usd(1)) as budget:
        handle = budget.reserve("", usd("0.1"))
        assert in_a_process(inherit, budget, where) == 0
        budget.settle(handle, usd("0.1"))
        assert budget.standing()[0].spent == usd("0.2")
        budget.verify()


def test_tasks_of_one_loop_never_overspend(tmp_path):
    async def call(budget):
        try:
            handle = budget.reserve("", usd("0.1"))
        except BudgetError:
            return 0
        await asyncio.sleep(0)
        budget.settle(handle, usd("0.1"))
        return 1

    async def crowd(budget):
        return sum(await asyncio.gather(*[call(budget) for _ in range(50)]))

    with Budget.open(tmp_path / "team.db", cap=usd(1)) as budget:
        assert asyncio.run(crowd(budget)) == 10
        assert budget.standing()[0].left == usd(0)
