"""A guard around one rank."""

import os
import signal
import threading
from dataclasses import replace

import pytest
import torch.distributed as dist

from weft.core.errors import InputError, RunError
from weft.runtime import failure
from weft.runtime.failure import Failure, guard
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
