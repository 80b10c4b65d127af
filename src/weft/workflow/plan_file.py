"""Plan files that can be looked at: the plan, and with it the program and the machine.

`weft.save_plan` writes the decision alone, which is all that a run needs. The command line
adds a *basis*, the program and the machine as compressed text, so that a page or a trace can
be drawn later and elsewhere, without the recipe and without torch. Readers of plans skip it.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft.core.errors import FileError
from weft.core.files import write_whole
from weft.workflow.planned import Planned

if TYPE_CHECKING:
    from weft.machine.model import Machine
    from weft.parallel.pipeline.plan import PipelinePlan
    from weft.program.graph import Program

__all__ = ["open_pipeline", "open_planned", "save_pipeline", "save_planned"]

_KEY = "basis"


def save_planned(planned: Planned, path: Path) -> None:
    """Write the plan with its basis; the file appears whole or not at all.

    Raises:
        FileError: the file cannot be written.
    """
    from weft.machine.yaml import machine_to_text
    from weft.parallel.serialize import plan_to_json
    from weft.program.text import to_text

    outer = json.loads(plan_to_json(planned.plan))
    outer[_KEY] = {
        "program_name": planned.program.name,
        "program": _pack(to_text(planned.program)),
        "machine": _pack(machine_to_text(planned.machine)),
    }
    write_whole(path, json.dumps(outer, sort_keys=True, separators=(",", ":")) + "\n", "a plan")


def open_planned(
    path: Path, *, program: Program | None = None, machine: Machine | None = None
) -> Planned:
    """Read a plan with what it is about.

    Args:
        path: a plan file.
        program, machine: used in place of the file's own; needed where it has none.

    Raises:
        FileError: the file is missing, damaged, or has no basis and none is given.
        MismatchError: the plan was made for another program or machine.
    """
    from weft.parallel.serialize import load_plan
    from weft.parallel.validate import require_machine, require_program

    plan = load_plan(path)
    if program is None or machine is None:
        basis = _basis(path)
        program = program or _read_program(basis, path)
        machine = machine or _read_machine(basis, path)
    require_program(plan, program)
    require_machine(plan, machine)
    return Planned(plan=plan, program=program, machine=machine)


def save_pipeline(plan: PipelinePlan, path: Path) -> None:
    """Write the plan of a pipeline; the file appears whole or not at all.

    Raises:
        FileError: the file cannot be written.
    """
    from weft.parallel.plan_files import save_plan

    save_plan(plan, path)


def open_pipeline(
    path: Path,
    *,
    program: Callable[[], Program | None] = lambda: None,
    machine: Callable[[], Machine | None] = lambda: None,
) -> PipelinePlan | None:
    """The plan of a pipeline; None if the file holds a plan of one stage.

    Args:
        path: a plan file.
        program, machine: what the plan has to be for, if they return something; called for
            pipelines only.

    Raises:
        FileError: the file is missing or damaged.
        MismatchError: the plan was made for another program or machine.
    """
    from weft.parallel.plan import ParallelPlan
    from weft.parallel.plan_files import load_plan
    from weft.parallel.validate import require_machine, require_program

    plan = load_plan(path)
    if isinstance(plan, ParallelPlan):
        return None
    wanted_program, wanted_machine = program(), machine()
    if wanted_program is not None:
        require_program(plan, wanted_program)
    if wanted_machine is not None:
        require_machine(plan, wanted_machine)
    return plan


def _basis(path: Path) -> dict[str, Any]:
    outer = json.loads(path.read_text())
    if not isinstance(outer.get(_KEY), dict):
        raise FileError(
            need="a plan file that holds its program and machine",
            got=f"{path}, which holds the decision alone",
            hint="pass --recipe and --machine, or write it again with `weft plan -o`",
        )
    return outer[_KEY]


def _read_program(basis: dict[str, Any], path: Path) -> Program:
    from weft.program.text import from_text

    return from_text(_unpack(basis, "program", path))


def _read_machine(basis: dict[str, Any], path: Path) -> Machine:
    from weft.machine.yaml import machine_from_text

    return machine_from_text(_unpack(basis, "machine", path), f"the machine in {path}")


def _pack(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 6)).decode()


def _unpack(basis: dict[str, Any], key: str, path: Path) -> str:
    try:
        return zlib.decompress(base64.b64decode(basis[key])).decode()
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise FileError(
            need=f"the {key} that the plan was made for, as `weft plan -o` writes it",
            got=f"{path}: {type(error).__name__}: {error}",
            hint="the file is damaged; plan again, or pass --recipe and --machine",
        ) from error
