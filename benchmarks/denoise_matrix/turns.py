"""Two runs on one denoiser that take turns, step by step.

A second pipeline of the same kind is given the first one's denoisers. Each runs in a thread of its
own, and behind each step one waits until the other has made one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from benchmarks.denoise_matrix.pipelines import DENOISERS, Built, Kind
from benchmarks.denoise_matrix.policies import Case
from weft.diffusion import accelerate, report, restore, session

__all__ = ["Turns", "interleaved_differ"]

WAIT_S = 120.0
"""That a run waits for the other's step, which takes some milliseconds, before it gives up."""


class Turns:
    """Whose turn it is, of some runs that are told apart by their numbers."""

    def __init__(self, count: int) -> None:
        self._order = deque(range(count))
        self._changed = threading.Condition()
        self.taken: list[int] = []

    def wait(self, who: int) -> None:
        """Until it is a run's turn.

        Raises:
            TimeoutError: the other does not come to the end of its own.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._order[0] == who, timeout=WAIT_S):
                raise TimeoutError(f"run {who} waited for {WAIT_S:g} s")
            self.taken.append(who)

    def pass_on(self) -> None:
        """The next one's turn."""
        with self._changed:
            self._order.rotate(-1)
            self._changed.notify_all()

    def leave(self, who: int) -> None:
        """A run has come to its end, or broken off."""
        with self._changed:
            self._order.remove(who)
            self._changed.notify_all()


def interleaved_differ(kind: Kind, built: Built, case: Case, steps: int) -> int:
    """How many of two interleaved runs differ from separate ones, in a bit or in their plan.

    Args:
        kind, built: the pipeline.
        case: the policy.
        steps: of a run.
    """
    other = kind.build(steps)
    for name in DENOISERS:
        if getattr(built.pipe, name, None) is not None:
            setattr(other.pipe, name, getattr(built.pipe, name))
    accelerate(built.pipe, policy=case.policy, sketch_to=case.small)
    try:
        with report(built.pipe) as found:
            alone = [built(seed=seed) for seed in range(2)]
        plans = [run.plan for run in found.runs]
        with report(built.pipe) as found:
            together, turns = _in_turns((built, other))
    finally:
        restore(built.pipe)
    assert turns == [step % 2 for step in range(len(turns))], "the runs took turns"
    # Both end in order, since the second takes its last turn when the first has left.
    return sum(
        not torch.equal(own, wanted) or run.plan != plan
        for own, wanted, run, plan in zip(together, alone, found.runs, plans, strict=True)
    )


def _in_turns(pipelines: Sequence[Built]) -> tuple[list[Tensor], list[int]]:
    """What the runs make, and whose turns there were."""
    turns = Turns(len(pipelines))

    def run(who: int) -> Tensor:
        def over(*_: object) -> dict[str, object]:
            turns.pass_on()
            turns.wait(who)
            return {}

        own = pipelines[who]
        try:
            turns.wait(who)
            with session(own.pipe, f"run {who}"):
                return own(seed=who, callback_on_step_end=over)
        finally:
            turns.leave(who)

    with ThreadPoolExecutor(len(pipelines)) as pool:
        made = [pool.submit(run, who) for who in range(len(pipelines))]
        return [own.result() for own in made], turns.taken
