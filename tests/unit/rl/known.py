"""A small model, its data, and steps of training on it, for tests of optimizers."""

from __future__ import annotations

import torch
from torch import nn


def make_model(seed=0, width=7):
    """Layers of odd sizes, so that shards are uneven."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, width), nn.LayerNorm(width), nn.Tanh(), nn.Linear(width, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model


def batch(step, size=16):
    """Inputs and targets of a step, the same wherever they are asked for."""
    generator = torch.Generator().manual_seed(1000 + step)
    inputs = torch.randn(size, 5, generator=generator)
    return inputs, inputs.cumsum(1)[:, :3] + 0.1 * torch.randn(size, 3, generator=generator)


def backward(model, step):
    inputs, targets = batch(step)
    loss = (model(inputs) - targets).square().mean()
    loss.backward()
    return loss


def train(model, optimizer, steps):
    """Take steps, and say what was done in each of them."""
    found = []
    for step in steps:
        optimizer.zero_grad()
        backward(model, step)
        optimizer.step()
        found.append(getattr(optimizer, "last", None))
    return found


def weights(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def give(parameters, *gradients):
    """Set gradients by hand; None for none."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else torch.as_tensor(gradient).clone()


def equal(ones, others):
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))
