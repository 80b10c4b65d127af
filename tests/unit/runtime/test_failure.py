"""A guard around one rank."""

import pytest

from weft.core.errors import InputError, RunError
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
