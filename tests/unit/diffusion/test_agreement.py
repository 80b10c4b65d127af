"""What ranks that share a run have to have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import distributed

from weft.core.errors import InfeasibleError, RunError, WeftError
from weft.diffusion.agreement import Agreement


def on_two(monkeypatch, call: Callable[[Agreement, int], object]) -> list[object]:
    """What two ranks, each in a thread, get of a call; errors as values."""
    given: list[object] = [None, None]
    found: list[object] = [None, None]
    barrier, own = threading.Barrier(2), threading.local()

    def gather(every, value, group):
        given[own.rank] = value
        barrier.wait(5)
        every[:] = given
        barrier.wait(5)

    def run(rank):
        own.rank = rank
        try:
            found[rank] = call(Agreement("both"), rank)
        except WeftError as error:
            found[rank] = error

    monkeypatch.setattr(distributed, "all_gather_object", gather)
    monkeypatch.setattr(distributed, "get_world_size", lambda group: 2)
    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_plans_are_the_first_ranks(monkeypatch):
    assert on_two(monkeypatch, lambda own, rank: own.first(lambda: f"of {rank}")) == ["of 0"] * 2


def test_what_each_needs_for_itself_stays_its_own(monkeypatch):
    made = on_two(monkeypatch, lambda own, rank: own.each(lambda: f"of {rank}"))
    assert made == ["of 0", "of 1"]


@pytest.mark.parametrize("ask", [Agreement.first, Agreement.each])
def test_what_one_refuses_all_refuse(monkeypatch, ask):
    def make(rank):
        if rank == 1:
            raise InfeasibleError(need="speed", got="less")
        return rank

    found = on_two(monkeypatch, lambda own, rank: ask(own, lambda: make(rank)))
    assert all(isinstance(error, InfeasibleError) for error in found)


def test_one_alone_agrees_with_itself():
    own = Agreement()
    assert own.first(lambda: 1) == own.each(lambda: 1) == 1
    assert own.mean({"step": torch.tensor(0.5)}) == {"step": 0.5} and own.mean({}) == {}
    with pytest.raises(RunError):
        own.each(lambda: (_ for _ in ()).throw(RunError(need="a", got="b")))
