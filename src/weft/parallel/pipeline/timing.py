"""When each group of a pipeline works and waits, from how long stages take.

Every group does its actions in order. A forward action waits for the stage before to have done
the same micro-batch and for what it sends to arrive, a backward one for the stage behind.
Transfers run beside computation and, between one pair of neighbours, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from weft.core.errors import InputError
from weft.parallel.pipeline.schedule import Action, Work

__all__ = ["Busy", "PipelineTime", "StageTime", "pipeline_time"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """How long a stage takes for one micro-batch.

    Attributes:
        forward_s: the forward pass [s].
        inputs_s, weights_s: gradients that the stage before waits for, and the others [s].
        send_forward_s, send_backward_s: transfers to the next stage and the one before [s].
        kept_bytes: what a micro-batch keeps from its forward to its backward pass [bytes].
        waiting_bytes: what it keeps beside that while its weights' gradients wait [bytes].
    """

    forward_s: float
    inputs_s: float
    weights_s: float
    send_forward_s: float = 0.0
    send_backward_s: float = 0.0
    kept_bytes: float = 0.0
    waiting_bytes: float = 0.0

    @property
    def backward_s(self) -> float:
        """All gradients [s]."""
        return self.inputs_s + self.weights_s

    @property
    def busy_s(self) -> float:
        """Forward and backward pass [s]."""
        return self.forward_s + self.backward_s

    def seconds(self, work: Work) -> float:
        """How long an action takes [s]."""
        return {
            Work.FORWARD: self.forward_s,
            Work.BACKWARD: self.backward_s,
            Work.INPUTS: self.inputs_s,
            Work.WEIGHTS: self.weights_s,
        }[work]


@dataclass(frozen=True, slots=True)
class Busy:
    """An action from `start_s` to `end_s`."""

    action: Action
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class PipelineTime:
    """One step of a pipeline.

    Attributes:
        groups: of each group of devices what it does, in order.
        step_s: when the last action ends [s].
        kept_bytes: most bytes that a group keeps for micro-batches under way [bytes].
    """

    groups: tuple[tuple[Busy, ...], ...]
    step_s: float
    kept_bytes: tuple[float, ...]

    @property
    def bubble(self) -> float:
        """Share of the groups' time in which they wait [0 to 1]."""
        busy = sum(b.end_s - b.start_s for group in self.groups for b in group)
        whole = self.step_s * len(self.groups)
        return 1.0 - busy / whole if whole > 0 else 0.0

    def waiting(self, group: int) -> float:
        """Share of the schedule in which a group does nothing [0 to 1]."""
        busy = sum(b.end_s - b.start_s for b in self.groups[group])
        return 1.0 - busy / self.step_s if self.step_s > 0 else 0.0


def pipeline_time(orders: Sequence[Sequence[Action]], stages: Sequence[StageTime]) -> PipelineTime:
    """Run the groups' actions as early as their order and each other's results allow.

    Args:
        orders: of each group, what it does in order.
        stages: of each stage, how long it takes.

    Raises:
        InputError: the orders wait for each other for ever.

    Example:
        >>> from weft.parallel.pipeline.schedule import order
        >>> stage = StageTime(forward_s=1.0, inputs_s=1.0, weights_s=1.0)
        >>> time = pipeline_time(order("1f1b", 2, 2, 4), [stage, stage])
        >>> time.step_s, round(time.bubble, 3)
        (15.0, 0.2)
    """
    run = _Run(orders, stages)
    while run.advance():
        pass
    return run.result()


class _Run:
    def __init__(self, orders: Sequence[Sequence[Action]], stages: Sequence[StageTime]) -> None:
        self._orders = orders
        self._stages = stages
        self._done: list[list[Busy]] = [[] for _ in orders]
        count = 1 + max((a.micro_batch for actions in orders for a in actions), default=0)
        # When what a stage sends has arrived, by stage and micro-batch; none where it has not.
        self._forward: list[list[float | None]] = [[None] * count for _ in stages]
        self._backward: list[list[float | None]] = [[None] * count for _ in stages]
        self._forward_line, self._backward_line = [0.0] * len(stages), [0.0] * len(stages)
        self._seconds = [{work: stage.seconds(work) for work in Work} for stage in stages]

    def advance(self) -> bool:
        """Do whatever can be done next; whether anything was."""
        moved = False
        for group, actions in enumerate(self._orders):
            done = self._done[group]
            free = done[-1].end_s if done else 0.0
            for action in actions[len(done) :]:
                ready = self._ready_s(action)
                if ready is None:
                    break
                start = max(ready, free)
                free = start + self._seconds[action.stage][action.work]
                done.append(Busy(action, start, free))
                self._send(action, free)
                moved = True
        return moved

    def _ready_s(self, action: Action) -> float | None:
        """When what an action needs has arrived; None if that is not known yet."""
        stage, work, micro = action.stage, action.work, action.micro_batch
        if work is Work.WEIGHTS:
            return 0.0
        if work is Work.FORWARD:
            return self._forward[stage - 1][micro] if stage else 0.0
        own = self._forward[stage][micro]
        if stage == len(self._stages) - 1 or own is None:
            return own
        arrived = self._backward[stage + 1][micro]
        return arrived if arrived is None else max(own, arrived)

    def _send(self, action: Action, end_s: float) -> None:
        """What an action made goes on its way, behind what was sent before."""
        stage = action.stage
        if action.work is Work.FORWARD:
            arrival = max(end_s, self._forward_line[stage]) + self._stages[stage].send_forward_s
            self._forward_line[stage] = self._forward[stage][action.micro_batch] = arrival
        elif action.work is not Work.WEIGHTS:
            arrival = max(end_s, self._backward_line[stage]) + self._stages[stage].send_backward_s
            self._backward_line[stage] = self._backward[stage][action.micro_batch] = arrival

    def result(self) -> PipelineTime:
        for done, actions in zip(self._done, self._orders, strict=True):
            if len(done) < len(actions):
                raise InputError(
                    need="orders in which every action's operands come to be",
                    got=f"{actions[len(done)]}, which waits for ever",
                    hint="use the orders of weft.parallel.pipeline.schedule",
                )
        ends = [busy.end_s for group in self._done for busy in group]
        return PipelineTime(
            groups=tuple(map(tuple, self._done)),
            step_s=max(ends, default=0.0),
            kept_bytes=tuple(self._most_kept(group) for group in self._done),
        )

    def _most_kept(self, group: Sequence[Busy]) -> float:
        kept = most = 0.0
        for busy in group:
            stage = self._stages[busy.action.stage]
            if busy.action.work is Work.FORWARD:
                kept += stage.kept_bytes
            elif busy.action.work is Work.INPUTS:
                kept += stage.waiting_bytes
            elif busy.action.work is Work.WEIGHTS:
                kept -= stage.kept_bytes + stage.waiting_bytes
            else:
                kept -= stage.kept_bytes
            most = max(most, kept)
        return most
