"""The plain policy gradient."""

import torch

from weft.rl.corrections import Batch, Truncated
from weft.rl.policy_gradient import PolicyGradient


def batch(behaviour):
    current = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    return Batch(
        current=current,
        behaviour=torch.tensor([behaviour]),
        advantages=torch.tensor([0.5]),
        mask=torch.ones(1, 2),
    )


def test_age_changes_nothing():
    gradients = []
    for behaviour in ([-1.0, -2.0], [-5.0, -0.1]):
        given = batch(behaviour)
        PolicyGradient()(given).loss.backward()
        gradients.append(given.current.grad)
    assert torch.equal(*gradients)
    assert gradients[0].tolist() == [[-0.25, -0.25]]


def test_on_new_samples_it_is_importance_sampling():
    one, other = batch([-1.0, -2.0]), batch([-1.0, -2.0])
    PolicyGradient()(one).loss.backward()
    Truncated()(other).loss.backward()
    assert torch.equal(one.current.grad, other.current.grad)
