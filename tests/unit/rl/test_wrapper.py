"""Wrappers are optimizers: for schedulers, scalers, closures, hooks and checkpoints."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn

from tests.unit.rl.known import backward, equal, give, make_model, train, weights
from weft.core.errors import InputError, MismatchError
from weft.rl import GAC, Applied, DelayCompensation, Ema, Previous, Regime, Versions


def gac_of(optimizer, **options):
    return GAC(optimizer, **options)


def compensated(optimizer, **_):
    found = DelayCompensation(optimizer, Versions(keep=3), strength=1.0)
    found.staleness = 0
    return found


def both(optimizer, **options):
    return GAC(compensated(optimizer), **options)


def turned(optimizer, **options):
    return compensated(GAC(optimizer, **options))


WRAPPERS = [gac_of, compensated, both, turned]


@pytest.fixture(params=WRAPPERS)
def wrap(request):
    return request.param


def adamw(model, **options):
    return torch.optim.AdamW(model.parameters(), lr=0.02, **options)


def test_groups_state_and_defaults_are_those_of_the_optimizer_inside(wrap):
    model = make_model()
    inner = adamw(model)
    opt = wrap(inner)
    train(model, opt, range(2))
    assert isinstance(opt, torch.optim.Optimizer)
    assert opt.param_groups is inner.param_groups and opt.state is inner.state
    assert opt.defaults is inner.defaults
    assert "AdamW" not in repr(opt) and "lr: 0.02" in repr(opt)


def test_a_scheduler_drives_the_optimizer_inside(wrap):
    model = make_model()
    inner = adamw(model)
    opt = wrap(inner)
    scheduler = torch.optim.lr_scheduler.LinearLR(opt, 1.0, 0.5, total_iters=2)
    for step in range(2):
        train(model, opt, [step])
        scheduler.step()
    assert inner.param_groups[0]["lr"] == pytest.approx(0.01)


def test_a_closure_is_called_once_with_gradients_on(wrap):
    model, calls = make_model(), []
    opt = wrap(adamw(model))

    def closure():
        calls.append(torch.is_grad_enabled())
        opt.zero_grad()
        return backward(model, 0)

    loss = opt.step(closure)
    assert calls == [True] and loss.requires_grad
    other = make_model()
    plain = wrap(adamw(other))
    plain.zero_grad()
    backward(other, 0)
    assert plain.step() is None
    assert equal(weights(model), weights(other))


def test_hooks_run_around_the_step(wrap):
    model, seen = make_model(), []
    opt = wrap(adamw(model))
    opt.register_step_pre_hook(lambda *_: seen.append("before"))
    opt.register_step_post_hook(lambda *_: seen.append("after"))
    train(model, opt, [0])
    assert seen == ["before", "after"]


def test_hooks_of_checkpoints_run(wrap):
    model, seen = make_model(), []
    opt = wrap(adamw(model))
    opt.register_state_dict_pre_hook(lambda *_: seen.append(1))
    opt.register_state_dict_post_hook(lambda _, state: {**state, "more": 3})
    opt.register_load_state_dict_pre_hook(lambda _, state: seen.append(state["more"]))
    opt.register_load_state_dict_post_hook(lambda _: seen.append(4))
    opt.load_state_dict(opt.state_dict())
    assert seen == [1, 3, 4]


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_scaler_gives_the_same_as_none(wrap, fused):
    model, other = make_model(), make_model()
    opt, plain = wrap(adamw(model, fused=fused)), wrap(adamw(other, fused=fused))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(4):
        opt.zero_grad()
        scaler.scale(_loss_of(model, step)).backward()
        scaler.unscale_(opt)
        scaler.step(opt)
        scaler.update()
    train(other, plain, range(4))
    assert all(torch.allclose(a, b) for a, b in zip(weights(model), weights(other), strict=True))


def _loss_of(model, step):
    from tests.unit.rl.known import batch

    inputs, targets = batch(step)
    return (model(inputs) - targets).square().mean()


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_leaves_out_touches_nothing(fused):
    model = make_model()
    gac = GAC(adamw(model, fused=fused))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for step in range(3):
        gac.zero_grad()
        scaler.scale(_loss_of(model, step)).backward()
        if step == 2:
            model[0].weight.grad[0, 0] = math.inf
            before = copy.deepcopy(gac.state_dict()), weights(model)
        scaler.step(gac)  # unscales by itself
        scaler.update()
    assert scaler.get_scale() == 4.0
    assert _same(before[0], gac.state_dict()) and equal(before[1], weights(model))
    assert gac.counts[Regime.INVALID] == 0


def _same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


REFERENCES = [Ema(), Previous(), Applied(count=3), Ema(dtype=torch.bfloat16)]


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("fused", [False, True])
def test_a_checkpoint_resumes_bit_for_bit(wrap, reference, fused):
    def begin():
        model = make_model()
        return model, wrap(adamw(model, fused=fused), reference=reference)

    model, opt = begin()
    train(model, opt, range(3))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, file)
    train(model, opt, range(3, 7))
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other, resumed = begin()
    other.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["opt"])
    train(other, resumed, range(3, 7))
    assert equal(weights(model), weights(other))
    assert _same(opt.state_dict(), resumed.state_dict())


def test_skips_counts_and_steps_are_in_the_checkpoint():
    model = make_model()
    gac = GAC(adamw(model), cosine_high=0.2)
    train(model, gac, range(6))
    assert gac.counts[Regime.SKIP] > 0
    other = GAC(adamw(make_model()), cosine_high=0.2)
    other.load_state_dict(gac.state_dict())
    assert other.counts == gac.counts
    assert other.own_state() == gac.own_state()


def test_a_checkpoint_of_the_bare_optimizer_begins_anew_without_an_error(wrap):
    model = make_model()
    bare = adamw(model)
    train(model, bare, range(2))
    opt = wrap(adamw(model))
    opt.load_state_dict(bare.state_dict())
    train(model, opt, range(2, 4))
    gac = opt if isinstance(opt, GAC) else opt.optimizer
    if isinstance(gac, GAC):
        assert gac.counts[Regime.FIRST] == 1


def test_a_checkpoint_with_another_kind_of_reference_begins_anew():
    model = make_model()
    gac = GAC(adamw(model))
    train(model, gac, range(2))
    for reference in (Applied(count=2), Previous()):
        other = GAC(adamw(model), reference=reference)
        other.load_state_dict(gac.state_dict())
        train(model, other, [2])
        assert other.last.regime is Regime.FIRST


def test_a_checkpoint_of_another_model_is_refused_and_changes_nothing():
    model, wide = make_model(), make_model(width=9)
    gac, other = GAC(adamw(model)), GAC(adamw(wide))
    train(model, gac, range(2))
    train(wide, other, range(2))
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(MismatchError, match="shape") as caught:
        other.load_state_dict(gac.state_dict())
    assert "(9, 5)" in caught.value.need and "(7, 5)" in caught.value.got and caught.value.hint
    assert _same(before, other.state_dict())


def test_a_checkpoint_of_other_groups_is_refused(wrap):
    model = make_model()
    few = wrap(torch.optim.AdamW(model[0].parameters(), lr=0.1))
    with pytest.raises(MismatchError, match="parameter groups") as caught:
        few.load_state_dict(wrap(adamw(model)).state_dict())
    assert "[6]" in caught.value.got


def test_the_checkpoints_of_torch_distributed_hold_references():
    from torch.distributed.checkpoint.state_dict import (
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    model = make_model()
    gac = GAC(adamw(model), reference=Applied(count=2))
    train(model, gac, range(3))
    saved = copy.deepcopy(get_optimizer_state_dict(model, gac))
    other = copy.deepcopy(model)
    resumed = GAC(adamw(other), reference=Applied(count=2))
    # What a checkpoint is read into has the names that were saved.
    template = get_optimizer_state_dict(other, resumed)
    assert template["state"].keys() == saved["state"].keys()
    assert template["state"]["0.weight"].keys() == saved["state"]["0.weight"].keys()
    set_optimizer_state_dict(other, resumed, saved)
    train(model, gac, range(3, 6))
    train(other, resumed, range(3, 6))
    assert equal(weights(model), weights(other))


def test_pickles_go_on(wrap):
    model = make_model()
    opt = wrap(adamw(model))
    scheduler = torch.optim.lr_scheduler.ConstantLR(opt)
    train(model, opt, range(2))
    scheduler.step()
    other, again = pickle.loads(pickle.dumps((model, opt)))
    train(model, opt, range(2, 4))
    train(other, again, range(2, 4))
    assert equal(weights(model), weights(other))


def test_zero_grad_and_step_work_after_gradients_were_kept(wrap):
    model = make_model()
    opt = wrap(adamw(model))
    train(model, opt, range(2))
    opt.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    opt.zero_grad()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("optimizer", "says"),
    [
        (lambda: "adam", "an optimizer of torch's kind"),
        (lambda: torch.optim.AdamW([{"params": []}]), "with parameters"),
        (lambda: torch.optim.LBFGS([nn.Parameter(torch.zeros(1))]), "one gradient a step"),
    ],
)
@pytest.mark.parametrize("wrapper", [gac_of, compensated])
def test_what_cannot_be_wrapped_is_refused(wrapper, optimizer, says):
    with pytest.raises(InputError, match=says) as caught:
        wrapper(optimizer())
    assert caught.value.got and caught.value.hint


@pytest.mark.parametrize(
    "nested",
    [
        lambda opt: GAC(GAC(opt)),
        lambda opt: GAC(compensated(GAC(opt))),
        lambda opt: compensated(both(opt)),
    ],
)
def test_one_of_a_kind_is_enough(nested):
    with pytest.raises(InputError, match="at most one"):
        nested(adamw(make_model()))


def test_the_outer_wrapper_goes_first():
    weight = nn.Parameter(torch.tensor([0.0, 0.0]))

    def versions():
        found = Versions(keep=2)
        found.publish(0, [torch.tensor([-1.0, -1.0])])
        found.publish(1, [torch.tensor([-1.0, -1.0])])
        return found

    for order in ("gac outside", "gac inside"):
        inner = torch.optim.SGD([weight], lr=0.0)
        options = {"strength": 1.0, "form": "raw", "publish": False}
        if order == "gac outside":
            compensation = DelayCompensation(inner, versions(), **options)
            opt = GAC(compensation, reference=Previous())
        else:
            opt = compensation = DelayCompensation(
                GAC(inner, reference=Previous()), versions(), **options
            )
        give([weight], [1.0, 0.0])
        opt.step()
        compensation.staleness = 1
        give([weight], [1.0, 1.0])
        opt.step()
        # Projected to [0, 1], then 1 + 1 * 1 * 1; or corrected to [2, 2], then projected.
        assert weight.grad.tolist() == [0.0, 2.0]
        if order == "gac inside":
            assert opt.optimizer.last.norm_raw == pytest.approx(math.sqrt(8.0))
        else:
            assert opt.last.norm_raw == pytest.approx(math.sqrt(2.0))
