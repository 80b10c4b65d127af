"""What a compiled function makes, compared with what it should."""

from __future__ import annotations

import torch
from torch.utils._pytree import tree_leaves

__all__ = ["assert_alike", "copies", "normal", "trained"]


def assert_alike(got, wanted, rtol=2e-5, atol=1e-5):
    ours, theirs = tree_leaves(got), tree_leaves(wanted)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        if isinstance(other, torch.Tensor):
            torch.testing.assert_close(
                one, other, rtol=rtol, atol=atol, equal_nan=True, check_stride=True
            )
        else:
            assert one == other


def copies(values):
    return [
        v.detach().clone().requires_grad_(v.requires_grad) if isinstance(v, torch.Tensor) else v
        for v in values
    ]


def trained(f, values):
    """What a function makes, and the gradients of all that asks for one."""
    out = f(*values)
    grads = [v for v in values if isinstance(v, torch.Tensor) and v.requires_grad]
    weight = torch.linspace(-1.0, 2.0, out.numel(), dtype=torch.float32).view(out.shape)
    return out, torch.autograd.grad((out.float() * weight).sum(), grads)


def normal(*shape, grad=True):
    return torch.randn(*shape, requires_grad=grad)
