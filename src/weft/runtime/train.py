"""The training loop that every rank of a run goes through: steps, records, checkpoints, an end.

Rank 0 writes the records. A run may be asked to stop (Ctrl-C, or SIGTERM from a scheduler); the
ranks then agree on the step after which they all stop, and leave a checkpoint.
"""

from __future__ import annotations

import logging
import math
import platform
import resource
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from weft.capture import Workload
from weft.capture.batch import require_batch
from weft.core.errors import InputError, MismatchError, RunError
from weft.core.records import RecordLog
from weft.parallel.pipeline.plan import PipelinePlan
from weft.parallel.plan import ParallelPlan
from weft.program.graph import Program
from weft.runtime.ahead import Tell, silent
from weft.runtime.checkpoint import load_checkpoint, open_folder, save_checkpoint
from weft.runtime.deploy import deploy
from weft.runtime.failure import Progress, guard
from weft.runtime.inductor import Compiler
from weft.runtime.rank_record import RankStep, gather_rank_steps, record_ranks
from weft.runtime.step import Trainable
from weft.runtime.world import World, gather_objects, joined, largest

__all__ = ["Outcome", "Schedule", "StepDone", "run_plan", "train"]


_LOG = logging.getLogger("weft.runtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long to train and what to keep.

    Attributes:
        steps: number of steps in all, those before a resume included.
        checkpoints: folder for checkpoints; None for none.
        checkpoint_every: steps between two checkpoints; 0 for one at the end only.
        keep: how many of the newest checkpoints stay.
        resume: whether to go on from the newest checkpoint, if there is one.
    """

    steps: int
    checkpoints: Path | None = None
    checkpoint_every: int = 0
    keep: int = 2
    resume: bool = False

    def __post_init__(self) -> None:
        if self.steps < 0 or self.checkpoint_every < 0 or self.keep < 1:
            raise InputError(
                need="steps and checkpoint_every of at least 0, keep of at least 1",
                got=f"steps {self.steps}, checkpoint_every {self.checkpoint_every}, "
                f"keep {self.keep}",
                hint="keep at least one checkpoint",
            )
        if self.checkpoints is None and (self.resume or self.checkpoint_every):
            raise InputError(
                need="a folder for checkpoints",
                got="none, with checkpoint_every or resume set",
                hint="name one, for example --checkpoint runs/first",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """One step: its number from 0, its loss, and the time from the batch to the loss [s]."""

    step: int
    loss: float
    step_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run did.

    Attributes:
        first_step: number of the first step of this run: 0, or where it was resumed.
        done: the steps of this run, in order; those before a resume are not among them.
        stopped: whether it was asked to stop before its last step.
        peak_bytes: most memory that each rank has used, in order of rank [bytes].
        built_whole: why this rank built the whole first state and not its part; empty if it
            did not.
    """

    first_step: int
    done: tuple[StepDone, ...]
    stopped: bool
    peak_bytes: tuple[int, ...]
    built_whole: str = ""


def run_plan(
    plan: ParallelPlan | PipelinePlan,
    workload: Workload,
    schedule: Schedule,
    *,
    program: Program | None = None,
    compile: Compiler | None = None,  # noqa: A002 - the word that torch uses for it
    log: RecordLog | None = None,
    on_step: Callable[[StepDone], None] | None = None,
    tell: Tell = silent,
    timeout_s: float = 300.0,
) -> Outcome:
    """Join the ranks that torchrun started, deploy the plan and train: a rank's whole life.

    Args:
        plan: made for the workload's program and as many devices as there are ranks.
        workload: what to train.
        schedule: how long, and what to keep.
        program: the captured workload, if it is at hand.
        compile: who compiles the step, if anybody, see `deploy`.
        log: where rank 0 records what it measures.
        on_step: called on rank 0 after each step.
        tell: told on rank 0 what is being compiled.
        timeout_s: how long a rank waits for the others before the run is given up [s].

    Raises:
        RunError: a rank failed.
        MismatchError: plan, workload, checkpoint and ranks do not belong together.
        FileError: a checkpoint could not be written, or none is whole.
    """
    with joined(timeout_s=timeout_s) as world, guard(world) as progress:
        step = deploy(plan, workload, compile=compile, world=world, program=program, tell=tell)
        return train(step, workload.batch, schedule, progress=progress, log=log, on_step=on_step)


def train(
    step: Trainable,
    batch: Callable[[int], Mapping[str, Tensor]],
    schedule: Schedule,
    *,
    progress: Progress | None = None,
    log: RecordLog | None = None,
    on_step: Callable[[StepDone], None] | None = None,
) -> Outcome:
    """Train until the schedule ends or the run is asked to stop; all ranks call it together.

    Args:
        step: this rank's share of the step.
        batch: the global batch of a step number.
        schedule: how long, and what to keep.
        progress: where to note the step that runs, as `guard` gives it.
        log: where rank 0 records what it measures.
        on_step: called on rank 0 after each step.

    Raises:
        FileError: the folder for checkpoints cannot be used, or none in it is whole.
        InputError: a batch is none.
        MismatchError: the ranks have different batches in the first step.
        RunError: the loss is no longer a finite number. Checkpoints of before are kept.
    """
    progress = Progress() if progress is None else progress
    log = log if step.world.is_first else None
    _begin(log, step, schedule)
    _record_start(log, step)
    first_step, done = step.number, list[StepDone]()
    by_rank: list[list[RankStep]] = []
    with _stop_requests() as requested:
        stopped = False
        while step.number < schedule.steps and not stopped:
            progress.step = step.number
            entries = require_batch(batch(step.number), step.number)
            if step.number == first_step:
                _require_same_batch(step, entries)
            finished = _one_step(step, entries)
            done.append(finished)
            ranks = gather_rank_steps(step, finished.step_s)
            by_rank += [] if ranks is None else [ranks]
            _record_step(log, finished, entries, ranks)
            if on_step is not None and step.world.is_first:
                on_step(finished)
            _require_finite(finished)
            stopped = bool(largest(step.world, int(requested())))
            _checkpoint(log, step, schedule, is_last=stopped)
    progress.step = -1
    outcome = Outcome(
        first_step=first_step,
        done=tuple(done),
        stopped=stopped,
        peak_bytes=tuple(gather_objects(step.world, _peak_bytes(step.world))),
        built_whole=step.built_whole,
    )
    if log is not None:
        log.append("end", steps=len(done), stopped=stopped, peak_bytes=list(outcome.peak_bytes))
        if by_rank and isinstance(step.deployment.plan, PipelinePlan):
            record_ranks(log, step.deployment.plan, by_rank, outcome.peak_bytes)
    return outcome


def _begin(log: RecordLog | None, step: Trainable, schedule: Schedule) -> None:
    """Open the folder for checkpoints, and go on from the newest one if that is wanted."""
    folder = schedule.checkpoints
    if folder is None:
        return
    open_folder(folder, step.world, resume=schedule.resume)
    if not schedule.resume:
        return
    about = load_checkpoint(folder, step)
    if about is None:
        if step.world.is_first:
            _LOG.warning("no checkpoint in %s: starting from the beginning", folder)
    elif log is not None:
        log.append("resume", step=about.step, plan=about.plan_digest, ranks=about.world_size)


def _require_same_batch(step: Trainable, entries: Mapping[str, Tensor]) -> None:
    """Check that all ranks have the same global batch, of which each takes its part."""
    if step.world.is_alone:
        return
    found = gather_objects(step.world, {key: _checksum(value) for key, value in entries.items()})
    for rank, other in enumerate(found):
        for key in sorted(found[0].keys() | other.keys()):
            if other.get(key) != found[0].get(key):
                raise MismatchError(
                    need=f"the same batch on all ranks in step {step.number}",
                    got=f"entry {key!r} differs between rank 0 and rank {rank}",
                    hint="the batch function returns the global batch, which follows from the "
                    "step number alone: seed its random numbers with the step, not with the rank "
                    "or the time",
                )


def _checksum(tensor: Tensor) -> int:
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return zlib.crc32(content.numpy().data)


def _one_step(step: Trainable, entries: Mapping[str, Tensor]) -> StepDone:
    number, start = step.number, time.perf_counter()
    loss = float(step(entries))
    if step.place.device.type == "cuda":
        torch.cuda.synchronize(step.place.device)
    return StepDone(step=number, loss=loss, step_s=time.perf_counter() - start)


def _require_finite(done: StepDone) -> None:
    """End the run at a loss that is no number. All ranks see the same loss, so all end."""
    if math.isfinite(done.loss):
        return
    raise RunError(
        need="a loss that is a finite number",
        got=f"loss {done.loss} in step {done.step}",
        hint="lower the learning rate, or check the data of this step; the checkpoints of before "
        "are kept, and the newest may already hold the values that led here",
        step=done.step,
    )


def _checkpoint(
    log: RecordLog | None, step: Trainable, schedule: Schedule, *, is_last: bool
) -> None:
    if schedule.checkpoints is None:
        return
    every = schedule.checkpoint_every
    is_due = every > 0 and step.number % every == 0
    if is_due or is_last or step.number == schedule.steps:
        start = time.perf_counter()
        path = save_checkpoint(schedule.checkpoints, step, keep=schedule.keep)
        if log is not None:
            seconds = time.perf_counter() - start
            log.append("checkpoint", step=step.number, path=str(path), seconds=seconds)


def _record_start(log: RecordLog | None, step: Trainable) -> None:
    if log is None:
        return
    plan, world = step.deployment.plan, step.world
    log.append(
        "run",
        program=plan.program_name,
        program_digest=step.deployment.program_digest,
        plan_digest=step.deployment.plan_digest,
        machine=plan.machine_name,
        machine_digest=plan.machine_digest,
        meshes=[list(stage.mesh.shape) for stage in _stages(plan)],
        ranks=world.size,
        device=_device_name(world),
        threads=torch.get_num_threads(),
        first_step=step.number,
        built_whole=step.built_whole,
        predicted_step_s=plan.prediction.step_s,
        predicted_peak_bytes=plan.prediction.peak_bytes,
        torch=torch.__version__,
        python=platform.python_version(),
    )


def _stages(plan: ParallelPlan | PipelinePlan) -> tuple[ParallelPlan, ...]:
    return plan.plans if isinstance(plan, PipelinePlan) else (plan,)


def _record_step(
    log: RecordLog | None,
    done: StepDone,
    entries: Mapping[str, Tensor],
    ranks: list[RankStep] | None,
) -> None:
    if log is None:
        return
    sizes = {tensor.shape[0] for tensor in entries.values() if tensor.dim() > 0}
    samples = sizes.pop() if len(sizes) == 1 else None
    more = {} if ranks is None else {"waited": [r.waited for r in ranks]}
    log.append("step", step=done.step, loss=done.loss, step_s=done.step_s, samples=samples, **more)


def _device_name(world: World) -> str:
    if world.device.type == "cuda":
        return torch.cuda.get_device_name(world.device)
    return f"cpu {platform.processor() or platform.machine()}"


def _peak_bytes(world: World) -> int:
    """Most memory that this rank has used: allocated on a GPU, resident on a CPU."""
    if world.device.type == "cuda":
        return torch.cuda.max_memory_allocated(world.device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGTERM or SIGINT into a request; a second one interrupts as usual."""
    event = threading.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():
        yield event.is_set  # signals reach the main thread only
        return
    previous = {number: signal.getsignal(number) for number in signals}

    def request(number: int, _: FrameType | None) -> None:
        event.set()
        signal.signal(number, previous[signal.Signals(number)] or signal.SIG_DFL)

    for number in signals:
        signal.signal(number, request)
    try:
        yield event.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
