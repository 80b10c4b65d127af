"""A case in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.job import ROOT
from weft.core.errors import RunError

__all__ = ["run_alone"]


def run_alone(module: str, case: object, name: str, timeout_s: float) -> dict[str, Any]:
    """What `python -m MODULE CASE` prints last, as a JSON object.

    Args:
        module: takes the case as JSON, and prints one line of JSON at its end.
        case: as JSON values.
        name: of the case, for messages.
        timeout_s: limit of the whole process [s].

    Raises:
        RunError: the process failed or ran out of time.
    """
    path = os.pathsep.join([str(ROOT), *(p for p in sys.path if p)])
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, json.dumps(case)],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env={**os.environ, "PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(
            need=f"an end of {name} within {timeout_s:g} s",
            got="none",
            hint="the machine may be busy with other work",
        ) from error
    if done.returncode != 0:
        raise RunError(
            need=f"an exit code of 0 from {name}",
            got=f"{done.returncode}: {done.stderr.strip()[-2000:]}",
        )
    return json.loads(done.stdout.splitlines()[-1])
