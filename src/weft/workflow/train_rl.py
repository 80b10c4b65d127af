"""Train a policy of a recipe on samples of a bounded age: what `weft rl train` does.

Puts together a task, a method, an engine, and a folder of records and a checkpoint. The engines are
`local` (this process), `ray` (a fleet of processes), and `trl` (TRL's trainer, on a CPU).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from weft.core.errors import InputError
from weft.core.files import write_whole
from weft.core.records import read_records
from weft.workflow.progress import Progress, silent
from weft.workflow.recipe import load_task
from weft.workflow.stopping import asked_to_stop

if TYPE_CHECKING:
    from weft.rl.corrections import Correction
    from weft.rl.engines.intake import Intake
    from weft.rl.engines.training import Fleet
    from weft.rl.learner import Method
    from weft.rl.task import Task

__all__ = ["CORRECTIONS", "ENGINES", "ORDERS", "Summary", "TrainSettings", "train_rl"]

CORRECTIONS = ("ppo", "truncated", "decoupled", "m2po", "none")
ENGINES = ("local", "ray", "trl")
ORDERS = ("fifo", "random")
DIVERGENCE = 0.03
"""Strength of the penalty beside truncated ratios, where no loss is asked for.
Source: docs/explain/stale_training.md, as is the choice of ratios that weigh nothing up."""
IDENTITY = (
    *("task", "engine", "method", "seed", "staleness", "learning_rate", "batch", "group"),
    *("compensation", "kl_penalty", "token_budget", "order"),
)
"""Fields of the record of a run that a run which goes on has to agree in: one record tells of it,
and its optimizer is the checkpoint's, whatever else is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What to train, and how.

    Attributes:
        recipe: "file.py:function".
        folder: for records and the checkpoint.
        steps: of training in all, those before a resume included.
        staleness: how many steps old samples may be; 0 for synchronous training.
        engine: one of `ENGINES`.
        seed: of all chance.
        learning_rate: of AdamW; the task's own if left out.
        correction: one of `CORRECTIONS`; if left out, "truncated", with a penalty of `DIVERGENCE`,
            or, with `trl`, the loss of that trainer, "ppo".
        gac: whether gradients that line up with those before are changed.
        compensation: strength of delay compensation; 0 for none.
        kl: strength of the penalty on divergence from the policy that made the samples; none where
            a correction is asked for and this is left out.
        token_budget: mean tokens of an answer to hold; None for no price on tokens.
        micro_batch: answers whose activations are held at once; None for all of a step.
        workers: processes that make samples, with `ray`.
        address: of a Ray cluster; None to start Ray here.
        order: in which samples come in, with `local`; one of `ORDERS`.
        device: where the policy is trained, and, with `ray`, sampled from.
        checkpoint_every: steps between checkpoints.
        tensorboard: whether TensorBoard can watch, in the folder's `tensorboard`.
        resume: whether to go on from the folder's checkpoint.

    Raises:
        InputError: a setting that is unknown or out of range.
    """

    recipe: str
    folder: Path
    steps: int = 150
    staleness: int = 0
    engine: str = "local"
    seed: int = 0
    learning_rate: float | None = None
    correction: str | None = None
    gac: bool = False
    compensation: float = 0.0
    kl: float | None = None
    token_budget: float | None = None
    micro_batch: int | None = None
    workers: int = 1
    address: str | None = None
    order: Literal["fifo", "random"] = "fifo"
    device: str = "cpu"
    checkpoint_every: int = 50
    tensorboard: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("engine", self.engine, ENGINES),
            ("correction", self.loss, CORRECTIONS),
            ("order", self.order, ORDERS),
        ):
            if value not in known:
                raise InputError(
                    need=f"{name}: {', '.join(known)}", got=repr(value), hint=f"--{name} {known[0]}"
                )
        least = min(self.steps, self.workers, self.checkpoint_every)
        if least < 1 or self.staleness < 0 or self.seed < 0:
            raise InputError(
                need="at least one step, worker, and step between checkpoints, a staleness and a"
                " seed of at least 0",
                got=f"steps={self.steps}, workers={self.workers},"
                f" checkpoint_every={self.checkpoint_every}, staleness={self.staleness},"
                f" seed={self.seed}",
                hint="--steps 150 --staleness 8",
            )
        if self.staleness >= self.steps:
            raise InputError(
                need="more steps than samples may be old",
                got=f"{self.steps} steps and a staleness of {self.staleness}",
                hint="no sample could get that old: a lower --staleness, or more --steps",
            )
        used = {
            "--workers": self.workers == 1 or self.engine == "ray",
            "--address": self.address is None or self.engine == "ray",
            "--order": self.order == "fifo" or self.engine == "local",
        }
        if strange := [name for name, fits in used.items() if not fits]:
            raise InputError(
                need=f"settings that the engine {self.engine} has",
                got=", ".join(strange),
                hint="workers and address are of --engine ray, order is of --engine local",
            )

    @property
    def loss(self) -> str:
        """The correction that is used."""
        if self.correction is not None:
            return self.correction
        return "ppo" if self.engine == "trl" else "truncated"

    @property
    def divergence(self) -> float:
        """The strength of the penalty that is used."""
        is_asked = self.correction is not None or self.engine == "trl"
        return (0.0 if is_asked else DIVERGENCE) if self.kl is None else self.kl

    @property
    def method(self) -> str:
        """The method in a word, for records: "ppo+gac"."""
        parts = {
            "gac": self.gac,
            "dc": self.compensation > 0.0,
            "kl": self.divergence > 0.0,
            "budget": self.token_budget is not None,
        }
        return "+".join((self.loss, *(name for name, used in parts.items() if used)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run came to.

    Attributes:
        steps: taken in all.
        reward: mean over the last sixth of the steps taken now; None if there were none.
        mean_reward: over all of them.
        samples_per_s: trained on, over the time from the first step asked for to the last done.
        lags: samples by lag.
        cosine: mean of raw gradients with their references; None where it was not measured.
        stopped: the signal that ended it early, if one did.
        folder: where records and the checkpoint are.
    """

    steps: int
    reward: float | None
    mean_reward: float | None
    samples_per_s: float | None
    lags: Mapping[int, int]
    cosine: float | None
    stopped: int | None
    folder: Path

    def to_plain(self) -> dict[str, object]:
        """Plain JSON values."""
        return {
            "steps": self.steps,
            "reward": self.reward,
            "mean_reward": self.mean_reward,
            "samples_per_s": self.samples_per_s,
            "lags": {str(lag): count for lag, count in self.lags.items()},
            "cosine": self.cosine,
            "stopped": self.stopped,
            "folder": str(self.folder),
        }


