"""One process, two ways: a plain training loop of torch, and weft's pure step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from weft.capture import Workload, initial_state, make_step
from weft.runtime import step_seed

__all__ = ["Trace", "train_plainly", "train_purely"]

_KINDS = {"AdamW": torch.optim.AdamW, "SGD": torch.optim.SGD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Loss of each step, and the parameters and buffers after the last."""

    losses: tuple[float, ...]
    state: Mapping[str, Tensor]


def train_plainly(workload: Workload, steps: int) -> Trace:
    """`backward()` and an optimizer of `torch.optim`, with nothing of weft between them."""
    torch.manual_seed(workload.seed)
    model = workload.model()
    pure = workload.pure_optimizer
    optimizer = _KINDS[type(pure).__name__](model.parameters(), **asdict(pure))
    losses: list[float] = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = workload.loss(model, workload.batch(step))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return Trace(losses=tuple(losses), state={name: t.detach() for name, t in tensors})


def train_purely(workload: Workload, steps: int) -> Trace:
    """The function that capture traces, on real tensors."""
    step, state = make_step(workload), initial_state(workload)
    losses: list[float] = []
    for number in range(steps):
        seed = torch.tensor(step_seed(workload.seed, number))
        loss, state = step(state, workload.batch(number), seed)
        losses.append(loss.item())
    return Trace(losses=tuple(losses), state=state)
