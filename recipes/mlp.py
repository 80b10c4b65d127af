"""The smallest recipe worth planning: two linear layers on handwritten digits.

Names of tensors end in their dims: B batch, D pixel, F hidden width, K class.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from real_data import digits_batch
from torch import Tensor, nn

from weft.capture import SGD, Workload

__all__ = ["MLP", "mlp_tiny", "mlp_wide"]


class MLP(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, pixels: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.up = nn.Linear(pixels, hidden)
        self.down = nn.Linear(hidden, classes)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Logits of the classes [B,K]."""
        h_BF = F.relu(self.up(x_BD))
        return self.down(h_BF)


def class_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross entropy of the class [scalar]."""
    logits_BK = model(batch["images"].flatten(1))
    return F.cross_entropy(logits_BK, batch["labels"])


def mlp(name: str, *, hidden: int, batch: int) -> Workload:
    """An MLP on the 64 pixels of a digit."""
    return Workload(
        name=name,
        model=lambda: MLP(pixels=64, hidden=hidden, classes=10),
        loss=class_loss,
        batch=lambda step: digits_batch(step, batch),
        optimizer=SGD(lr=0.1, momentum=0.9),
    )


def mlp_tiny(*, batch: int = 32) -> Workload:
    """64 hidden units: a step takes less than a millisecond."""
    return mlp("mlp_tiny", hidden=64, batch=batch)


def mlp_wide(*, batch: int = 64) -> Workload:
    """8,192 hidden units: wide enough that splitting its columns and rows pays."""
    return mlp("mlp_wide", hidden=8192, batch=batch)