def train_rl(
    settings: TrainSettings,
    *,
    about: Mapping[str, object] | None = None,
    progress: Progress = silent,
    on_step: Callable[[Mapping[str, object]], None] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Summary:
    """Train, until all steps are taken or a signal asks to stop; a checkpoint is left either way.

    Args:
        settings: what to train, and how.
        about: hardware and versions, for the record of the run.
        progress: told how far it is.
        on_step: told the fields of each `rl-step` record.
        tell: told what is not as asked for: a run to go on with that left no checkpoint.

    Raises:
        FileError: a recipe, folder, checkpoint or package that cannot be used.
        InputError: a setting that the engine or the task does not take.
        MismatchError: a checkpoint of another run.
        RunError: a step that cannot be taken, or a fleet that cannot go on.
    """
    from weft.rl.engines.folder import alone_in

    progress("load the recipe", None)
    task = load_task(settings.recipe)
    progress("load the recipe", 1.0)
    fields = {**_run_fields(settings, task), **(about or {})}
    done: list[Mapping[str, object]] = []

    def note(step: Mapping[str, object]) -> None:
        done.append(step)
        number = _number(step, "step")
        detail = f"{number:.0f} of {settings.steps}, reward {_number(step, 'reward'):.3f}"
        progress("train", number / settings.steps, detail)
        if on_step is not None:
            on_step(step)

    with alone_in(settings.folder):
        if settings.engine == "trl":
            _run_trl(settings, task, about or {}, note)
            return _finished(settings, fields, done, settings.steps, None)
        with asked_to_stop() as asked:
            steps = _run(settings, task, fields, note, tell, lambda: asked[0] is not None)
        return _finished(settings, fields, done, steps, asked[0])


def _finished(
    settings: TrainSettings,
    fields: Mapping[str, object],
    done: Sequence[Mapping[str, object]],
    steps: int,
    stopped: int | None,
) -> Summary:
    from weft.rl.engines.folder import RECORDS

    records = read_records(settings.folder / RECORDS, "rl-step")
    summary = _summary(settings, [record.fields for record in records], done, steps, stopped)
    path = settings.folder / "summary.json"
    if done or not path.exists():  # where nothing was left to do, it tells of what was done
        plain = {**fields, **summary.to_plain()}
        write_whole(path, json.dumps(plain, indent=2) + "\n", "a summary")
    return summary


def _run_trl(
    settings: TrainSettings,
    task: Task,
    about: Mapping[str, object],
    note: Callable[[Mapping[str, object]], None],
) -> None:
    """TRL has a loss, processes and an end of its own; what it does not take is refused."""
    strange = {
        "--correction": settings.loss != "ppo",
        "--kl": settings.divergence > 0.0,
        "--token-budget": settings.token_budget is not None,
        "--micro-batch": settings.micro_batch is not None,
        "--device": settings.device != "cpu",
        "--tensorboard": settings.tensorboard,
    }
    if found := [name for name, is_used in strange.items() if is_used]:
        raise InputError(
            need="what TRL's trainer takes",
            got=", ".join(found),
            hint="leave it out, or --engine local or ray",
        )
    from weft.rl.trl import train

    train(
        task,
        steps=settings.steps,
        staleness=settings.staleness,
        learning_rate=settings.learning_rate,
        gac={} if settings.gac else None,
        compensation=settings.compensation or None,
        seed=settings.seed,
        folder=settings.folder,
        checkpoint_every=settings.checkpoint_every,
        resume=settings.resume,
        about={**about, "recipe": settings.recipe},
        on_step=note,
    )


def _run(
    settings: TrainSettings,
    task: Task,
    fields: Mapping[str, object],
    note: Callable[[Mapping[str, object]], None],
    tell: Callable[[str], None],
    stopping: Callable[[], bool],
) -> int:
    """Steps taken in all."""
    from weft.rl.buffer import SampleBuffer
    from weft.rl.engines.intake import Intake, whole_share
    from weft.rl.engines.training import Training
    from weft.rl.learner import Learner
    from weft.rl.sampling import usable_device
    from weft.rl.token_budget import TokenBudget

    device = usable_device(settings.device)
    batch = task.group * task.groups_per_step
    parts = settings.workers
    if settings.engine == "local":
        parts = 4 if settings.order == "random" else 1  # four parts make batches of mixed ages
    intake = Intake(
        SampleBuffer((settings.staleness + 1) * batch, settings.staleness, batch=batch),
        group=task.group,
        job=whole_share(task.groups_per_step, parts),
    )
    budget = None if settings.token_budget is None else TokenBudget(settings.token_budget)
    learner = Learner(
        task,
        _method(settings),
        max_lag=settings.staleness,
        budget=budget,
        device=device,
    )
    with ExitStack() as stack:
        sink = None
        if settings.tensorboard:
            from weft.rl.tensorboard import TensorBoardEvents

            sink = TensorBoardEvents(settings.folder / "tensorboard")
            stack.callback(sink.close)
        fleet = _fleet(settings, task, intake)
        stack.callback(fleet.close)
        training = Training(
            learner,
            intake,
            fleet,
            identity={name: fields[name] for name in IDENTITY},
            folder=settings.folder,
            about=fields,
            sink=sink,
            checkpoint_every=settings.checkpoint_every,
        )
        if not settings.resume:
            training.begin()
        elif not training.resume():
            tell(f"no checkpoint in {settings.folder} yet: the run begins anew")
        training.run(settings.steps, on_step=lambda told: note(told.to_plain()), stopping=stopping)
    return learner.version


def _fleet(settings: TrainSettings, task: Task, intake: Intake) -> Fleet:
    if settings.engine == "local":
        from weft.rl.engines.local import LocalFleet

        return LocalFleet(intake, task, seed=settings.seed, order=settings.order)
    from weft.rl.engines.ray_fleet import RayFleet

    on_gpu = settings.device != "cpu"
    return RayFleet(
        intake,
        partial(load_task, str(Path(settings.recipe).absolute())),
        workers=settings.workers,
        seed=settings.seed,
        address=settings.address,
        options={"num_gpus": 1} if on_gpu else None,
        device=settings.device,
    )


def _method(settings: TrainSettings) -> Method:
    from weft.rl.learner import Method

    return Method(
        correction=_correction(settings),
        gac=settings.gac,
        compensation=settings.compensation,
        learning_rate=settings.learning_rate,
        micro_batch=settings.micro_batch,
    )


def _correction(settings: TrainSettings) -> Correction:
    from weft.rl.corrections import M2PO, Decoupled, PPOClip, Truncated
    from weft.rl.penalty import KLPenalty
    from weft.rl.policy_gradient import PolicyGradient

    made: dict[str, Callable[[], Correction]] = {
        "ppo": PPOClip,
        "truncated": partial(Truncated, cap=1.0),
        "decoupled": Decoupled,
        "m2po": M2PO,
        "none": PolicyGradient,
    }
    correction, strength = made[settings.loss](), settings.divergence
    if not strength:
        return correction
    return KLPenalty(strength=strength, inside=correction, estimator="k2")


def _run_fields(settings: TrainSettings, task: Task) -> dict[str, object]:
    rate = task.learning_rate if settings.learning_rate is None else settings.learning_rate
    return {
        "task": task.name,
        "recipe": settings.recipe,
        "engine": settings.engine,
        "method": settings.method,
        "seed": settings.seed,
        "staleness": settings.staleness,
        "learning_rate": rate,
        "batch": task.group * task.groups_per_step,
        "group": task.group,
        "compensation": settings.compensation,
        "kl_penalty": settings.divergence,
        "token_budget": settings.token_budget,
        "workers": settings.workers if settings.engine == "ray" else None,
        "order": settings.order if settings.engine == "local" else None,
        "device": settings.device,
    }


def _summary(
    settings: TrainSettings,
    whole: Sequence[Mapping[str, object]],
    done: Sequence[Mapping[str, object]],
    steps: int,
    stopped: int | None,
) -> Summary:
    """Of the whole run, but for its speed, which is of what was done now."""
    lags: Counter[int] = Counter()
    for step in whole:
        found = step["lags"]
        assert isinstance(found, Mapping), "samples by lag"
        lags.update({int(str(lag)): int(str(count)) for lag, count in found.items()})
    rewards = [_number(step, "reward") for step in whole]
    took = 0.0
    if done:  # seconds count from the beginning of the run, also before a resume
        first = _number(done[0], "waited_s") + _number(done[0], "learnt_s")
        took = _number(done[-1], "seconds") - _number(done[0], "seconds") + first
    cosines = [_number(step, "cosine_raw") for step in whole if step["cosine_raw"] is not None]
    return Summary(
        steps=steps,
        reward=_mean(rewards[-max(1, len(rewards) // 6) :]),
        mean_reward=_mean(rewards),
        samples_per_s=sum(_number(step, "samples") for step in done) / took if took else None,
        lags=dict(sorted(lags.items())),
        cosine=_mean(cosines),
        stopped=stopped if steps < settings.steps else None,
        folder=settings.folder,
    )


def _number(step: Mapping[str, object], name: str) -> float:
    """A field of a step; 0 where it is not known."""
    return float(str(step.get(name) or 0.0))


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
