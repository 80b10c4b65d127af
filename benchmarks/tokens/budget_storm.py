"""Workers that spend from one budget while they are killed, and a bill that nobody can argue with.

A worker reserves, has its call billed by adding what it cost to a file, and settles, gives back
or is killed in between. The bill is what was really spent, whatever the budget thinks. It has to
stay within what the budget says, and that within its cap.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import struct
import threading
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from weft.core.errors import VerifyError
from weft.tokens import Money, usd
from weft.tokens.budgets import Budget, BudgetError, Cap

__all__ = ["Storm", "storm"]

ROW = struct.Struct("<q")
TEAMS = 8
AGENTS = 8
"""In each team, added when they first spend."""
MEAN_NANO = 3_500_000
"""About what a call of the trace costs."""
LEASE_S = 3600.0
"""Longer than a storm: the living are not recovered by mistake; the dead are at the end, by a
later clock."""
SHARE = 0.75
"""Cap over operations and mean cost: some third of the operations are then refused for want of
room."""
PAUSE_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """What came of one.

    Attributes:
        operations: reservations, settlements, releases and refusals.
        refused: the latter.
        kills: processes that were killed.
        recovered: holds that they left.
        overspent: 1 for a reservation beyond a cap in the log, or a log that does not explain the
            state; 1 if the bill is beyond what the budget says, or that beyond its cap.
        seconds: that it took, without what was looked at in the end.
    """

    operations: int
    refused: int
    kills: int
    recovered: int
    overspent: int
    seconds: float


class Bill:
    """What calls cost, and how many were refused, in two files that are only added to.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        self._costs = os.open(folder / "costs", flags)
        self._refusals = os.open(folder / "refusals", flags)

    def add(self, nano: int) -> None:
        """A call that cost so many billionths."""
        os.write(self._costs, ROW.pack(nano))

    def refuse(self) -> None:
        """A call that was not made."""
        os.write(self._refusals, b"x")

    def refused(self) -> int:
        """Calls that were not made."""
        return os.fstat(self._refusals).st_size

    def operations(self) -> int:
        """Reservations, settlements and refusals, but for those of the dead."""
        return os.fstat(self._costs).st_size // ROW.size * 2 + self.refused()

    def total(self) -> int:
        """What all calls cost."""
        size = os.fstat(self._costs).st_size
        return sum(nano for (nano,) in ROW.iter_unpack(os.pread(self._costs, size, 0)))

    def close(self) -> None:
        """Close the files."""
        os.close(self._costs)
        os.close(self._refusals)


def storm(
    where: str, folder: Path, *, processes: int, threads: int, operations: int, kill: bool
) -> Storm:
    """Spend from a new budget with processes of threads each, until so many operations are done."""
    bill = Bill(folder)
    opened = _opened(where, round(MEAN_NANO * operations * SHARE))
    started = time.perf_counter()
    kills = 0
    if processes == 0:
        _work(opened, bill, 0, threads, operations)
    else:
        opened.close()
        kills = _drive(where, bill, processes, threads, operations, kill=kill)
        opened = Budget.open(where, clock=lambda: time.time() + 2 * LEASE_S, lease_s=LEASE_S)
    seconds = time.perf_counter() - started
    recovered = len(opened.recover())
    root = opened.standing()[0]
    refused = bill.refused()
    over = int(bill.total() > root.spent.nano) + int(
        root.spent > root.cap.most or root.held != usd(0)
    )
    try:
        entries = opened.verify()
    except VerifyError:
        entries, over = 0, over + 1
    opened.close()
    bill.close()
    return Storm(
        operations=entries + refused,
        refused=refused,
        kills=kills,
        recovered=recovered,
        overspent=over,
        seconds=seconds,
    )


def _opened(where: str, cap: int) -> Budget:
    budget = Budget.open(where, cap=Money(cap), lease_s=LEASE_S)
    for team in range(TEAMS):
        budget.add(f"team-{team}", Cap.of(Money(cap // TEAMS * 2), "daily"))
        budget.add(f"team-{team}/*", Cap.of(Money(max(cap // 100, 10 * MEAN_NANO)), 2))
    return budget


def _drive(
    where: str, bill: Bill, processes: int, threads: int, operations: int, *, kill: bool
) -> int:
    fork = multiprocessing.get_context("fork")
    drawn = random.Random(1)
    kills, seeds = 0, 0
    running: list[BaseProcess] = []
    try:
        while bill.operations() < operations:
            running = [own for own in running if own.is_alive()]
            while len(running) < processes:
                seeds += 1
                own = fork.Process(target=_child, args=(where, bill, seeds, threads, operations))
                own.start()
                running.append(own)
            time.sleep(PAUSE_S)
            if kill:
                victim = drawn.choice(running)
                victim.kill()  # SIGKILL
                victim.join()
                kills += 1
    finally:
        for own in running:
            own.kill()
            own.join()
    return kills + len(running)


def _child(where: str, bill: Bill, seed: int, threads: int, operations: int) -> None:
    _work(Budget.open(where, lease_s=LEASE_S), bill, seed, threads, operations)


def _work(budget: Budget, bill: Bill, seed: int, threads: int, operations: int) -> None:
    each = [
        threading.Thread(target=_spend, args=(budget, bill, seed * 1000 + own, operations))
        for own in range(threads)
    ]
    for own in each:
        own.start()
    for own in each:
        own.join()


def _spend(budget: Budget, bill: Bill, seed: int, operations: int) -> None:
    drawn = random.Random(seed)
    while bill.operations() < operations:
        node = f"team-{drawn.randrange(TEAMS)}/agent-{drawn.randrange(AGENTS)}"
        least = drawn.randrange(1, 2 * MEAN_NANO)
        try:
            handle = budget.reserve(node, Money(least), most=Money(4 * least))
        except BudgetError:
            bill.refuse()
            time.sleep(0.001 * drawn.random())
            continue
        turn = drawn.random()
        if turn < 0.05:
            budget.release(handle)
            bill.add(0)
            continue
        cost = drawn.randrange(handle.most.nano + 1) if turn < 0.9 else handle.most.nano
        bill.add(cost)
        budget.settle(handle, Money(cost))
