"""Samples for TRL's asynchronous trainer from a thread of its own process.

The thread draws with a copy of the weights as they were last sent, while the trainer trains. It
runs ahead of it by a bounded number of batches: batch n is begun when n - staleness steps are done,
so no sample is more than `staleness` steps old when it is trained on, and TRL drops none.

Which weights a batch is begun with depends on which thread is faster: runs are alike, not the same.
"""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator

from torch import Tensor, nn

from weft.core.errors import RunError
from weft.rl.advantages import group_advantages
from weft.rl.rollout import Rollout
from weft.rl.sampling import Sampler, make_sampler, roll
from weft.rl.task import Task
from weft.rl.weights import Weights, pack_weights

__all__ = ["LocalTransfer", "ThreadWorker"]

POLL_S = 0.5
"""How often who waits looks whether it should end. Chosen: far above what looking takes [s]."""

MakeSample = Callable[[Rollout, float], object]
"""What the trainer's queue is to hold of a rollout and its advantage."""


class ThreadWorker:
    """Draws answers in a thread, as TRL's trainer wants it done.

    Args:
        task: gives prompts, rewards and what draws.
        staleness: how many batches it may be ahead, at least 1.
        seed: of the run.
        make_sample: makes what the trainer's queue is to hold.
        first_batch: where a run goes on that was resumed: the batch that it begins with.

    Attributes:
        rollout_buffer: what the trainer takes samples from.
        metrics_queue: what it would take figures from; there are none.
    """

    def __init__(
        self,
        task: Task,
        *,
        staleness: int,
        seed: int,
        make_sample: MakeSample,
        first_batch: int = 0,
    ) -> None:
        self.rollout_buffer: queue.Queue[object] = queue.Queue()
        self.metrics_queue: queue.Queue[dict[str, float]] = queue.Queue()
        self._task = task
        self._staleness = staleness
        self._seed = seed
        self._make_sample = make_sample
        self._first = first_batch
        self._changed = threading.Condition()
        self._sent: Weights | None = None
        self._live: tuple[int, Weights] | None = None
        self._ended = False
        self._failure: BaseException | None = None
        self._fresh: defaultdict[int, list[float]] = defaultdict(list)  # rewards by version
        self._thread = threading.Thread(target=self._run, name="weft-rollouts", daemon=True)

    # What TRL's trainer calls.

    def start(self) -> None:
        """Begin to draw. Weights have been sent by now."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the answers that are being drawn."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def update_model_version(self, model_version: int) -> None:
        """The weights that were sent last are of this version, from 1."""
        with self._changed:
            if self._sent is not None:
                self._live = (model_version, self._sent)
            self._changed.notify_all()

    def check_health(self, stale_after_s: float) -> None:
        """Raise what the thread died of.

        Raises:
            RunError: it did.
        """
        if self._failure is not None:
            raise RunError(
                need="a thread that draws answers",
                got=f"{type(self._failure).__name__}: {self._failure}",
                hint="the task's reward, prompts or model failed; see the error above",
            ) from self._failure

    # What the transfer of weights and the records want.

    def load(self, weights: Weights) -> None:
        """Use these weights from when their version is told."""
        with self._changed:
            self._sent = weights

    def take_fresh_reward(self) -> float | None:
        """Mean reward of samples that were made since this was last asked.

        Of these, those that were begun with the newest weights. None if there are none.
        """
        with self._changed:
            found = self._fresh.pop(max(self._fresh), None) if self._fresh else None
            self._fresh.clear()
            return sum(found) / len(found) if found else None

    # The thread.

    def _run(self) -> None:
        try:
            sampler = make_sampler(self._task)
            batch = self._first
            while (begun := self._wait_for(batch)) is not None:
                self._draw(sampler, batch, *begun)
                batch += 1
        except BaseException as error:  # whatever it is, the trainer has to hear of it
            self._failure = error

    def _wait_for(self, batch: int) -> tuple[int, Weights] | None:
        """Version and weights to begin a batch with, when it may be begun; None at the end."""
        ahead = batch - self._first - self._staleness
        with self._changed:
            while not self._ended and (self._live is None or self._live[0] <= ahead):
                self._changed.wait(POLL_S)
            return None if self._ended else self._live

    def _draw(self, sampler: Sampler, batch: int, version: int, weights: Weights) -> None:
        sampler.load(weights)
        count = self._task.groups_per_step
        numbers = range(batch * count, (batch + 1) * count)
        groups = roll(self._task, sampler, numbers, version=version, seed=self._seed)
        rollouts = [rollout for group in groups for rollout in group]
        rewards = [rollout.reward for rollout in rollouts]
        advantages = group_advantages(rewards, [rollout.number for rollout in rollouts])
        with self._changed:
            self._fresh[version] += rewards
        for rollout, advantage in zip(rollouts, advantages, strict=True):
            self.rollout_buffer.put(self._make_sample(rollout, advantage))


class LocalTransfer:
    """Hands weights from the trainer to a worker of the same process.

    Args:
        worker: who gets them.
        model: gives the model that is trained, when there is one.
    """

    def __init__(self, worker: ThreadWorker, model: Callable[[], nn.Module]) -> None:
        self._worker = worker
        self._model = model

    def init_weight_transfer(self) -> None:
        """Nothing to set up."""

    def pause(self) -> None:
        """Nothing to wait for: a batch is drawn with a copy that nobody else writes to."""

    def send_weights(self, iterator: Iterator[tuple[str, Tensor]]) -> None:
        """Copy the weights; names of tied ones and buffers are in none of what is iterated."""
        for _ in iterator:
            pass
        self._worker.load(pack_weights(self._model()))

    def resume(self) -> None:
        """Nothing was held up."""

    def destroy(self) -> None:
        """Nothing was set up."""
