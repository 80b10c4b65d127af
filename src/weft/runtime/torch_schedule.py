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
from torch.distributed.pipelining.schedules import _Action, _PipelineScheduleRuntime

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

    def run(self) -> None:
        """Do all micro-batches."""
        parts = [()] * self._n_microbatches
        self._step_microbatches(parts, [{} for _ in parts], return_outputs=False)

    def _initialize_stages(self, *ignored: Any, **options: Any) -> None:
        """Shapes are known from the plan; torch would send them around."""


def _torch_action(action: Action) -> _Action:
    kinds = {Work.FORWARD: "F", Work.BACKWARD: "B", Work.INPUTS: "I", Work.WEIGHTS: "W"}
    found = _Action.from_str(f"{action.stage}{kinds[action.work]}{action.micro_batch}")
    assert found is not None
    return found
