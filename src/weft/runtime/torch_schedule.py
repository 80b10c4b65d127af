"""The seam to torch.distributed.pipelining, whose runtime carries a schedule out.

Torch's runtime takes the order in which each group works, adds where stages send and receive, and
walks through it. It asks its stages what to send and to do; `TorchStage` answers with the
segments of a plan in place of a module and autograd. All that is private in torch is used here
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch.distributed as dist
from torch.distributed.pipelining.schedules import (
    _Action,
    _ComputationType,
    _PipelineScheduleRuntime,
)

from weft.parallel.pipeline.schedule import Action, Work

__all__ = ["Handlers", "Schedule"]

Handlers = Mapping[str, Callable[..., Any]]
"""By name of a method of torch's stage, what a stage does."""


class TorchStage:
    """What torch's runtime asks of a stage; every answer is one of the handlers."""

    submod = None
    is_first = is_last = False

    def __init__(
        self, number: int, num_stages: int, group: int, num_groups: int, handlers: Handlers
    ) -> None:
        self.stage_index = number
        self.num_stages = num_stages
        self.group_rank = group
        self.group_size = num_groups
        self.is_first = number == 0
        self.is_last = number == num_stages - 1
        self.stage_index_to_group_rank: dict[int, int] = {}
        self._handlers = handlers

    def get_fwd_send_ops(self, micro_batch: int) -> list[dist.P2POp]:
        return self._handlers["send_forward"](micro_batch)

    def get_fwd_recv_ops(self, micro_batch: int) -> list[dist.P2POp]:
        return self._handlers["receive_forward"](micro_batch)

    def get_bwd_send_ops(self, micro_batch: int) -> list[dist.P2POp]:
        return self._handlers["send_backward"](micro_batch)

    def get_bwd_recv_ops(self, micro_batch: int) -> list[dist.P2POp]:
        return self._handlers["receive_backward"](micro_batch)

    def forward_one_chunk(self, micro_batch: int, *ignored: Any, **options: Any) -> None:
        self._handlers["forward"](micro_batch)

    def backward_one_chunk(
        self, micro_batch: int, loss: Any = None, full_backward: bool = True, **options: Any
    ) -> None:
        self._handlers["inputs"](micro_batch)
        if full_backward:
            self._handlers["weights"](micro_batch)

    def backward_weight_one_chunk(self, micro_batch: int, **options: Any) -> None:
        self._handlers["weights"](micro_batch)

    def perform_reduce_grad(self, scale: int) -> None:
        """Gradients are reduced after the schedule."""

    def set_local_fwd_input(self, output: Any, micro_batch: int) -> None:
        """Stages on one group hand over by themselves."""

    def get_local_bwd_output(self, micro_batch: int) -> None:
        """Stages on one group hand over by themselves."""

    def set_local_bwd_input(self, output: Any, micro_batch: int) -> None:
        """Stages on one group hand over by themselves."""


class Schedule(_PipelineScheduleRuntime):
    """Torch's runtime with the orders of a plan.

    Args:
        orders: of each group, what it does in order.
        group: this rank's.
        num_stages: stages of the pipeline.
        micro_batches: parts of the batch.
        handlers: of each stage of this group, what it does.
    """

    def __init__(
        self,
        orders: Sequence[Sequence[Action]],
        group: int,
        num_stages: int,
        micro_batches: int,
        handlers: Mapping[int, Handlers],
    ) -> None:
        stages = [
            TorchStage(number, num_stages, group, len(orders), handlers[number])
            for number in sorted(handlers)
        ]
        super().__init__(cast("Any", stages), micro_batches, backward_requires_autograd=False)
        actions = {
            number: [_torch_action(action) for action in actions]
            for number, actions in enumerate(orders)
        }
        self._prepare_schedule_with_comms(cast("Any", actions))
        for number, lowered in self.pipeline_order_with_comms.items():
            self.pipeline_order_with_comms[number] = _receives_ahead(lowered)

    def run(self) -> None:
        """Do all micro-batches."""
        parts = [()] * self._n_microbatches
        self._step_microbatches(parts, [{} for _ in parts], return_outputs=False)

    def _initialize_stages(self, *ignored: Any, **options: Any) -> None:
        """Shapes are known from the plan; torch would send them around."""


def _receives_ahead(actions: Sequence[_Action]) -> list[_Action]:
    """The same actions, in which each receive has a computation between itself and its reader.

    What a peer sends travels only once there is a receive for it, so that it arrives while this
    group computes for another micro-batch. A receive that torch put right before its reader
    passes one computation, which holds one more tensor and no more, and no communication: groups
    wait for each other in the order that torch found, in which none waits for ever.
    """
    ordered: list[_Action] = []
    for action, reader in zip(actions, (*actions[1:], None), strict=True):
        place = len(ordered)
        if reader is not None and ordered and _reads(reader, action):
            place -= ordered[-1].computation_type in _COMPUTES
        ordered.insert(place, action)
    return ordered


_READERS = {
    _ComputationType.RECV_F: (_ComputationType.FORWARD,),
    _ComputationType.RECV_B: (_ComputationType.FULL_BACKWARD, _ComputationType.BACKWARD_INPUT),
}
_COMPUTES = (
    *(kind for kinds in _READERS.values() for kind in kinds),
    _ComputationType.BACKWARD_WEIGHT,
)


def _reads(action: _Action, receive: _Action) -> bool:
    """True if an action computes with what a receive takes up."""
    return (
        action.computation_type in _READERS.get(receive.computation_type, ())
        and action.stage_index == receive.stage_index
        and action.microbatch_index == receive.microbatch_index
    )


def _torch_action(action: Action) -> _Action:
    kinds = {Work.FORWARD: "F", Work.BACKWARD: "B", Work.INPUTS: "I", Work.WEIGHTS: "W"}
    found = _Action.from_str(f"{action.stage}{kinds[action.work]}{action.micro_batch}")
    assert found is not None
    return found
