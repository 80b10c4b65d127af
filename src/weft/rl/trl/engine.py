"""Train a task with TRL's asynchronous trainer, in one process on a CPU.

    weft.rl.trl.train(task, steps=150, staleness=4, folder=Path("runs/a"))

The trainer is TRL's own, with its loss and its checks of age; samples come from a thread beside it
that draws with the task's model. For one machine, for studies, and to try a task out before it goes
to a machine with inference servers, where TRL's trainer is used as it is, with
`weft.rl.GACCallback`.

Threads race, so a run is not repeated bit for bit: a batch may be begun with weights that are one
step newer or older. TRL's loader fetches a batch ahead, so samples are at least a step old after
the first, whatever else is asked for.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from weft.core.errors import FileError, InputError, MismatchError
from weft.core.records import RecordLog, read_records
from weft.rl.corrections import PPOClip
from weft.rl.engines.folder import RECORDS, take_back
from weft.rl.task import Task
from weft.rl.trl.callback import GACCallback
from weft.rl.trl.cpu import on_cpu
from weft.rl.trl.layout import sample_of, trl_module
from weft.rl.trl.worker import LocalTransfer, ThreadWorker

__all__ = ["Outcome", "train"]

_FIGURES = {
    "reward": "reward",
    "loss": "loss",
    "kl": "kl",
    "entropy": "entropy",
    "clipped": "clip_ratio/region_mean",
    "norm_unclipped": "grad_norm",
    "tokens": "sample/trained_tokens_mean",
    "waited_s": "perf/rollout_wait_s",
}
"""Fields of `rl-step` by what TRL's logs call them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run.

    Attributes:
        steps: fields of the `rl-step` records of this run, in order.
        model: the trained model.
    """

    steps: tuple[Mapping[str, Any], ...]
    model: torch.nn.Module


def train(
    task: Task,
    *,
    steps: int,
    staleness: int = 4,
    learning_rate: float | None = None,
    gac: Mapping[str, Any] | None = None,
    compensation: float | None = None,
    seed: int = 0,
    folder: Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    about: Mapping[str, object] | None = None,
    on_step: Callable[[Mapping[str, Any]], None] | None = None,
) -> Outcome:
    """Train until `steps` steps were taken in all.

    Args:
        task: what is trained.
        steps: in all, those before a resume included.
        staleness: how many steps old a sample is at most when it is trained on, at least 1.
        learning_rate: of AdamW; the task's if left out.
        gac: options of `weft.rl.GAC`, none of them for its defaults; None to measure only.
        compensation: strength of delay compensation; None for none.
        seed: of the samples, and of whatever else is drawn.
        folder: for records and checkpoints; None for neither.
        checkpoint_every: steps between checkpoints; None for none.
        resume: whether to go on from the last checkpoint in the folder.
        about: further fields of the `rl-run` record.
        on_step: told the fields of each `rl-step` record.

    Raises:
        InputError: a number out of range, an option that GAC does not take, or no TRL.
        FileError: a folder that holds a run already, or none to go on from.
        MismatchError: a run of another task, or a TRL whose layout is not known.
        RunError: the thread that draws has failed.
    """
    _check(steps=steps, staleness=staleness, checkpoint_every=checkpoint_every)
    callback = GACCallback(
        **(gac or {}), measure_only=gac is None, compensation=compensation or None
    )
    fields = _fields(task, learning_rate, gac, compensation)
    run = {**fields, **(about or {}), "seed": seed, "staleness": staleness}
    checkpoint = _last_checkpoint(folder, run) if resume else None
    log = _open_log(folder, run, checkpoint)
    begun = 0 if checkpoint is None else _step_of(checkpoint)
    worker = ThreadWorker(
        task, staleness=staleness, seed=seed, make_sample=sample_of, first_batch=begun
    )
    recorder = _Recorder(callback, worker, task, log, on_step)
    options = {
        "learning_rate": task.learning_rate if learning_rate is None else learning_rate,
        "seed": seed,
        "max_steps": steps,
        "max_staleness": staleness,
        "save_strategy": "no" if checkpoint_every is None or folder is None else "steps",
        "save_steps": checkpoint_every or steps,
    }
    model = _run(task, worker, [callback, recorder], options, folder, checkpoint)
    return Outcome(steps=tuple(recorder.done), model=model)


def _run(
    task: Task,
    worker: ThreadWorker,
    callbacks: list[TrainerCallback],
    options: Mapping[str, Any],
    folder: Path | None,
    checkpoint: Path | None,
) -> torch.nn.Module:
    """Train, and give back the model."""
    with TemporaryDirectory() as scratch, on_cpu(), _quiet():
        options = {**options, "output_dir": str(folder or scratch)}
        trainer = _make_trainer(task, Path(scratch), worker, callbacks, options)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        assert trainer.model is not None, "a trainer that has trained has one"
        return trainer.model


class _Recorder(TrainerCallback):
    """Writes what the trainer logs as records. It has to come after GAC's callback."""

    def __init__(
        self,
        callback: GACCallback,
        worker: ThreadWorker,
        task: Task,
        log: RecordLog | None,
        on_step: Callable[[Mapping[str, Any]], None] | None,
    ) -> None:
        self.done: list[dict[str, Any]] = []
        self._callback = callback
        self._worker = worker
        self._task = task
        self._log = log
        self._on_step = on_step
        self._began = time.monotonic()
        self._ended = self._began

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """A step was taken; the last line, of the run as a whole, is none."""
        last = self._callback.last
        if logs is None or "loss" not in logs or last is None:
            return
        now = time.monotonic()
        figures = {name: logs.get(known) for name, known in _FIGURES.items()}
        count = self._task.groups_per_step
        lags = self._callback.lags or {}
        samples = sum(lags.values())
        told = {
            **figures,
            "step": state.global_step,
            "fresh_reward": self._worker.take_fresh_reward(),
            "cosine_raw": last.cosine_raw,
            "cosine_applied": last.cosine_applied,
            "regime": last.regime.name.lower(),
            "norm_raw": last.norm_raw,
            "norm_applied": last.norm_applied,
            "staleness": sum(lag * n for lag, n in lags.items()) / samples,
            "lags": {str(lag): n for lag, n in lags.items()},
            "effective": None,  # TRL tells means of ratios, not of their squares
            "multiplier": None,
            "samples": samples,
            # Samples are trained on in order, and none is dropped.
            "prompts": list(range((state.global_step - 1) * count, state.global_step * count)),
            "seconds": now - self._began,
            "learnt_s": now - self._ended - (figures["waited_s"] or 0.0),
        }
        self._ended = now
        self.done.append(told)
        if self._log is not None:
            self._log.append("rl-step", **told)
        if self._on_step is not None:
            self._on_step(told)


