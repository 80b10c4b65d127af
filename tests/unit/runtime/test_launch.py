"""What `launch` reads from torchrun's report."""

import pytest

from weft.core.errors import InputError
from weft.runtime.launch import _root_cause, launch

REPORT = """
Failures:
[1]:
  rank      : 0 (local_rank: 0)
  exitcode  : -15 (pid: 11)  (SIGTERM)
------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-01-01_00:00:00
  rank      : 3 (local_rank: 1)
  exitcode  : {code} (pid: 12)  (NAME)
"""


def test_the_root_cause_is_the_first_failure_not_the_first_line():
    killed = _root_cause(REPORT.format(code=-9))
    assert killed == {"rank": "3", "cause": "its process ended with signal SIGKILL"}
    left = _root_cause(REPORT.format(code=7))
    assert left == {"rank": "3", "cause": "its process ended with status 7"}


def test_a_report_without_a_cause_gives_none():
    assert _root_cause("cannot find the script") == {}


@pytest.mark.parametrize(("command", "ranks"), [([], 2), (["a.py"], 0)])
def test_a_launch_of_nothing_is_refused(command, ranks):
    with pytest.raises(InputError, match="a command and at least one rank"):
        launch(command, ranks, timeout_s=1)
