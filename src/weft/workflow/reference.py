"""The same training on one process: what every split run is compared with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from weft.core.records import RecordLog
from weft.workflow.progress import Progress, silent

if TYPE_CHECKING:
    from weft.capture import Workload

__all__ = ["run_reference"]


def run_reference(
    workload: Workload, steps: int, records: Path, *, progress: Progress = silent
) -> None:
    """Train on this process alone, on one thread as a rank does, and record each step.

    The step is the workload's own model and loss under autograd: nothing of the program, the
    plan or the runtime takes part.

    Args:
        workload: what to train.
        steps: how many steps, from the initial state.
        records: file that records of kind "reference" are added to, with step, loss and
            step_s.
        progress: told what is going on.
    """
    import torch

    from weft.capture import initial_state, make_step
    from weft.runtime.step import step_seed

    step, state = make_step(workload), initial_state(workload)
    log, threads = RecordLog(records), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number in range(steps):
            batch = workload.batch(number)
            start_s = time.perf_counter()
            loss, state = step(state, batch, torch.tensor(step_seed(workload.seed, number)))
            took_s = time.perf_counter() - start_s
            log.append("reference", step=number, loss=float(loss), step_s=took_s)
            progress("train on one process", (number + 1) / steps, f"loss {float(loss):.4f}")
    finally:
        torch.set_num_threads(threads)