def _make_trainer(
    task: Task,
    scratch: Path,
    worker: ThreadWorker,
    callbacks: list[TrainerCallback],
    options: Mapping[str, Any],
) -> Trainer:
    from datasets import Dataset

    tokenizer = task.make_tokenizer()
    model = task.make_model()
    # TRL takes a model by its name or folder only.
    model.save_pretrained(scratch / "model")
    tokenizer.save_pretrained(scratch / "model")
    clip = PPOClip()
    fixed: dict[str, Any] = {
        "use_cpu": True,
        "bf16": False,
        "dtype": str(model.dtype).removeprefix("torch."),
        "activation_checkpointing": False,
        "per_device_train_batch_size": task.group * task.groups_per_step,
        "gradient_accumulation_steps": 1,
        "num_generations": task.group,
        "max_completion_length": task.new_tokens,
        "temperature": task.temperature,
        "epsilon": clip.low,
        "epsilon_high": clip.high,
        "max_grad_norm": task.clip_norm,
        "weight_decay": 0.0,
        "lr_scheduler_type": "constant",
        "token_budget": 0,
        "weight_sync_steps": 1,
        "logging_steps": 1,
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "ignore_data_skip": True,
    }
    arguments = trl_module("async_grpo_config").AsyncGRPOConfig(**{**fixed, **options})
    trainer: Trainer = trl_module("async_grpo_trainer").AsyncGRPOTrainer(
        model=str(scratch / "model"),
        args=arguments,
        # Prompts come from the worker; TRL asks for a set of data all the same.
        train_dataset=Dataset.from_dict({"prompt": [task.prompts(0, 1)[0].text]}),
        processing_class=tokenizer,
        callbacks=callbacks,
        rollout_worker=worker,
        weight_transfer=LocalTransfer(worker, lambda: _model_of(trainer)),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _model_of(trainer: Trainer) -> torch.nn.Module:
    return trainer.accelerator.unwrap_model(trainer.model)


@contextmanager
def _quiet() -> Generator[None]:
    """Without the bars and remarks of transformers, on what was chosen here and is meant so."""
    had_bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


# Folders.


def _open_log(
    folder: Path | None, run: Mapping[str, object], checkpoint: Path | None
) -> RecordLog | None:
    if folder is None:
        return None
    path = folder / RECORDS
    if checkpoint is None:
        if path.exists():
            raise FileError(
                need="a folder without a run",
                got=f"{folder}, which holds one",
                hint="resume=True goes on with it; name another folder otherwise",
            )
        log = RecordLog(path)
        log.append("rl-run", **run)
        return log
    take_back(path, _step_of(checkpoint))
    return RecordLog(path)


def _last_checkpoint(folder: Path | None, run: Mapping[str, object]) -> Path:
    """The newest that is whole: transformers write `trainer_state.json` after all that is large."""
    found = [] if folder is None else folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/trainer_state.json")
    whole = sorted((state.parent for state in found), key=_step_of)
    if folder is None or not whole:
        raise FileError(
            need="a checkpoint to go on from",
            got=f"none in {folder}",
            hint="checkpoint_every=50 writes some; begin the run without resume",
        )
    known = next(read_records(folder / RECORDS, "rl-run")).fields
    same = ("task", "seed", "staleness", "batch")
    differ = [
        f"{one} {known.get(one)} instead of {run[one]}"
        for one in same
        if known.get(one) != run[one]
    ]
    if differ:
        raise MismatchError(
            need="the checkpoint of this run",
            got=", ".join(differ),
            hint="go on with the task, seed and staleness that the run was begun with",
        )
    return whole[-1]


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _fields(
    task: Task,
    learning_rate: float | None,
    gac: Mapping[str, Any] | None,
    compensation: float | None,
) -> dict[str, object]:
    """Fields of the `rl-run` record."""
    return {
        "task": task.name,
        "engine": "trl",
        "method": _method(gac, compensation),
        "learning_rate": task.learning_rate if learning_rate is None else learning_rate,
        "batch": task.group * task.groups_per_step,
        "group": task.group,
        "compensation": compensation or 0.0,
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
    }


def _method(gac: Mapping[str, Any] | None, compensation: float | None) -> str:
    return "+".join(
        ["ppo", *(["gac"] if gac is not None else []), *(["dc"] if compensation else [])]
    )


def _check(*, steps: int, staleness: int, checkpoint_every: int | None) -> None:
    if min(steps, 1 if checkpoint_every is None else checkpoint_every) < 1:
        raise InputError(
            need="at least one step, and one between checkpoints",
            got=f"steps={steps}, checkpoint_every={checkpoint_every}",
            hint="steps=150, checkpoint_every=50",
        )
    if staleness < 1:
        raise InputError(
            need="a staleness of at least 1: TRL's loader fetches one batch ahead",
            got=f"{staleness}",
            hint="staleness=1, or another engine for synchronous training",
        )
