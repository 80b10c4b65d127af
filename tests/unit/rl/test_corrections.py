"""Corrections, against formulas in float64 that autograd differentiates."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.rl.corrections import (
    LOG_RATIO_BOUND,
    M2PO,
    Batch,
    Decoupled,
    PPOClip,
    SequenceMask,
    Truncated,
    log_ratios,
    sequence_mask,
)

AVERAGES = ("tokens", "sequences")
SEEDS = st.integers(0, 10_000)
ALL = [
    PPOClip(),
    PPOClip(low=0.1, high=0.3, average="sequences"),
    Truncated(),
    Truncated(cap=1.0, average="sequences"),
    Decoupled(),
    Decoupled(cap=1.5, average="sequences"),
    M2PO(),
    M2PO(tau=0.0, average="sequences"),
    SequenceMask(low=-0.1, high=0.1, inside=PPOClip()),
    SequenceMask(low=0.0, high=0.0, inside=M2PO()),
]


def made(seed, *, spread=0.5, of_tokens=True, dtype=torch.float64, sizes=(4, 6)):
    """A batch whose policies are about `spread` apart; the last sequence has no token."""
    make = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=make, dtype=torch.float64)

    current = -draw(*sizes).abs()
    mask = torch.rand(*sizes, generator=make) < 0.7
    mask[-1] = False
    return Batch(
        current=current.to(dtype, copy=True).requires_grad_(),
        behaviour=(current + spread * draw(*sizes)).to(dtype),
        advantages=(draw(*sizes) if of_tokens else draw(sizes[0])).to(dtype),
        mask=mask,
        proximal=(current + 0.5 * spread * draw(*sizes)).to(dtype),
    )


def changed(batch, **more):
    """The same with other fields, and gradients of its own."""
    given = {name: getattr(batch, name) for name in Batch.__slots__} | more
    given["current"] = given["current"].detach().clone().requires_grad_()
    return Batch(**given)


def gradient(correction, batch):
    corrected = correction(batch)
    (found,) = torch.autograd.grad(corrected.loss, batch.current)
    return corrected, found


def averaged(losses, mask, average):
    """The two means, with loops."""
    rows = [[losses[b, t] for t in range(mask.shape[1]) if mask[b, t]] for b in range(len(mask))]
    if average == "tokens":
        found = [one for row in rows for one in row]
        return sum(found) / len(found)
    rows = [row for row in rows if row]
    return sum(sum(row) / len(row) for row in rows) / len(rows)


def advantages(batch):
    return batch.advantages if batch.advantages.dim() == 2 else batch.advantages[:, None]


def agree(correction, batch, losses):
    """Loss and gradient are those of per-token losses that autograd went through."""
    if not batch.mask.any():
        return
    corrected, found = gradient(correction, batch)
    expected = averaged(losses, batch.mask, correction.average)
    (slope,) = torch.autograd.grad(expected, batch.current)
    torch.testing.assert_close(corrected.loss, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found, slope, rtol=1e-10, atol=1e-12)


# Formulas.


@given(SEEDS, st.floats(0.0, 1.0), st.floats(0.0, 2.0), st.booleans(), st.sampled_from(AVERAGES))
def test_ppo_is_the_smaller_of_two_surrogates(seed, low, high, of_tokens, average):
    batch = made(seed, of_tokens=of_tokens)
    ratio = (batch.current - batch.behaviour).exp()
    by = advantages(batch)
    losses = -torch.minimum(ratio * by, ratio.clamp(1 - low, 1 + high) * by)
    agree(PPOClip(low=low, high=high, average=average), batch, losses)


@given(SEEDS, st.floats(1.0, 4.0), st.booleans(), st.sampled_from(AVERAGES))
def test_truncated_has_the_gradient_of_weighted_log_probabilities(seed, cap, of_tokens, average):
    batch = made(seed, of_tokens=of_tokens, spread=1.0)
    weights = (batch.current - batch.behaviour).exp().detach().clamp(max=cap)
    # The value is that of the surrogate: what the log-probability adds to it is taken off again.
    losses = -weights * advantages(batch) * (1 + batch.current - batch.current.detach())
    agree(Truncated(cap=cap, average=average), batch, losses)


@given(SEEDS, st.floats(0.0, 1.0), st.floats(0.0, 2.0), st.floats(1.0, 3.0))
def test_decoupled_weighs_the_clip_from_the_proximal_policy(seed, low, high, cap):
    batch = made(seed, spread=1.0)
    ratio = (batch.current - batch.proximal).exp()
    weights = (batch.proximal - batch.behaviour).exp().clamp(max=cap)
    by = batch.advantages
    losses = -weights * torch.minimum(ratio * by, ratio.clamp(1 - low, 1 + high) * by)
    agree(Decoupled(low=low, high=high, cap=cap), batch, losses)


def left_out(batch, tau):
    """Which tokens M2PO leaves out: one after the other, the largest first."""
    with torch.no_grad():
        log_ratio = batch.current - batch.behaviour
        candidates = batch.mask & (log_ratio * advantages(batch) > 0)
        squares = {
            (b, t): log_ratio[b, t].item() ** 2 for b, t in torch.argwhere(candidates).tolist()
        }
    gone = []
    while squares and sum(squares.values()) / len(squares) > tau:
        gone.append(max(squares, key=squares.__getitem__))
        del squares[gone[-1]]
    return gone


@given(SEEDS, st.floats(0.0, 0.5), st.booleans(), st.sampled_from(AVERAGES))
def test_m2po_leaves_out_the_largest_until_the_mean_square_is_low(seed, tau, of_tokens, average):
    batch = made(seed, of_tokens=of_tokens)
    stays = torch.ones_like(batch.current)
    for b, t in left_out(batch, tau):
        stays[b, t] = 0
    losses = -(batch.current - batch.behaviour).exp() * advantages(batch) * stays
    agree(M2PO(tau=tau, average=average), batch, losses)
    masked = M2PO(tau=tau)(batch).told.read()["masked"]
    assert masked == pytest.approx(len(left_out(batch, tau)) / max(1, int(batch.mask.sum())))


@given(SEEDS, st.floats(-0.5, 0.0), st.floats(0.0, 0.5), st.sampled_from(AVERAGES))
def test_a_sequence_mask_leaves_the_others_as_they_were(seed, low, high, average):
    batch = made(seed)
    inside = Truncated(cap=math.inf, average=average)
    rows = [
        (batch.current - batch.behaviour)[b][batch.mask[b]].mean().item()
        for b in range(len(batch.mask))
    ]
    keep = torch.tensor([[float(low <= mean <= high)] for mean in rows])
    corrected, found = gradient(SequenceMask(low=low, high=high, inside=inside), batch)
    plain, slope = gradient(inside, batch)
    torch.testing.assert_close(corrected.losses, plain.losses * keep)
    torch.testing.assert_close(found, slope * keep)
    if batch.mask.any():
        expected = averaged(corrected.losses, batch.mask, average)
        torch.testing.assert_close(corrected.loss, expected)


def test_masks_go_inside_each_other_and_beside_weights():
    batch = changed(made(1), weights=torch.full((4, 6), 0.5, dtype=torch.float64))
    wide, narrow = (lambda bound, inside: SequenceMask(low=-bound, high=bound, inside=inside),) * 2
    nested = wide(9.0, narrow(0.1, PPOClip()))(batch)
    torch.testing.assert_close(nested.loss, narrow(0.1, PPOClip())(batch).loss)
    whole = narrow(0.1, PPOClip())(changed(batch, weights=None))
    torch.testing.assert_close(nested.loss, whole.loss / 2)


@given(SEEDS)
def test_what_is_told_is_what_float64_says(seed):
    batch = made(seed)
    told = PPOClip(low=0.2, high=0.2)(batch).told.read()
    if not batch.mask.any():
        return
    log_ratio = (batch.current - batch.behaviour).detach()[batch.mask]
    ratio, by, count = log_ratio.exp(), batch.advantages[batch.mask], len(log_ratio)
    out = ((ratio > 1.2) & (by > 0)) | ((ratio < 0.8) & (by < 0))
    expected = {
        "tokens": count,
        "clipped": out.double().mean().item(),
        "masked": 0.0,
        "mean_ratio": ratio.mean().item(),
        "effective": (ratio.sum() ** 2 / (count * (ratio**2).sum())).item(),
        "kl": (ratio - 1 - log_ratio).mean().item(),
        "second_moment": (log_ratio**2).mean().item(),
    }
    assert told == pytest.approx(expected)


# Laws of all.


@pytest.mark.parametrize("correction", ALL, ids=repr)
@given(seed=SEEDS, of_tokens=st.booleans())
def test_new_samples_give_the_plain_policy_gradient(correction, seed, of_tokens):
    batch = made(seed, of_tokens=of_tokens)
    same = batch.current.detach()
    batch = changed(batch, behaviour=same, proximal=same)
    corrected, found = gradient(correction, batch)
    if not batch.mask.any():
        return
    average = getattr(correction, "inside", correction).average
    plain = averaged(-batch.current * advantages(batch), batch.mask, average)
    torch.testing.assert_close(found, torch.autograd.grad(plain, batch.current)[0])
    told = corrected.told.read()
    assert told["clipped"] == told["masked"] == told["kl"] == told["second_moment"] == 0.0
    assert told["mean_ratio"] == told["effective"] == 1.0


@pytest.mark.parametrize("correction", ALL, ids=repr)
@given(seed=SEEDS)
def test_weights_are_what_the_policy_gradient_is_multiplied_by(correction, seed):
    batch = made(seed)
    corrected = correction(batch)
    (found,) = torch.autograd.grad(corrected.losses.sum(), batch.current)
    torch.testing.assert_close(found, -corrected.weights * batch.advantages * batch.mask)
    assert not corrected.weights.requires_grad


@pytest.mark.parametrize("correction", ALL, ids=repr)
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_padding_never_matters(correction, junk):
    batch = made(3)
    clean, slope = gradient(correction, batch)
    names = ("current", "behaviour", "proximal", "advantages")
    dirty = changed(
        batch,
        **{name: getattr(batch, name).detach().masked_fill(~batch.mask, junk) for name in names},
    )
    found, gradients = gradient(correction, dirty)
    assert torch.equal(found.loss, clean.loss) and torch.equal(gradients, slope)
    assert torch.equal(found.losses, clean.losses) and torch.equal(found.weights, clean.weights)
    assert found.told.read() == clean.told.read()


@pytest.mark.parametrize("correction", ALL, ids=repr)
@pytest.mark.parametrize("sizes", [(3, 4), (0, 4), (3, 0), (0, 0)])
def test_a_batch_without_tokens_has_a_loss_and_a_gradient_of_zero(correction, sizes):
    full = torch.full(sizes, math.nan)
    batch = Batch(
        current=full.clone().requires_grad_(),
        behaviour=full,
        advantages=full[:, 0] if sizes[1] else full,
        mask=torch.zeros(sizes),
        proximal=full,
    )
    corrected, found = gradient(correction, batch)
    assert corrected.loss.item() == 0.0 and torch.equal(found, torch.zeros(sizes))
    assert set(corrected.told.read().values()) == {0.0}


@pytest.mark.parametrize("average", AVERAGES)
def test_a_batch_of_which_nothing_is_left_has_a_loss_and_a_gradient_of_zero(average):
    inside = PPOClip(average=average)
    batch = changed(made(5), behaviour=made(5).behaviour + 3)
    corrected, found = gradient(SequenceMask(low=-0.1, high=0.1, inside=inside), batch)
    assert corrected.loss.item() == 0.0 and not found.any()
    assert corrected.told.read()["masked"] == 1.0


@pytest.mark.parametrize("correction", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("apart", [-9e3, 9e3])
def test_ratios_never_overflow(correction, dtype, apart):
    batch = made(7, dtype=dtype)
    batch = changed(batch, behaviour=batch.behaviour + apart, proximal=batch.behaviour)
    corrected, found = gradient(correction, batch)
    assert corrected.loss.isfinite() and corrected.loss.dtype == torch.float32
    assert corrected.weights.isfinite().all() and found.dtype == dtype
    assert all(map(math.isfinite, corrected.told.read().values()))


@pytest.mark.parametrize("correction", ALL, ids=repr)
def test_half_precision_is_computed_in_single(correction):
    low = made(8, dtype=torch.bfloat16)
    named = ("behaviour", "proximal", "advantages")
    high = changed(
        low, current=low.current.double(), **{one: getattr(low, one).double() for one in named}
    )
    assert correction(low).loss.item() == pytest.approx(correction(high).loss.item(), rel=1e-4)


def test_a_ratio_at_the_bound_still_has_a_gradient():
    # A token that became far more likely and has to become less so: PPO never clips it.
    batch = Batch(
        current=torch.zeros(1, 1, requires_grad=True),
        behaviour=torch.full((1, 1), -50.0),
        advantages=-torch.ones(1),
        mask=torch.ones(1, 1),
    )
    corrected, found = gradient(PPOClip(), batch)
    assert found.item() == pytest.approx(math.exp(LOG_RATIO_BOUND))
    assert corrected.told.read()["clipped"] == 0.0


@pytest.mark.parametrize("correction", ALL, ids=repr)
def test_only_current_gets_gradients(correction):
    batch = made(9)
    others = {
        name: getattr(batch, name).clone().requires_grad_()
        for name in ("behaviour", "proximal", "advantages")
    }
    correction(changed(batch, **others)).loss.backward()
    assert all(other.grad is None for other in others.values())


@pytest.mark.parametrize("average", AVERAGES)
def test_parts_of_a_batch_add_up_to_the_whole(average):
    batch = made(10)
    rows = int(batch.mask.any(1).sum())
    total = {"tokens": batch.mask.sum(), "sequences": rows}[average]
    parts = [
        Batch(
            current=batch.current[part],
            behaviour=batch.behaviour[part],
            advantages=batch.advantages[part],
            mask=batch.mask[part],
            total=total,
        )
        for part in (slice(0, 1), slice(1, 4))
    ]
    correction = PPOClip(average=average)
    together = sum(correction(part).loss for part in parts)
    torch.testing.assert_close(together, correction(batch).loss)


@pytest.mark.parametrize("correction", [PPOClip(), Truncated(), Decoupled(), M2PO()], ids=repr)
def test_nan_at_a_token_that_counts_is_not_hidden(correction):
    batch = made(11)
    behaviour = batch.behaviour.masked_fill(batch.mask, math.nan)
    assert correction(changed(batch, behaviour=behaviour)).loss.isnan()


@pytest.mark.parametrize("name", ["current", "behaviour"])
def test_nan_in_a_sequence_that_is_masked_is_told_and_stays_out_of_gradients(name):
    batch = made(12)
    broken = getattr(batch, name).detach().clone()
    broken[0] = math.nan
    correction = SequenceMask(low=-9.0, high=9.0, inside=PPOClip())
    corrected, found = gradient(correction, changed(batch, **{name: broken}))
    assert corrected.loss.isfinite() and found.isfinite().all() and not found[0].any()
    assert math.isnan(corrected.told.read()["mean_ratio"])


# Single functions and what is refused.


def test_log_ratios_are_held_and_detached():
    found = log_ratios(torch.tensor([100.0, 1.0], requires_grad=True), torch.tensor([0.0, 3.0]))
    assert found.tolist() == [LOG_RATIO_BOUND, -2.0] and not found.requires_grad


def test_sequence_weights_are_those_of_means_over_tokens_that_count():
    log_ratio = torch.tensor([[0.3, 0.1, math.nan], [0.3, 0.3, 0.0], [math.nan] * 3])
    mask = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 0]])
    found = sequence_mask(log_ratio, mask, low=-0.25, high=0.25)
    assert found[:, 0].tolist() == [1.0, 0.0, 1.0] and found.shape == (3, 3)


@pytest.mark.parametrize(
    ("make", "need"),
    [
        (lambda: PPOClip(low=-0.1), "low between 0 and 1"),
        (lambda: PPOClip(low=1.5), "low between 0 and 1"),
        (lambda: Decoupled(high=math.nan), "high .* at least 0"),
        (lambda: Decoupled(cap=0.5), "cap at least 1"),
        (lambda: Truncated(cap=math.nan), "cap at least 1"),
        (lambda: M2PO(tau=-1.0), "tau at least 0"),
        (lambda: SequenceMask(low=0.1, high=0.2, inside=PPOClip()), "0 between them"),
        (lambda: PPOClip(average="words"), 'average="tokens" or "sequences"'),
        (lambda: Decoupled()(changed(made(1), proximal=None)), "a proximal policy"),
        (lambda: changed(made(1), mask=torch.ones(4, 5)), r"mask of shape \(4, 6\)"),
        (lambda: changed(made(1), proximal=torch.ones(4)), r"proximal of shape \(4, 6\)"),
        (lambda: changed(made(1), advantages=torch.ones(6)), r"advantages of shape .* or \(4,\)"),
        (lambda: changed(made(1), current=torch.ones(4)), r"sequences \[B, T\]"),
    ],
)
def test_what_cannot_be_is_refused(make, need):
    with pytest.raises(InputError, match=need):
        make()
