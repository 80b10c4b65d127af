"""A fleet of processes that make samples, on one machine or many, any of which may die.

    trainer ---- jobs (numbers of prompts), a reference to weights ----> actors
            <--- answers with log-probabilities and rewards -----------

Ray starts the processes, moves weights (each version is put once, and fetched once by each machine)
and tells of deaths. Here it is decided what is lost then: nothing. The jobs of an actor that died,
or that took longer than it may, are given up and begun anew, with the weights of that time, by
whichever actor is free; a new actor takes its place. Answers of an actor that was given up are not
let in, so no prompt is trained on twice.

One thread hands out jobs and takes answers in, so that actors never wait for a step of training to
end. It sleeps until something happens.

Ray collects no usage data from here, and starts no dashboard.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from weft.core.errors import FileError, InputError, RunError, WeftError
from weft.rl.engines.intake import Intake, Job
from weft.rl.rollout import Rollout
from weft.rl.sampling import make_sampler, roll
from weft.rl.task import Sampler, Task
from weft.rl.weights import Weights

__all__ = ["DEATHS", "JOB_LIMIT_S", "RayFleet", "RolloutActor"]

DEATHS = 8
"""Deaths without a finished job between them after which a fleet gives up.
Chosen: a machine with eight actors may go down at once."""

JOB_LIMIT_S = 1800.0
"""How long a job may take before its actor is taken for dead [s].
Chosen: longer than the longest answers of large models take."""

PROMPT_DEATHS = 3
"""Deaths over one and the same prompt after which a fleet gives up, however well others do.
Chosen: by chance, an actor that is at fault itself meets a prompt twice, hardly three times."""

_ANSWERS_S = 5.0
"""How long a cluster's address may take to answer [s]. Chosen: far more than networks take."""
_LOG = logging.getLogger("weft.rl")

Groups = tuple[tuple[Rollout, ...], ...]


class RolloutActor:
    """What runs in each process of the fleet.

    Args:
        make_task: gives the task; called once, there.
        seed: of the run.
        device: where the task's model runs.
    """

    def __init__(self, make_task: Callable[[], Task], seed: int, device: str) -> None:
        self._make_task = make_task
        self._seed = seed
        self._device = device
        self._made: tuple[Task, Sampler] | None = None
        self._version: int | None = None

    def roll(self, version: int, numbers: Sequence[int], weights: Sequence[Any]) -> Groups:
        """Answers to prompts, with weights that are fetched if they are new."""
        import ray

        if self._made is None:  # not before: what fails here arrives as it is
            task = self._make_task()
            self._made = task, make_sampler(task, device=self._device)
        task, sampler = self._made
        if version != self._version:
            sampler.load(ray.get(weights[0]))
            self._version = version
        return roll(task, sampler, numbers, version=version, seed=self._seed)

    def pid(self) -> int:
        """The process."""
        return os.getpid()


@dataclass(slots=True, kw_only=True, eq=False)
class _Worker:
    """An actor and what it was asked for: jobs, and since when [s]."""

    handle: Any
    jobs: dict[int, tuple[Job, float]] = field(default_factory=dict[int, tuple[Job, float]])


