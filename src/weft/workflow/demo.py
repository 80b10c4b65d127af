"""The whole main job on this machine: measure it, plan for it, run the plan, check the result."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from weft.core.errors import FileError
from weft.core.records import Record, RecordLog, read_records
from weft.workflow.capture_recipe import capture_recipe
from weft.workflow.plan_file import save_planned
from weft.workflow.plan_model import plan_program
from weft.workflow.planned import Planned
from weft.workflow.probe_host import probe_host
from weft.workflow.progress import Progress, silent
from weft.workflow.recipe import load_workload
from weft.workflow.reference import run_reference

__all__ = ["DemoResult", "find_demo_recipe", "record_host", "run_demo"]

NUM_RANKS = 2
TIMEOUT_S = 600.0
"""How long the ranks may take before they are given up; a slow machine needs a tenth [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What the demo made.

    Attributes:
        planned: the plan with its program and machine.
        records: steps of the split run ("step") and of one process ("reference"), and how busy
            the host was before ("host").
        folder: where the machine, the plan and the records lie.
    """

    planned: Planned
    records: tuple[Record, ...]
    folder: Path

    @property
    def files(self) -> tuple[tuple[str, str], ...]:
        """What lies in the folder, as (what, where)."""
        return (
            ("machine as measured", str(self.folder / "machine.yaml")),
            ("plan", str(self.folder / "plan.json")),
            ("steps, records of kind host, step and reference", str(self.folder / "records.jsonl")),
        )


def find_demo_recipe() -> str:
    """The demo's recipe in the checkout around this package, or in the current folder.

    Raises:
        FileError: there is none, as for an installed wheel outside of a checkout.
    """
    places = (Path(__file__).resolve().parents[3], Path.cwd())
    for place in places:
        path = place / "recipes" / "gpt.py"
        if path.is_file():
            return f"{path}:gpt_demo"
    raise FileError(
        need="recipes/gpt.py, which the demo trains",
        got=f"none in {places[1]}",
        hint="change into a checkout of weft; the installed package holds no recipes",
    )


def run_demo(
    recipe: str,
    folder: Path,
    *,
    steps: int,
    probe_seconds: float = 12.0,
    progress: Progress = silent,
) -> DemoResult:
    """Measure, capture, plan, run on two ranks, run on one process.

    Args:
        recipe: "file.py:function".
        folder: where the machine, the plan and the records go; made if missing.
        steps: how many steps both runs take.
        probe_seconds: time to spend on measuring the machine [s].
        progress: told what is going on.

    Raises:
        RunError: a rank failed.
    """
    from weft.machine import save_machine
    from weft.parallel.plan import Level

    folder.mkdir(parents=True, exist_ok=True)
    records = folder / "records.jsonl"
    records.unlink(missing_ok=True)
    record_host(records)
    machine = probe_host(NUM_RANKS, seconds=probe_seconds, progress=progress)
    save_machine(machine, folder / "machine.yaml")
    captured = capture_recipe(recipe, progress=progress)
    plan = plan_program(captured.program, machine, level=Level.BEST, progress=progress)
    planned = Planned(
        plan=plan, program=captured.program, machine=machine, capture_s=captured.capture_s
    )
    save_planned(planned, folder / "plan.json")
    _run_ranks(recipe, folder, steps, progress)
    run_reference(load_workload(recipe), steps, records, progress=progress)
    return DemoResult(planned=planned, records=tuple(read_records(records)), folder=folder)


def record_host(records: Path) -> None:
    """Record, before the demo itself keeps the host busy, how busy others keep it.

    Args:
        records: file that one record of kind "host" is added to, with the load average of the
            last minute (none where the system does not tell it) and the number of processors.
    """
    try:
        load = os.getloadavg()[0]
    except OSError:
        load = None
    RecordLog(records).append("host", load_1_minute=load, processors=os.cpu_count())


def _run_ranks(recipe: str, folder: Path, steps: int, progress: Progress) -> None:
    from weft.runtime.launch import launch

    records = folder / "records.jsonl"
    stage = f"train on {NUM_RANKS} ranks"
    progress(stage, None, "starting the ranks")

    def watch() -> None:
        done = list(read_records(records, "step")) if records.exists() else []
        if done:
            progress(stage, len(done) / steps, f"loss {done[-1].fields['loss']}")

    command = ["-m", "weft", "run", recipe, "--plan", str(folder / "plan.json")]
    command += ["--steps", str(steps), "--records", str(records)]
    # The ranks must find this weft, also where it is not installed.
    env = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    launch(command, NUM_RANKS, timeout_s=TIMEOUT_S, env=env, on_poll=watch)
    progress(stage, 1.0)
