"""Training whose process is killed goes on from its checkpoint, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from benchmarks.job import python_path
from tests.unit.rl import small
from weft.core.records import read_records

pytest.importorskip("ray", reason="needs Ray: pip install 'weft[rl]'")

LIMIT_S = 120.0


def command(folder, engine, *more):
    recipe = f"{small.__file__}:slow"
    return [
        *(sys.executable, "-m", "weft", "rl", "train", recipe, "-o", str(folder)),
        *("--engine", engine, "--staleness", "2", "--checkpoint-every", "4", "--steps", "14"),
        *more,
    ]


def steps(folder):
    path = folder / "records.jsonl"
    return list(read_records(path, "rl-step")) if path.exists() else []


def start(folder, engine, *more):
    environment = os.environ | python_path()
    return subprocess.Popen(
        command(folder, engine, *more),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for(condition, process):
    until = time.monotonic() + LIMIT_S
    while not condition():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < until
        time.sleep(0.02)


def rays_of(process):
    """Processes of Ray that a trainer has started, by their parents."""
    parents, names = {}, {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                with open(f"/proc/{entry.name}/stat") as file:  # noqa: PTH123
                    head, _, tail = file.read().rpartition(")")
            except OSError:
                continue
            parents[int(entry.name)] = int(tail.split()[1])
            names[int(entry.name)] = head
    found = {process.pid}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process.pid}


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_trainer_that_was_killed_goes_on(tmp_path, engine):
    process = start(tmp_path, engine)
    wait_for(lambda: len(steps(tmp_path)) >= 6, process)
    children = rays_of(process)
    process.kill()
    process.wait()
    process.stderr.close()
    assert bool(children) is (engine == "ray")
    until = time.monotonic() + LIMIT_S
    while not all(map(is_gone, children)):
        assert time.monotonic() < until, "processes of Ray live on"
        time.sleep(0.05)

    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    reached = saved["learner"]["version"]
    assert reached >= 4 and reached % 4 == 0
    assert saved["intake"]["buffer"]["version"] == reached

    done = subprocess.run(
        command(tmp_path, engine, "--resume"),
        env=os.environ | python_path(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    after = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    found = steps(tmp_path)
    assert [step.fields["step"] for step in found] == list(range(1, 15))
    assert after["learner"]["version"] == after["intake"]["buffer"]["version"] == 14
    trained = [number for step in found for number in step.fields["prompts"]]
    waiting = {
        one["number"] for entry in after["intake"]["buffer"]["waiting"] for one in entry["values"]
    }
    accounted = sorted([*trained, *waiting, *after["intake"]["returned"]])
    assert accounted == list(range(after["intake"]["next"]))
    assert max(int(lag) for step in found for lag in step.fields["lags"]) <= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_session_stops_a_fleet_in_order(tmp_path, number):
    """As Ctrl-C on a terminal does it: every process of the session gets it."""
    process = start(tmp_path, "ray")
    wait_for(lambda: len(steps(tmp_path)) >= 3, process)
    children = rays_of(process)
    os.killpg(process.pid, number)
    _, told = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 128 + number, told.decode()
    assert "Traceback" not in told.decode()
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["learner"]["version"] == len(steps(tmp_path)) < 14
    until = time.monotonic() + LIMIT_S
    while not all(map(is_gone, children)):
        assert time.monotonic() < until, "processes of Ray live on"
        time.sleep(0.05)