class RayFleet:
    """Actors that make samples until it is closed.

    Args:
        intake: what gives out prompts and takes answers.
        make_task: gives the task, in each process; it is pickled, and best a function of a module.
        workers: how many actors.
        seed: of the run.
        address: of a cluster that is running; None to start Ray on this machine, for as long as
            the fleet is open. Where this process is connected already, that is used, and left.
        options: what an actor needs, as `ray.remote` takes it: {"num_gpus": 1}. One CPU if empty.
        device: where actors have their model.
        job_limit_s: how long a job may take [s].
        deaths: how many deaths in a row are borne.
        prompt_deaths: how many are borne over one prompt, whatever others do in between.
        ahead: jobs that wait at each actor while it does another. More keep it busy across slow
            networks; samples get older for it.

    Raises:
        InputError: no actors, or a number out of range.
        FileError: Ray is not installed.
        RunError: Ray does not start, or knows of fewer CPUs or GPUs than actors need.
    """

    patience_s = 0.5
    """How often the trainer looks whether the fleet is well, while it waits [s]."""

    def __init__(
        self,
        intake: Intake,
        make_task: Callable[[], Task],
        *,
        workers: int,
        seed: int,
        address: str | None = None,
        options: Mapping[str, object] | None = None,
        device: str = "cpu",
        job_limit_s: float = JOB_LIMIT_S,
        deaths: int = DEATHS,
        prompt_deaths: int = PROMPT_DEATHS,
        ahead: int = 0,
    ) -> None:
        if workers < 1 or min(deaths, prompt_deaths, ahead) < 0 or not job_limit_s > 0.0:
            raise InputError(
                need="at least one actor, and limits of at least 0",
                got=f"workers={workers}, deaths={deaths}, prompt_deaths={prompt_deaths},"
                f" ahead={ahead}, job_limit_s={job_limit_s}",
                hint="workers=2",
            )
        self._intake = intake
        self._job_limit_s = job_limit_s
        self._most_deaths = deaths
        self._depth = 1 + ahead
        self._most_over_prompt = prompt_deaths
        self._deaths = 0
        self._deaths_over: Counter[int] = Counter()  # by the number of a prompt
        self._failure: BaseException | None = None
        self._weights: tuple[int, Any] | None = None
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        given: dict[str, Any] = {"num_cpus": 1, **(options or {})}
        self._owns = _start(workers, address)
        import ray

        self._ray = ray
        self._check_room(workers, given)
        actor = ray.remote(RolloutActor).options(max_restarts=0, max_task_retries=0, **given)
        self._new: Callable[[], Any] = lambda: actor.remote(make_task, seed, device)
        self._workers = [_Worker(handle=self._new()) for _ in range(workers)]
        self._thread = threading.Thread(target=self._serve, name="weft-rl-fleet", daemon=True)
        self._thread.start()

    @property
    def actors(self) -> list[Any]:
        """Handles of the actors of now."""
        return [worker.handle for worker in self._workers]

    def publish(self, version: int, weights: Weights) -> None:
        """Use these weights for what is begun from now on."""

        def adopt() -> None:  # in the fleet's thread: training does not wait for the transport
            self._weights = (version, self._ray.put(dict(weights)))

        self._events.put(adopt)

    def work(self) -> bool:
        """Raise what went wrong; there is never anything to be done here.

        Raises:
            WeftError: the task's own; or a `RunError` of something else that failed, or of too
                many deaths.
        """
        if self._failure is not None:
            raise self._failure
        return False

    def close(self) -> None:
        """End all actors, and Ray itself if it was started here."""
        self._events.put(None)
        self._thread.join()
        for worker in self._workers:
            self._drop(worker)
        self._workers = []
        self._weights = None
        if self._owns:
            self._ray.shutdown()
            self._owns = False

    def _check_room(self, workers: int, needs: Mapping[str, Any]) -> None:
        """Ray lets actors wait for what is not there, for ever and without a word."""
        there = self._ray.cluster_resources()
        for name, resource in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
            wanted, found = workers * float(needs.get(name) or 0), float(there.get(resource, 0))
            if wanted <= found:
                continue
            if self._owns:
                self._ray.shutdown()
            fitting = int(found * workers / wanted)
            raise RunError(
                need=f"{wanted:g} {resource}s for {workers} actors",
                got=f"{found:g}, all that Ray knows of",
                hint="a cluster with more" + (f", or --workers {fitting}" if fitting else ""),
            )

    # All below runs in the fleet's own thread, but for `_drop` when it has ended.

    def _serve(self) -> None:
        try:
            while True:
                self._begin()
                try:
                    event = self._events.get(timeout=1.0)
                except queue.Empty:
                    self._replace_overdue()
                    continue
                if event is None:
                    return
                event()
        except Exception as error:  # raised again where the trainer asks
            self._failure = error

    def _begin(self) -> None:
        if self._weights is None:
            return
        version, placed = self._weights
        # The idlest first, so that no actor waits while others have work ahead.
        for depth in range(self._depth):
            for worker in self._workers:
                if len(worker.jobs) != depth:
                    continue
                job = self._intake.begin(version)
                if job is None:
                    return
                worker.jobs[job.numbers[0]] = (job, time.monotonic())
                reference = worker.handle.roll.remote(version, job.numbers, [placed])
                self._listen(worker, job, reference.future())

    def _listen(self, worker: _Worker, job: Job, future: Future[Groups]) -> None:
        def note(done: Future[Groups]) -> None:  # in a thread of Ray's
            self._events.put(lambda: self._ended(worker, job, done))

        future.add_done_callback(note)

    def _ended(self, worker: _Worker, job: Job, done: Future[Groups]) -> None:
        # Its numbers may be out again already, at the same place, as another job.
        held, _ = worker.jobs.get(job.numbers[0], (None, 0.0))
        if held is not job:
            return  # given up before
        error = done.exception()
        if error is None:
            del worker.jobs[job.numbers[0]]
            self._intake.finish(job, done.result())
            self._deaths = 0
            for number in job.numbers:
                del self._deaths_over[number]
            return
        if (fault := _fault(error)) is not None:
            raise fault
        self._replace(worker, f"{type(error).__name__}: {str(error).splitlines()[0]}")

    def _replace_overdue(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            # What waits behind another job has not begun to take time.
            since = [began for _, began in list(worker.jobs.values())[:1]]
            if since and now - since[0] > self._job_limit_s:
                self._replace(worker, f"a job that took more than {self._job_limit_s:g} s")

    def _replace(self, worker: _Worker, why: str) -> None:
        self._deaths += 1
        for job, _ in list(worker.jobs.values())[:1]:  # what waits behind it has done nothing
            self._deaths_over.update(job.numbers)
        over = [n for n, count in self._deaths_over.items() if count > self._most_over_prompt]
        if self._deaths > self._most_deaths or over:
            told = f"{self._deaths} deaths in a row"
            if over:
                told = f"{self._most_over_prompt + 1} deaths over prompts {sorted(over)}"
            raise RunError(
                need="actors that live to finish a job",
                got=f"{told}, the last by {why}",
                hint="look at memory, and at what the recipe's sampler and reward do with these"
                " prompts; --resume goes on",
            )
        _LOG.warning("an actor is replaced, and its prompts are begun anew: %s", why)
        self._drop(worker)
        worker.handle = self._new()

    def _drop(self, worker: _Worker) -> None:
        for job, _ in worker.jobs.values():
            self._intake.give_up(job)
        worker.jobs = {}
        # Also one that seems dead: where only its network was, it would go on for nothing.
        self._ray.kill(worker.handle)


def _fault(error: BaseException) -> WeftError | None:
    """What is to be raised where an actor's code failed; None where its process did."""
    from ray.exceptions import RayTaskError

    if not isinstance(error, RayTaskError):
        return None
    cause = error.cause
    if isinstance(cause, WeftError):
        return cause
    return RunError(
        need="a task that works in the processes of the fleet",
        got=f"{type(cause).__name__}: {cause}",
        hint="the same recipe with --engine local shows where it fails",
    )


def _knock(address: str) -> None:
    """Refuse an address that nobody answers at: Ray itself asks for many minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if not (host and port.isdecimal()):
        return  # "auto", which Ray looks up
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWERS_S).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            need=f"a Ray cluster that answers at {address}",
            got=f"{type(error).__name__}: {error}",
            hint="ray start --head tells the address; without --address one is started here",
        ) from error


def _start(workers: int, address: str | None) -> bool:
    """Connect this process to Ray; whether Ray was started for that."""
    # Read by Ray when it is imported or started: nothing is sent to anybody.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise FileError(
            need="the package ray, for a fleet of processes",
            got=f"{type(error).__name__}: {error}",
            hint="pip install 'weft[rl]', or --engine local",
        ) from error
    if ray.is_initialized():
        return False
    if address is not None:
        _knock(address)
    on_signal = signal.getsignal(signal.SIGTERM)
    started: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(
            address="local" if address is None else address,
            logging_level=logging.ERROR,
            log_to_driver=False,
            **(started if address is None else {}),
        )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise RunError(
            need="Ray, started on this machine" if address is None else f"a cluster at {address}",
            got=f"{type(error).__name__}: {error}",
            hint="--engine local runs in one process",
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_signal)  # Ray puts its own in its place
    return True
