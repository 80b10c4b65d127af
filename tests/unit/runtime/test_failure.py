"""A guard around one rank."""

import os
import signal
import threading
from dataclasses import replace

import pytest
import torch.distributed as dist

from weft.core.errors import InputError, RunError
from weft.runtime import failure
from weft.runtime.failure import Failure, guard, patient_work
from weft.runtime.world import alone


def fail_in_step(number, error):
    with guard(alone()) as progress:
        progress.step = number
        raise error


def test_an_error_becomes_one_that_names_rank_step_and_cause():
    with pytest.raises(RunError, match="rank 0 failed in step 3: ValueError: no good") as caught:
        fail_in_step(3, ValueError("no good\nsecond line"))
    assert (caught.value.rank, caught.value.step) == (0, 3)
    assert isinstance(caught.value.__cause__, ValueError)


def test_wefts_own_errors_pass_as_they_are():
    error = InputError(need="a", got="b")
    with pytest.raises(InputError) as caught:
        fail_in_step(1, error)
    assert caught.value is error


def test_an_interrupt_passes():
    with pytest.raises(KeyboardInterrupt):
        fail_in_step(1, KeyboardInterrupt())


def test_a_failure_outside_any_step_says_nothing_of_steps():
    error = Failure(rank=2, step=-1, cause="gone").to_error(4)
    assert error.got == "rank 2 failed: gone"
    assert error.need == "all 4 ranks to finish"


def test_a_sigterm_while_looking_for_the_cause_does_not_end_the_process_before_it_has_said_it(
    monkeypatch,
):
    def leave(number, _):
        raise SystemExit(128 + number)

    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    world = replace(alone(), size=2, store=store)
    monkeypatch.setattr(failure, "INQUIRY_S", 0.4)
    monkeypatch.setattr(failure.faulthandler, "dump_traceback_later", lambda *_, **__: None)
    before = signal.signal(signal.SIGTERM, leave)
    torchrun = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    try:
        with pytest.raises(RunError, match="rank 1 failed: its process is gone"):
            lose_a_collective(world, torchrun)
        assert signal.getsignal(signal.SIGTERM) is leave
    finally:
        torchrun.join()
        signal.signal(signal.SIGTERM, before)


def lose_a_collective(world, torchrun):
    with guard(world):
        torchrun.start()
        raise dist.DistBackendError("connection closed by peer")


def worlds(timeout_s):
    """Two ranks of one world, which share a store."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    one = replace(alone(), size=2, store=store, timeout_s=timeout_s)
    return one, replace(one, rank=1, store=store.clone())


def test_a_slow_rank_is_waited_for_longer_than_a_collective_would(monkeypatch):
    monkeypatch.setattr(failure, "SIGN_OF_LIFE_S", 0.02)
    quick, slow = worlds(timeout_s=0.2)
    goes_on, said, order = threading.Event(), [], []

    def work():
        with patient_work(slow, "compile", print):
            goes_on.wait(10)
            order.append("slow")

    other = threading.Thread(target=work)
    other.start()
    # Longer than the time-out from the moment in which the quick one waits.
    waker = threading.Timer(0.8, goes_on.set)
    waker.start()
    try:
        with patient_work(quick, "compile", said.append):
            order.append("quick")
        order.append("met")
    finally:
        other.join()
        waker.join()
    assert order == ["quick", "slow", "met"]
    assert said == ["waiting for rank 1"]


def test_a_rank_that_shows_no_sign_of_life_is_named(monkeypatch):
    monkeypatch.setattr(failure, "SIGN_OF_LIFE_S", 0.02)
    here, _ = worlds(timeout_s=0.1)
    with (
        pytest.raises(RunError, match="none of rank 1") as caught,
        patient_work(here, "compile", print),
    ):
        pass
    assert caught.value.rank == 1


def test_a_rank_that_fails_at_its_work_ends_the_wait_of_the_others(monkeypatch):
    monkeypatch.setattr(failure, "SIGN_OF_LIFE_S", 0.02)
    here, there = worlds(timeout_s=60)
    failure._record(there.store, Failure(rank=1, step=-1, cause="RunError: need a step"))
    with (
        pytest.raises(RunError, match="rank 1 failed: RunError: need a step"),
        patient_work(here, "compile", print),
    ):
        pass


def test_the_same_work_again_is_met_anew(monkeypatch):
    monkeypatch.setattr(failure, "SIGN_OF_LIFE_S", 0.02)
    first, second = worlds(timeout_s=10)
    order = []

    def work():
        for number in range(2):
            with patient_work(second, "compile", lambda _: None):
                order.append(number)

    other = threading.Thread(target=work)
    other.start()
    for number in range(2):
        with patient_work(first, "compile", lambda _: None):
            order.append(number)
    other.join()
    assert order == [0, 0, 1, 1]
