"""Late gradients of quadratics, applied by the optimizers of the product.

Two ways to look at the same rule. *Held*: the directions of interest are a vanishing part of a
gradient whose signal and noise hold the cosine at a given value; there GAC is a linear filter, and
every direction with its curvature is a cell of the map. *Alone*: a quadratic of a few dimensions
without noise is all there is, so the cosine answers to what GAC does; each model is a cell.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.gac_phase.contestants import Contestant

__all__ = ["CURVATURES", "descent", "rates_alone", "rates_held"]

Floats = NDArray[np.float64]

CARRIER = 128
"""Directions that noise takes turns in, more than any reference remembers."""
START, LARGE, SMALL = 1e-150, 1e-30, 1e-280
"""Where directions of interest start, and where they are let go: far below the rest of the
gradient, whose norm is 1, and far above the smallest of float64."""
CURVATURES = (1.0, 0.6, 0.35, 0.2, 0.12, 0.07, 0.04, 0.025)
"""Of a model that is alone, as shares of the largest."""
SETTLED = 1e60
"""Size at which a model that is alone has diverged: it started at 1."""


def descent(contestant: Contestant, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Its optimizer, with a step size of 1: steps are in the curvatures."""
    inner = torch.optim.SGD(parameters, lr=1.0, momentum=contestant.beta, dampening=contestant.beta)
    return contestant.wrap(inner)


def rates_held(
    contestant: Contestant, *, lag: int, steps: Floats, cosine: float, turns: int
) -> Floats:
    """How fast each direction grows in a gradient whose cosine is held.

    The gradient is sqrt(cosine) along one axis and sqrt(1 - cosine) along one of `CARRIER` others,
    another one each step, so that its cosine with the one before is exact.

    Args:
        contestant: the optimizer.
        lag: steps between the weights that gradients are of and those they are used on.
        steps: step size times curvature of each direction [directions].
        cosine: of each gradient with the next.
        turns: how long, in units of lag + 1 steps.

    Returns:
        Growth of the logarithm of the largest weight, in lag + 1 steps [directions].
    """
    count = len(steps)
    weight = nn.Parameter(torch.zeros(count + 1 + CARRIER, dtype=torch.float64))
    weight.data[:count] = START
    curvature = torch.from_numpy(steps.copy())
    optimizer = descent(contestant, [weight])
    late: deque[Tensor] = deque(maxlen=lag + 1)
    late.extend(weight.detach()[:count].clone() for _ in range(lag + 1))
    windows = _Windows(turns=turns, lag=lag, count=count)
    weight.grad = torch.zeros_like(weight)
    for step in range(windows.total):
        weight.grad.zero_()
        weight.grad[:count] = curvature * late[0]
        weight.grad[count] = cosine**0.5
        weight.grad[count + 1 + step % CARRIER] = (1.0 - cosine) ** 0.5
        optimizer.step()
        now = weight.detach()[:count].clone()
        size = now.abs()
        gone = windows.note(step, size, (size > LARGE), (size < SMALL))
        curvature[gone] = 0.0
        late.append(now)
    return windows.rates()


def rates_alone(
    contestant: Contestant, *, lag: int, steps: Floats, turns: int, seed: int = 0
) -> Floats:
    """How fast models grow that are quadratics of a few dimensions and nothing else.

    Args:
        contestant: the optimizer, with a decision of its own for every parameter.
        lag: as in `rates_held`.
        steps: step size times the largest curvature of each model [models].
        turns: as in `rates_held`.
        seed: of where they start.

    Returns:
        Growth of the logarithm of the norm of the weights, in lag + 1 steps [models].
    """
    start = torch.randn(len(CURVATURES), generator=torch.Generator().manual_seed(seed))
    start = (start / start.norm()).to(torch.float64)
    models = [nn.Parameter(start.clone()) for _ in steps]
    shares = torch.tensor(CURVATURES, dtype=torch.float64)
    curvature = torch.from_numpy(steps.copy())[:, None] * shares
    optimizer = descent(contestant, models)
    late: deque[Tensor] = deque(maxlen=lag + 1)
    late.extend(torch.stack([model.detach() for model in models]) for _ in range(lag + 1))
    windows = _Windows(turns=turns, lag=lag, count=len(models))
    for step in range(windows.total):
        for model, gradient in zip(models, (curvature * late[0]).unbind(), strict=True):
            model.grad = gradient
        optimizer.step()
        now = torch.stack([model.detach() for model in models])
        size = now.norm(dim=1)
        gone = windows.note(step, size, size > SETTLED, size < 1.0 / SETTLED)
        curvature[gone] = 0.0
        late.append(now)
    return windows.rates()


class _Windows:
    """The largest size in the second and in the last quarter of a run, and who left early."""

    def __init__(self, *, turns: int, lag: int, count: int) -> None:
        self.lag = lag
        # Short lags need more than a few steps for what dies out to do so.
        self.total = turns * (lag + 1) + 4 * turns
        self._early = torch.zeros(count, dtype=torch.float64)
        self._late = torch.zeros(count, dtype=torch.float64)
        self._left = torch.zeros(count, dtype=torch.float64)

    def note(self, step: int, size: Tensor, grown: Tensor, shrunk: Tensor) -> Tensor:
        """Take sizes in; returns who is to be let go."""
        quarter = 4 * step // self.total
        for kept, at in ((self._early, 1), (self._late, 3)):
            if quarter == at:
                torch.maximum(kept, size, out=kept)
        self._left[(self._left == 0) & grown] = np.inf
        self._left[(self._left == 0) & shrunk] = -np.inf
        return self._left != 0

    def rates(self) -> Floats:
        """Growth of the logarithm in lag + 1 steps; infinite for who left."""
        apart = self.total / 2 / (self.lag + 1)
        found = (self._late.log() - self._early.log()) / apart
        return torch.where(self._left != 0, self._left, found).numpy()
