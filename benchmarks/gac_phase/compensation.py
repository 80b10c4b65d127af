"""Delay compensation on a noisy quadratic whose noise is known to be like its curvature."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor, nn

from weft.rl import DelayCompensation, Versions

__all__ = ["excess", "loss"]

COPIES = 64
"""Runs side by side, to average over noise."""
ESCAPED = 1e6
STEP = 0.1
"""Step size times curvature. Derived: above the threshold of a lag of 16, which is 0.095."""


def excess(*, lag: int, turns: int) -> dict[str, float]:
    """Loss in the long run, in units of the noise: late, late and compensated, and without lag."""
    step = STEP if lag == 16 else 0.36
    return {
        "lag": float(lag),
        "step": step,
        "late": loss(step, lag=lag, known=0.0, turns=turns),
        "compensated": loss(step, lag=lag, known=1.0, turns=turns),
        "no lag": loss(step, lag=0, known=0.0, turns=turns),
    }


def loss(step: float, *, lag: int, known: float, turns: int, seed: int = 0) -> float:
    """The mean of h w^2, where a gradient is h w(t - lag) plus or minus sqrt(h).

    The square of a gradient is then h on average near the minimum, so that a strength of `known`
    is that share of the curvature.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = nn.Parameter(torch.zeros(COPIES, dtype=torch.float64))
    inner = torch.optim.SGD([weight], lr=1.0)  # the step is in the curvature
    optimizer = DelayCompensation(inner, Versions(keep=lag + 1), strength=known, form="raw")
    late: deque[Tensor] = deque(maxlen=lag + 1)
    late.extend(weight.detach().clone() for _ in range(lag + 1))
    total = turns * (lag + 1) + 4 * turns
    found = torch.zeros_like(weight)
    for count in range(total):
        signs = 2.0 * torch.randint(0, 2, (COPIES,), generator=generator) - 1.0
        weight.grad = step * late[0] + step**0.5 * signs
        optimizer.staleness = min(lag, count)
        optimizer.step()
        weight.data.clamp_(-ESCAPED, ESCAPED)
        late.append(weight.detach().clone())
        if count > total // 2:
            found += weight.detach().square()
    return step * float(found.mean()) / (total - total // 2 - 1)
