"""What weft knows of the inside of TRL, all in one place.

Checked with the versions in `CHECKED`. Another version is taken as long as it has the same parts;
where one is missing, `MismatchError` names it. Nothing here is imported from TRL before it is
needed: the trainer of transformers works without it.

How old samples are. A sample has the version of the weights that it was begun with when TRL's
queue hands it out, and loses it there. `Origins` keeps it on the sample's metrics, which stay with
it, and puts it into the batch when TRL's collator makes that, as the number of steps that had been
taken when those weights were published. So it reaches all processes, and the batch that is trained
on, however many were fetched ahead.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from weft.core.errors import InputError, MismatchError
from weft.rl.rollout import Rollout

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["CHECKED", "Origins", "is_asynchronous", "part_of", "require", "sample_of", "trl_module"]

CHECKED = ("1.16.0",)
"""Versions of TRL that the tests ran with."""

AGES_KEY = "weft_origins"
"""Under which a batch holds the steps after which the weights of its samples were published."""

FETCHED_AHEAD = 1
"""Steps from a batch's check by TRL to its training. Derived: accelerate's loaders make one batch
more than was asked for, to learn whether there is another."""


def require(*names: str) -> None:
    """Refuse to go on without packages of the extra `rl`.

    Raises:
        InputError: one is not installed.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            need=f"{' and '.join(names)}, of the extra 'rl'",
            got=f"no {' and no '.join(missing)}",
            hint="pip install 'weft[rl]'",
        )


def trl_module(name: str) -> ModuleType:
    """A module of TRL's asynchronous trainer, without the notice that it is experimental.

    Raises:
        InputError: TRL is not installed, or what it needs for that trainer is not.
        MismatchError: this TRL has no such module.
    """
    require("trl", "datasets", "aiohttp", "requests")
    full = f"trl.experimental.async_grpo.{name}"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are importing from 'trl.experimental'")
        try:
            return importlib.import_module(full)
        except ModuleNotFoundError as error:
            raise _unknown(f"module {full}") from error


def part_of(holder: object, *names: str) -> Any:
    """What is found by following attributes, one after the other.

    Raises:
        MismatchError: there is none of that name.
    """
    found: Any = holder
    for name in names:
        if not hasattr(found, name):
            where = getattr(found, "__name__", type(found).__name__)
            raise _unknown(f"{name} in {where}")
        found = getattr(found, name)
    return found


def sample_of(rollout: Rollout, advantage: float) -> object:
    """A rollout as TRL's queue holds it."""
    asked, said = len(rollout.prompt), len(rollout.tokens)
    return part_of(trl_module("async_rollout_worker"), "RolloutSample")(
        prompt=[],  # what traces would show
        completion=[],
        input_ids=np.array(rollout.prompt + rollout.tokens),
        completion_mask=np.array([0] * asked + [1] * said),
        old_log_probs=np.array((0.0,) * asked + rollout.log_probs, dtype=np.float32),
        advantage=advantage,
        model_version=rollout.version,
        group_id=rollout.number,
        metrics={"reward": rollout.reward},
        enqueued_at=time.time(),
    )


def is_asynchronous(trainer: Trainer) -> bool:
    """Whether it is TRL's asynchronous one; TRL is not imported to find out."""
    return any(
        kind.__name__ == "AsyncGRPOTrainer" and kind.__module__.startswith("trl.")
        for kind in type(trainer).__mro__
    )


