"""GAC in trainers of transformers and TRL.

    trainer = AsyncGRPOTrainer(..., callbacks=[weft.rl.GACCallback()])

A callback that changed gradients before a step could not leave the step out, and what it keeps
would be in no checkpoint. This one puts GAC around the optimizer when the trainer makes it, before
accelerate prepares it and before a checkpoint is loaded. From then on GAC is the trainer's
optimizer: clipping, accumulation, schedules, scalers, sharding and checkpoints treat it as one.

What it did is in the trainer's own logs, of all that report them: means since the last line of
cosines, norms and staleness, and how many steps ended in each regime so far.

Transformers does not tell callbacks which trainer calls, and asks its reporters before them. So the
trainer is looked up on the stack at the end of its constructor; `attach` is told it instead, for
callbacks that come later.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from weft.core.errors import InputError, MismatchError
from weft.rl.compensation import DelayCompensation
from weft.rl.gac import GAC, Alignment
from weft.rl.trl.layout import Origins, is_asynchronous
from weft.rl.versions import Versions

__all__ = ["GACCallback"]


Form = Literal["normalised", "raw"]


class GACCallback(TrainerCallback):
    """Puts GAC around the optimizer of a trainer, and tells what it did.

    Works in `transformers.Trainer` and what is derived from it. In TRL's `AsyncGRPOTrainer` the age
    of the samples of each step is found and told to GAC; elsewhere `gac.staleness` is whoever's
    who knows it, and gradients are changed in every step.

    Args:
        compensation: strength of `DelayCompensation` inside of GAC; None for none. Ages have to be
            known. Measured: on a small task, both together did worse than compensation alone, for
            which `measure_only` is there.
        form: of the compensation, "normalised" or "raw".
        measure_only: True to change no gradients by alignment, and only measure.
        ages: False not to look for the ages of samples, with a TRL whose layout is not known.
        options: those of `weft.rl.GAC`: `cosine_low`, `cosine_high`, `mode`, `reference`, `per`,
            `thresholds`, `group`, `copies`, `synchronise`.

    Attributes:
        gac: the optimizer around the trainer's; None before the trainer has made one.
        compensation: the one inside of it, if there is one.
        lags: how many samples of the last step were how many steps old, of all processes; None
            where that is not known.

    Raises:
        InputError: an option that GAC does not take.

    Example:
        >>> GACCallback(cosine_low=0.1, mode="cap").gac is None
        True
    """

    def __init__(
        self,
        *,
        compensation: float | None = None,
        form: Form = "normalised",
        measure_only: bool = False,
        ages: bool = True,
        **options: Any,
    ) -> None:
        _try_out(options, compensation, form)
        self.gac: GAC | None = None
        self.compensation: DelayCompensation | None = None
        self.lags: dict[int, int] | None = None
        self._strength = compensation
        self._form: Form = form
        self._measure_only = measure_only
        self._ages = ages
        self._options = options
        self._trainer: Trainer | None = None
        self._origins: Origins | None = None
        self._taken: dict[int, int] = {}  # steps of the compensation after those of the trainer
        self._seen: list[tuple[Alignment, float | None]] = []
        self._noted = 0

    # Finding the trainer, and its optimizer.

    def attach(self, trainer: Trainer) -> Self:
        """Belong to a trainer: done by itself where the trainer's constructor gets the callback.

        Args:
            trainer: one that has not begun to train.

        Raises:
            InputError: it has begun, or it is one whose optimizer takes no steps of its own.
            MismatchError: a callback of another trainer, or a TRL whose layout is not known.
        """
        if self._trainer is trainer:
            return self
        if self._trainer is not None:
            raise MismatchError(
                need="a callback for each trainer",
                got="one that belongs to another trainer already",
                hint="callbacks=[weft.rl.GACCallback()] in each",
            )
        _check_trainer(trainer, self._options)
        if self._ages and is_asynchronous(trainer):
            self._origins = Origins(trainer)
        elif self._strength is not None:
            raise InputError(
                need="a trainer that knows how old its samples are, for delay compensation",
                got=type(trainer).__name__,
                hint="TRL's AsyncGRPOTrainer, or weft.rl.DelayCompensation by hand",
            )
        self._trainer = trainer
        make = trainer.create_optimizer

        def create_optimizer(*args: Any, **kwargs: Any) -> torch.optim.Optimizer:
            made = self._wrap(make(*args, **kwargs))
            trainer.optimizer = made
            return made

        trainer.create_optimizer = create_optimizer
        # First of all, so that what is added to logs reaches those who report them. Not in place:
        # the list may be just being gone through.
        handler = trainer.callback_handler
        handler.callbacks = [self, *(other for other in handler.callbacks if other is not self)]
        return self

    def _wrap(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        if self.gac is not None and _is_within(self.gac, optimizer):
            return optimizer
        if self._strength is not None and self._origins is not None:
            versions = Versions(keep=self._origins.longest + 1)
            self.compensation = DelayCompensation(
                optimizer, versions, strength=self._strength, form=self._form
            )
            optimizer = self.compensation
        self.gac = GAC(optimizer, **self._options)
        return self.gac

    # What the trainer calls.

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The trainer is made."""
        self.attach(_calling_trainer())

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Training begins, with an optimizer that is prepared and a checkpoint that is loaded."""
        optimizer = None if self._trainer is None else self._trainer.optimizer
        if self.gac is None or not _is_within(self.gac, optimizer):
            raise InputError(
                need="a trainer that made its optimizer with GAC around it",
                got="one that was not attached to, or whose optimizer was replaced",
                hint="give the callback to the trainer's constructor, or call"
                " weft.rl.GACCallback().attach(trainer) before train()",
            )
        self._seen, self._noted = [], self.gac.own_state()["steps"]
        if self._origins is not None:
            self._origins.begin(state.global_step)
        self._note_version(state.global_step)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Gradients are there, and clipped."""
        if self.gac is None:
            return
        if self._origins is not None:
            self.lags = self._origins.lags(state.global_step)
            self.gac.staleness = _mean(self.lags)
            if self.compensation is not None:
                self.compensation.staleness = self._own_lags(self.lags, state.global_step)
        if self._measure_only:
            self.gac.staleness = 0.0

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The optimizer has taken its step, or left it out."""
        if self.gac is not None and self.gac.synchronise:
            self._note(self.gac.last)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The step is counted."""
        self._note_version(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """A line of logs is about to be reported."""
        if self.gac is None or logs is None:
            return
        if not self.gac.synchronise:  # looked at only here: it waits for the device
            self._note(self.gac.last)
        if not self._seen:
            return
        figures = self._figures(self.gac)
        logs.update(figures)
        if state.log_history:  # a copy, made before anyone was asked
            state.log_history[-1].update(figures)
        self._seen = []

    @property
    def last(self) -> Alignment | None:
        """What GAC did in the last step; None before the first."""
        return None if self.gac is None else self.gac.last

    # Figures.

    def _note(self, last: Alignment | None) -> None:
        # A scaler that met an infinite gradient took no step, and there is nothing to note.
        if last is None or last.step == self._noted:
            return
        self._noted = last.step
        known = self.gac.staleness if self.gac is not None else None
        self._seen.append((last, _mean(self.lags) if self.lags is not None else known))

    def _figures(self, gac: GAC) -> dict[str, float]:
        columns = {
            "cosine_raw": [one.cosine_raw for one, _ in self._seen],
            "cosine_applied": [one.cosine_applied for one, _ in self._seen],
            "norm_raw": [one.norm_raw for one, _ in self._seen],
            "norm_applied": [one.norm_applied for one, _ in self._seen],
            "staleness": [age for _, age in self._seen if age is not None],
        }
        found: dict[str, float] = {}
        for name, values in columns.items():
            # The cosine of a gradient that is not finite is none.
            if finite := [value for value in values if math.isfinite(value)]:
                found[f"gac/{name}"] = sum(finite) / len(finite)
        for regime, count in gac.counts.items():
            found[f"gac/steps_{regime.name.lower()}"] = count
        return found

    # Ages in steps that the compensation took: those that were left out moved no weights.

    def _note_version(self, step: int) -> None:
        if self.compensation is not None:
            self._taken[step] = self.compensation.version
            keep = self.compensation.versions.keep
            for old in [known for known in self._taken if known <= step - keep]:
                del self._taken[old]

    def _own_lags(self, lags: Mapping[int, int], step: int) -> dict[int, float]:
        found: dict[int, float] = {}
        for lag, count in lags.items():
            then = self._taken.get(step - lag)
            own = lag if then is None else self._taken[step] - then
            found[own] = found.get(own, 0.0) + count
        return found


def _try_out(options: Mapping[str, Any], strength: float | None, form: Form) -> None:
    """Make GAC around something small, so that a wrong option is refused where it is written."""
    small = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    try:
        GAC(small, **options)
    except TypeError as error:
        raise InputError(
            need="options that weft.rl.GAC takes",
            got=str(error).partition(") ")[2] or str(error),
            hint="weft.rl.GACCallback(cosine_low=0.0, mode='orthogonal')",
        ) from error
    if strength is not None:
        DelayCompensation(small, Versions(keep=1), strength=strength, form=form)


def _check_trainer(trainer: Trainer, options: Mapping[str, Any]) -> None:
    trouble = None
    if getattr(trainer, "is_deepspeed_enabled", False):
        trouble = "DeepSpeed, whose engine takes the steps", "FSDP2 (fsdp_version: 2), or DDP"
    elif "lomo" in str(trainer.args.optim) or "layerwise" in str(trainer.args.optim):
        trouble = f"optim={trainer.args.optim}, which takes its steps in backward", "optim='adamw'"
    elif _is_fsdp1(trainer) and not {"group", "copies"} <= options.keys():
        trouble = (
            "FSDP1, whose parts of parameters do not say what they are parts of",
            "FSDP2 (fsdp_version: 2), or group= and copies=",
        )
    elif trainer.optimizer is not None and hasattr(trainer.optimizer, "accelerator_state"):
        trouble = "one that was prepared for training already", "attach before train()"
    if trouble is not None:
        raise InputError(
            need="a trainer whose optimizer GAC can be put around",
            got=trouble[0],
            hint=trouble[1],
        )


def _is_fsdp1(trainer: Trainer) -> bool:
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    return bool(trainer.is_fsdp_enabled) and getattr(plugin, "fsdp_version", 1) == 1


def _is_within(gac: GAC, optimizer: object) -> bool:
    """Whether an optimizer is GAC, or holds it as accelerate's wrapper does."""
    inner: object = optimizer
    while inner is not None and inner is not gac:
        inner = getattr(inner, "optimizer", None)
    return inner is gac


def _calling_trainer() -> Trainer:
    """The trainer that is calling a callback: the nearest on the stack."""
    frame = inspect.currentframe()
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, Trainer):
            return found
        frame = frame.f_back
    raise MismatchError(
        need="a transformers whose trainer calls its callbacks itself",
        got="no trainer among the callers",
        hint="weft.rl.GACCallback().attach(trainer)",
    )


def _mean(lags: Mapping[int, int]) -> float:
    return sum(lag * count for lag, count in lags.items()) / max(1, sum(lags.values()))
