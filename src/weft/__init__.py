"""weft plans how a large model's training step is split over devices, and runs the plan.

    machine = weft.load_machine("dgx-h100x8")
    program = weft.capture(workload)
    plan = weft.plan(program, machine)
    step = weft.deploy(plan, workload)      # under torchrun
    loss = step(batch)

Names load when they are first used: `import weft` alone loads neither torch nor NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weft.capture import SGD as SGD
    from weft.capture import Adafactor as Adafactor
    from weft.capture import AdamW as AdamW
    from weft.capture import Workload as Workload
    from weft.capture import capture as capture
    from weft.capture import pinned as pinned
    from weft.core.errors import WeftError as WeftError
    from weft.machine import Machine as Machine
    from weft.machine import load_machine as load_machine
    from weft.parallel.experts import expert_plan as expert_plan
    from weft.parallel.explaining import explain as explain
    from weft.parallel.pins import pin as pin
    from weft.parallel.plan import ParallelPlan as ParallelPlan
    from weft.parallel.plan_files import load_plan as load_plan
    from weft.parallel.plan_files import save_plan as save_plan
    from weft.parallel.planning import plan as plan
    from weft.program.graph import Program as Program
    from weft.runtime import deploy as deploy
    from weft.runtime.probe import probe as probe
    from weft.workflow.score_plan import score as score

__version__ = "0.1.0"

_HOME = {
    "AdamW": "weft.capture",
    "Adafactor": "weft.capture",
    "Machine": "weft.machine",
    "ParallelPlan": "weft.parallel.plan",
    "Program": "weft.program.graph",
    "SGD": "weft.capture",
    "WeftError": "weft.core.errors",
    "Workload": "weft.capture",
    "deploy": "weft.runtime",
    "expert_plan": "weft.parallel.experts",
    "explain": "weft.parallel.explaining",
    "load_machine": "weft.machine",
    "load_plan": "weft.parallel.plan_files",
    "pin": "weft.parallel.pins",
    "pinned": "weft.capture",
    "plan": "weft.parallel.planning",
    "probe": "weft.runtime.probe",
    "save_plan": "weft.parallel.plan_files",
    "score": "weft.workflow.score_plan",
}
"""Where each name of the root lives. `capture` is missing because it is also a subpackage,
whose module can be called: see `weft.capture`."""

_SUBPACKAGES = frozenset(
    {
        *("capture", "cost", "diffusion", "fusion", "machine", "parallel"),
        *("program", "report", "rl", "runtime", "tokens", "workflow"),
    }
)

__all__ = [  # sorted, as a test checks
    "SGD",
    "Adafactor",
    "AdamW",
    "Machine",
    "ParallelPlan",
    "Program",
    "WeftError",
    "Workload",
    "capture",
    "deploy",
    "expert_plan",
    "explain",
    "load_machine",
    "load_plan",
    "pin",
    "pinned",
    "plan",
    "probe",
    "save_plan",
    "score",
]


def __getattr__(name: str) -> object:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"weft.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'weft' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBPACKAGES})
