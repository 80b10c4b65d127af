"""Running a captured program next to the step that it was captured from."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from weft.capture import SGD, Workload, capture, initial_state, make_step
from weft.program.evaluate import evaluate

SEED = torch.tensor(11)


class Applied(nn.Module):
    """A function of one trainable tensor and a batch entry, as a module."""

    def __init__(self, function, shape):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weight = nn.Parameter(torch.randn(shape, dtype=torch.float64, generator=generator))
        self.function = function

    def forward(self, x):
        return self.function(self.weight, x)


def applied(function, shape, x, name="applied"):
    """A workload that sums the squares of `function(weight, x)`; its gradient tells them apart."""
    return Workload(
        name=name,
        model=lambda: Applied(function, shape),
        loss=lambda model, batch: _weighted(model(batch["x"])),
        batch=lambda step: {"x": x},
        optimizer=SGD(lr=0.5),
    )


def _weighted(y):
    if y.dim() == 0:
        return y
    scale = torch.arange(1, y.numel() + 1, dtype=y.dtype).view(y.shape) / y.numel()
    return (y * scale).sum()


def evaluated(workload, program=None, state=None, step=0):
    """What the program makes of a state: (loss, next state), by the reference evaluator."""
    program = capture(workload) if program is None else program
    state = initial_state(workload) if state is None else state
    batch = {f"batch.{key}": value for key, value in workload.batch(step).items()}
    given = {**state, **batch, "seed": SEED}
    arrays = {key: _array(value) for key, value in given.items()}
    # The model's shapes outside, those that the program holds inside.
    held = {
        i.name: arrays[i.name].reshape(program.nodes[i.node].outputs[0].shape)
        for i in program.inputs
    }
    loss, updates = evaluate(program, held)
    return float(loss), {
        name: updates.get(name, arrays[name]).reshape(value.shape) for name, value in state.items()
    }


def stepped(workload, state=None, step=0):
    """The same by the pure step on real tensors."""
    state = initial_state(workload) if state is None else state
    loss, new = make_step(workload)(state, workload.batch(step), SEED)
    return float(loss), {name: _array(value) for name, value in new.items()}


def assert_same_step(workload, program=None, rtol=1e-10, atol=1e-12):
    """The captured program computes what the step computes, for loss and every next state."""
    loss, state = evaluated(workload, program)
    wanted_loss, wanted = stepped(workload)
    np.testing.assert_allclose(loss, wanted_loss, rtol=rtol, atol=atol)
    assert state.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(state[name], value, rtol=rtol, atol=atol, err_msg=name)


def _array(tensor):
    return tensor.detach().numpy()
