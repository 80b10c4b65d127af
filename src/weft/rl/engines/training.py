"""The loop of asynchronous training: samples in, steps, records, checkpoints.

    training = Training(learner, intake, fleet, identity={...}, folder=Path("runs/a"))
    training.run(150)

A step takes the oldest samples of one batch, learns from them, and publishes the weights. Whether
samples are new or old, made here or elsewhere, is the fleet's affair; what may be begun, the
buffer's. A checkpoint holds learner, samples and prompts as they are between two steps: what was
under way is begun again by whoever goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Protocol

from weft.core.errors import FileError, MismatchError
from weft.core.records import Record, RecordLog, read_records
from weft.rl.buffer import Ticket
from weft.rl.engines.checkpoint import load_checkpoint, save_checkpoint
from weft.rl.engines.folder import RECORDS, take_back
from weft.rl.engines.intake import Intake
from weft.rl.learner import Learner
from weft.rl.rollout import Rollout
from weft.rl.step_told import StepTold
from weft.rl.weights import Weights

__all__ = ["Fleet", "Sink", "Training"]

CHECKPOINT = "checkpoint.pt"


class Fleet(Protocol):
    """Makes samples with the weights that were published last."""

    @property
    def patience_s(self) -> float:
        """How long the trainer waits for samples before it calls `work` again [s]."""
        ...

    def publish(self, version: int, weights: Weights) -> None:
        """Use these weights for what is begun from now on."""
        ...

    def work(self) -> bool:
        """Do a piece of what is to be done in the trainer's process.

        Returns:
            Whether there is more to be done before samples are taken.

        Raises:
            WeftError: what went wrong elsewhere.
        """
        ...

    def close(self) -> None:
        """End it, and give up what is under way."""
        ...


class Sink(Protocol):
    """Shows records while a run goes on."""

    def write(self, record: Record) -> None:
        """Show one."""
        ...


class Training:
    """A run.

    Args:
        learner: what is trained.
        intake: where samples come from.
        fleet: who makes them.
        identity: plain values that a checkpoint has to agree in to be gone on from.
        folder: where records and the checkpoint are written; None for nowhere.
        about: fields of the `rl-run` record.
        sink: told of each record after it is written, such as `TensorBoardEvents`.
        checkpoint_every: steps between checkpoints. There is one at the end in any case.
    """

    def __init__(
        self,
        learner: Learner,
        intake: Intake,
        fleet: Fleet,
        *,
        identity: Mapping[str, object],
        folder: Path | None = None,
        about: Mapping[str, object] | None = None,
        sink: Sink | None = None,
        checkpoint_every: int = 50,
    ) -> None:
        self._learner = learner
        self._intake = intake
        self._fleet = fleet
        self._identity = dict(identity)
        self._folder = folder
        self._about = dict(about or {})
        self._sink = sink
        self._every = checkpoint_every
        self._before_s = 0.0
        self._log: RecordLog | None = None

    def begin(self) -> None:
        """Begin records in a folder that has none yet.

        Raises:
            FileError: it holds a run already, or cannot be written to.
        """
        if self._folder is None:
            return
        if (self._folder / RECORDS).exists() or (self._folder / CHECKPOINT).exists():
            raise FileError(
                need="a folder without a run",
                got=f"{self._folder}, which holds one",
                hint="--resume goes on with it; -o names another folder",
            )
        self._log = RecordLog(self._folder / RECORDS)
        self._record("rl-run", self._about)

    def resume(self) -> bool:
        """Go on from the checkpoint; records of steps after it are taken back.

        Returns:
            Whether there was one; the run is begun anew where a kill came before the first.

        Raises:
            FileError: there is no folder, or what is in it is damaged.
            MismatchError: it is of another run, or there is none and records are.
        """
        if self._folder is None:
            raise FileError(
                need="the folder of the run", got="none", hint="name it with -o beside --resume"
            )
        if not (self._folder / CHECKPOINT).exists():
            self._forget(self._folder / RECORDS)
            self.begin()
            return False
        state = load_checkpoint(self._folder / CHECKPOINT)
        self._check_same(state["identity"], "the checkpoint of this run")
        self._learner.load_state_dict(state["learner"])
        self._intake.load_state_dict(state["intake"])
        self._before_s = float(state["seconds"])
        records = self._folder / RECORDS
        if records.exists():
            take_back(records, self._learner.version)
        self._log = RecordLog(records)
        return True

    def run(
        self,
        steps: int,
        *,
        on_step: Callable[[StepTold], None] | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Train until `steps` steps were taken in all, or until `stopping` says so.

        Args:
            steps: in all, those before a resume included.
            on_step: told of each.
            stopping: asked between steps, and while there is nothing to train on.

        Returns:
            Whether all steps were taken.

        Raises:
            RunError: the fleet cannot go on, after a checkpoint of what was reached; or a step
                cannot be taken.
        """
        began = time.monotonic()
        self._fleet.publish(self._learner.version, self._learner.weights())
        while self._learner.version < steps:
            asked = time.monotonic()
            try:
                ticket = self._take(stopping)
            except Exception:
                if self._learner.is_well():  # else the checkpoint before is worth more
                    self._save(began)
                raise
            if ticket is None:
                break
            taken = time.monotonic()
            told = self._learner.update(ticket.values)
            self._intake.buffer.done(ticket, version=self._learner.version)
            self._fleet.publish(self._learner.version, self._learner.weights())
            now = time.monotonic()
            told = replace(
                told,
                fresh_reward=self._intake.fresh_reward(),
                seconds=self._before_s + now - began,
                waited_s=taken - asked,
                learnt_s=now - taken,
            )
            self._record("rl-step", told.to_plain())
            if on_step is not None:
                on_step(told)
            if self._learner.version % self._every == 0 and self._learner.version < steps:
                self._save(began)
        self._save(began)
        return self._learner.version >= steps

    def _forget(self, records: Path) -> None:
        """Delete what a run has left that was killed before its first checkpoint; nothing else."""
        if not records.exists():
            return
        need = f"records of this run, which has no {CHECKPOINT} yet, in {records}"
        for first in islice(read_records(records), 1):
            if first.kind != "rl-run":
                raise MismatchError(
                    need=need,
                    got=f"records of another kind: {first.kind}",
                    hint="begin the run in another folder with -o",
                )
            known = {name: first.fields[name] for name in self._identity if name in first.fields}
            self._check_same({**self._identity, **known}, need)
        records.unlink()

    def _check_same(self, found: Mapping[str, object], need: str) -> None:
        differ = [
            f"{name} {found.get(name)} instead of {self._identity.get(name)}"
            for name in sorted(self._identity.keys() | found.keys())
            if found.get(name) != self._identity.get(name)
        ]
        if differ:
            raise MismatchError(
                need=need,
                got=", ".join(differ),
                hint="go on with what the run was begun with, or begin another with -o",
            )

    def _record(self, kind: str, fields: Mapping[str, object]) -> None:
        if self._log is None:
            return
        record = self._log.append(kind, **fields)
        if self._sink is not None:
            self._sink.write(record)

    def _take(self, stopping: Callable[[], bool]) -> Ticket[Rollout] | None:
        buffer = self._intake.buffer
        while not stopping():
            if self._fleet.work():
                continue
            ticket = buffer.take(buffer.batch, timeout=self._fleet.patience_s)
            if ticket is not None:
                return ticket
        return None

    def _save(self, began: float) -> None:
        if self._folder is None:
            return
        save_checkpoint(
            self._folder / CHECKPOINT,
            {
                "identity": self._identity,
                "learner": self._learner.state_dict(),
                "intake": self._intake.state_dict(),
                "seconds": self._before_s + time.monotonic() - began,
            },
        )
