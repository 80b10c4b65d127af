"""Delay compensation, against its formula, and the versions that it needs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.unit.rl.known import backward, equal, give, make_model, train, weights
from weft.core.errors import InputError, MismatchError
from weft.rl import DelayCompensation, Versions


def made(model, *, form="raw", strength=3.0, keep=4, make=torch.optim.AdamW, **options):
    inner = make(model.parameters(), lr=0.02)
    return DelayCompensation(inner, Versions(keep=keep), strength=strength, form=form, **options)


@pytest.mark.parametrize("form", ["raw", "normalised"])
@pytest.mark.parametrize("staleness", [None, 0, 0.0, {0: 1.0}, {0: 3.0, 2: 0.0}])
def test_without_delay_not_a_bit_changes(form, staleness):
    model, other = make_model(), make_model()
    opt = made(model, form=form)
    opt.staleness = staleness
    train(model, opt, range(4))
    train(other, torch.optim.AdamW(other.parameters(), lr=0.02), range(4))
    assert equal(weights(model), weights(other))


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("lag", [1, 3])
def test_the_raw_form(make, lag):
    model = make_model()
    opt, past = made(model, make=make), []
    for step in range(6):
        past.append(weights(model))
        opt.zero_grad()
        backward(model, step)
        raw = [p.grad.clone() for p in model.parameters()]
        opt.staleness = lag if step >= lag else 0
        opt.step()
        if step < lag:
            continue
        for g, now, old, p in zip(raw, past[-1], past[-1 - lag], model.parameters(), strict=True):
            assert torch.allclose(p.grad, g + 3.0 * g * g * (now - old), rtol=1e-5, atol=1e-8)
            assert not torch.equal(p.grad, g)


@pytest.mark.parametrize("options", [{}, {"fused": True}, {"foreach": True}, {"amsgrad": True}])
def test_the_normalised_form_divides_by_what_the_optimizer_is_about_to(options):
    model = make_model()
    inner = torch.optim.AdamW(model.parameters(), lr=0.02, betas=(0.9, 0.95), **options)
    opt = DelayCompensation(inner, Versions(keep=3), strength=5.0)
    past, moments = [], [torch.zeros_like(p) for p in model.parameters()]
    for step in range(6):
        past.append(weights(model))
        opt.zero_grad()
        backward(model, step)
        raw = [p.grad.clone() for p in model.parameters()]
        opt.staleness = 2 if step >= 2 else 0
        opt.step()
        for n, p in enumerate(model.parameters()):
            g = raw[n]
            usual = ((0.95 * moments[n] + 0.05 * g * g) / (1 - 0.95 ** (step + 1))).sqrt()
            if step >= 2:
                wanted = g + 5.0 * g * g / usual * (past[-1][n] - past[-3][n])
                assert torch.allclose(p.grad, wanted, rtol=1e-4, atol=1e-7)
            moments[n] = 0.95 * moments[n] + 0.05 * p.grad * p.grad


def test_the_normalised_form_does_not_see_the_scale_of_the_loss():
    found = []
    for scale in (1.0, 64.0):
        model = make_model()
        opt = made(model, form="normalised", strength=20.0)
        for step in range(5):
            opt.zero_grad()
            (scale * backward_loss(model, step)).backward()
            opt.staleness = min(step, 2)
            opt.step()
        found.append(weights(model))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*found, strict=True))


def backward_loss(model, step):
    from tests.unit.rl.known import batch

    inputs, targets = batch(step)
    return (model(inputs) - targets).square().mean()


def test_a_gradient_out_of_the_blue_is_bounded_and_none_stays_none():
    weight = nn.Parameter(torch.zeros(2))
    opt = DelayCompensation(torch.optim.AdamW([weight], lr=0.1), Versions(keep=2), strength=1.0)
    for gradient, staleness in (([0.0, 0.0], 0), ([1.0, 0.0], 1)):
        give([weight], gradient)
        weight.data.add_(1.0)
        opt.staleness = staleness
        opt.step()
    assert weight.grad[1] == 0.0 and weight.grad.isfinite().all()
    assert 1.0 < weight.grad[0] < 1.0 + 1.0 / (1 - 0.999) ** 0.5


def test_a_weight_that_moved_by_one_over_the_strength_doubles_its_usual_gradient():
    weight = nn.Parameter(torch.zeros(1))
    opt = DelayCompensation(torch.optim.AdamW([weight], lr=0.0), Versions(keep=2), strength=10.0)
    for staleness in (0, 1):
        give([weight], [0.5])
        opt.staleness = staleness
        opt.step()
        weight.data.add_(0.1)
    assert weight.grad.item() == pytest.approx(1.0, rel=1e-6)


def test_mixed_ages_pull_towards_the_mean_of_their_versions():
    weight = nn.Parameter(torch.tensor([4.0]))
    versions = Versions(keep=4)
    for number in range(4):
        versions.publish(number, [torch.tensor([float(number)])])
    opt = DelayCompensation(
        torch.optim.SGD([weight], lr=0.0), versions, strength=1.0, form="raw", publish=False
    )
    for _ in range(3):
        give([weight], [1.0])
        opt.step()
    assert opt.version == 3
    opt.staleness = {0: 1, 1: 1, 3: 2}
    give([weight], [1.0])
    opt.step()
    assert weight.grad.item() == pytest.approx(1.0 + (0.25 * (4 - 2) + 0.5 * (4 - 0)))


def test_parameters_without_gradients_stay_as_they_are():
    one, other = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.ones(1))
    opt = DelayCompensation(
        torch.optim.SGD([one, other], lr=1.0), Versions(keep=2), strength=1.0, form="raw"
    )
    for staleness in (0, 1):
        give((one, other), [1.0], None)
        opt.staleness = staleness
        opt.step()
    assert one.grad.item() == 0.0 and other.item() == 1.0 and other.grad is None


def test_half_precision_gradients_are_corrected_in_float32():
    weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    versions = Versions(keep=1)
    versions.publish(0, [torch.tensor([-0.5], dtype=torch.bfloat16)])
    opt = DelayCompensation(
        torch.optim.SGD([weight], lr=0.0), versions, strength=1.0, form="raw", publish=False
    )
    give([weight], torch.tensor([1.0078125], dtype=torch.bfloat16))
    opt.step()
    opt.staleness = 1
    give([weight], torch.tensor([1.0078125], dtype=torch.bfloat16))
    opt.step()
    exact = torch.tensor([1.0078125 + 1.0078125**2 * 0.5]).bfloat16()
    assert torch.equal(weight.grad, exact)


def test_a_missing_version_is_named_with_those_at_hand():
    model = make_model()
    opt = made(model, keep=2)
    train(model, opt, range(3))
    opt.staleness = 3
    backward(model, 3)
    with pytest.raises(InputError) as caught:
        opt.step()
    assert caught.value.need == "the weights of version 0"
    assert caught.value.got == "versions 2, 3 are held" and "keep more than 2" in caught.value.hint


@pytest.mark.parametrize("staleness", [-1, 0.5, {1: -1.0}, {}, {1.5: 1.0}, {1: 0.0}, float("nan")])
def test_a_staleness_that_cannot_be_is_refused(staleness):
    model = make_model()
    opt = made(model)
    train(model, opt, range(2))
    opt.staleness = staleness
    with pytest.raises(InputError, match="whole steps") as caught:
        train(model, opt, [2])
    assert caught.value.got and caught.value.hint


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"strength": -1.0}, "at least 0"),
        ({"strength": float("inf")}, "finite"),
        ({"form": "cooked"}, '"raw"'),
        ({"form": "normalised", "make": torch.optim.SGD}, "second moment"),
    ],
)
def test_options_that_cannot_be_are_refused(options, says):
    with pytest.raises(InputError, match=says) as caught:
        made(make_model(), **options)
    assert caught.value.got and caught.value.hint


def test_an_optimizer_that_turns_out_to_have_no_second_moment_is_refused():
    model = make_model()
    opt = made(model, form="normalised", make=torch.optim.Adamax)
    train(model, opt, range(2))
    opt.staleness = 1
    with pytest.raises(InputError, match="exp_avg_sq"):
        train(model, opt, [2])


def test_a_resumed_run_counts_on_and_takes_its_versions_along():
    model = make_model()
    opt = made(model)
    train(model, opt, range(3))
    other_model = make_model()
    other = made(other_model)
    other_model.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(opt.state_dict()))  # torch's own shares tensors
    other.versions.load_state_dict(opt.versions.state_dict())
    opt.staleness = other.staleness = 2
    train(model, opt, range(3, 6))
    train(other_model, other, range(3, 6))
    assert other.version == 6 and equal(weights(model), weights(other_model))


def test_versions_are_copies_and_the_oldest_goes():
    weight = torch.zeros(2)
    versions = Versions(keep=2)
    for number in (3, 5, 9):
        weight.fill_(float(number))
        versions.publish(number, [weight])
    weight.fill_(0.0)
    assert versions.held == (5, 9)
    assert [versions[n][0].tolist() for n in (5, 9)] == [[5.0, 5.0], [9.0, 9.0]]
    versions.publish(9, [weight])
    assert versions.held == (5, 9) and versions[9][0].tolist() == [0.0, 0.0]


def test_versions_in_another_precision():
    versions = Versions(keep=1, dtype=torch.float64)
    versions.publish(0, [nn.Parameter(torch.ones(2))])
    assert versions[0][0].dtype is torch.float64 and not versions[0][0].requires_grad


def test_versions_that_cannot_be_kept_are_refused():
    with pytest.raises(InputError, match="at least one"):
        Versions(keep=0)
    many, few = Versions(keep=3), Versions(keep=2)
    for number in range(3):
        many.publish(number, [torch.zeros(1)])
    with pytest.raises(MismatchError, match="at most 2") as caught:
        few.load_state_dict(many.state_dict())
    assert "0, 1, 2" in caught.value.got
    with pytest.raises(InputError, match="none are held"):
        _ = few[0]