class Origins:
    """Finds out, step by step, how old the samples of the asynchronous trainer are.

    Args:
        trainer: one that has not made its loader yet.

    Attributes:
        longest: the most steps that a sample can be old when it is trained.

    Raises:
        MismatchError: a TRL whose layout is not known.
    """

    def __init__(self, trainer: Trainer) -> None:
        interval = int(part_of(trainer.args, "weight_sync_steps"))
        staleness = int(part_of(trainer.args, "max_staleness"))
        self.longest = (staleness + 1) * interval - 1 + FETCHED_AHEAD
        self._interval = interval
        self._trainer = trainer
        self._begun_at: int | None = None
        self._of_step: list[Tensor] = []
        self._make_loader = trainer.get_train_dataloader
        self._train_step = trainer.training_step
        trainer.get_train_dataloader = self._loader
        trainer.training_step = self._training_step  # pyright: ignore[reportAttributeAccessIssue]

    def lags(self, step: int) -> dict[int, int]:
        """How many samples of the batches since the last call are how many steps old.

        Args:
            step: how many steps the trainer has taken.

        Raises:
            MismatchError: the batches did not tell.
        """
        origins = [int(one) for batch in self._of_step for one in batch.tolist() if one >= 0]
        self._of_step = []
        if not origins:
            raise _unknown("the versions of samples in the batches that are trained on")
        return dict(sorted(Counter(step - origin for origin in origins).items()))

    def begin(self, step: int) -> None:
        """Training begins, or goes on, after this many steps."""
        self._begun_at = step
        self._of_step = []

    def _loader(self, *args: Any, **kwargs: Any) -> Any:
        loader = self._make_loader(*args, **kwargs)
        if self._trainer.accelerator.is_main_process:  # the others get batches from it
            source = part_of(self._trainer, "_rollout_dataset")
            source.queue = _Stamping(part_of(source, "queue"))
            collator = part_of(loader, "collate_fn")
            collate = part_of(collator, "torch_call")

            def torch_call(examples: list[Any]) -> dict[str, Any]:
                return self._put_in(collate(examples), examples)

            collator.torch_call = torch_call
        return loader

    def _put_in(self, batch: dict[str, Any], examples: list[Any]) -> dict[str, Any]:
        """Add the origins of all samples of a batch to each of its rows."""
        (rows,) = examples
        samples = [sample for row in rows for sample in part_of(row, "samples")]
        newest = int(part_of(self._trainer, "model_version"))
        origins = [self._origin(newest - _version(sample)) for sample in samples]
        batch[AGES_KEY] = torch.tensor([origins] * len(rows))
        return batch

    def _origin(self, behind: int) -> int:
        """Steps that had been taken when the weights so many versions behind were published."""
        step = self._trainer.state.global_step
        begun = step if self._begun_at is None else self._begun_at
        last = step // self._interval * self._interval
        return max(begun, last - behind * self._interval)

    def _training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if AGES_KEY not in inputs:
            raise _unknown("the versions of samples in the batches that are trained on")
        self._of_step.append(inputs.pop(AGES_KEY)[0])
        return self._train_step(model, inputs, *args, **kwargs)


class _Metrics(dict[str, float]):
    """Metrics of a sample, which TRL hands on as they are, and the version that it forgets."""

    def __init__(self, values: Mapping[str, float], version: int) -> None:
        super().__init__(values)
        self.version = version


class _Stamping:
    """A queue of samples, with the version of each written on its metrics."""

    def __init__(self, samples: Any) -> None:
        self._samples = samples

    def get(self, *args: Any, **kwargs: Any) -> Any:
        sample = self._samples.get(*args, **kwargs)
        sample.metrics = _Metrics(part_of(sample, "metrics"), part_of(sample, "model_version"))
        return sample

    def __getattr__(self, name: str) -> Any:
        return getattr(self._samples, name)


def _version(sample: Mapping[str, Any]) -> int:
    found = sample.get("metrics")
    if not isinstance(found, _Metrics):
        raise _unknown("metrics of a sample in its row, as the queue handed them out")
    return found.version


def _unknown(missing: str) -> MismatchError:
    try:
        installed = version("trl")
    except PackageNotFoundError:
        installed = "of an unknown version"
    return MismatchError(
        need=f"a TRL whose layout is known, as that of {_either(CHECKED)}",
        got=f"TRL {installed} without {missing}",
        hint=f"pip install 'trl=={CHECKED[-1]}'; GACCallback(ages=False) does without ages",
    )


def _either(names: Iterable[str]) -> str:
    return " or ".join(names)
