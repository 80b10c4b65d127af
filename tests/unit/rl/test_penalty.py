"""Divergences and their gradients, against policies small enough to enumerate."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.rl.compensation import DelayCompensation
from weft.rl.corrections import M2PO, Batch, PPOClip, SequenceMask, Truncated
from weft.rl.penalty import KLPenalty, matched_strength
from weft.rl.versions import Versions

ESTIMATORS = ("k2", "k3", "reverse")
SEEDS = st.integers(0, 10_000)
PLAIN = Truncated(cap=math.inf)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def penalty_of(estimator, strength=1.0, inside=PLAIN):
    return KLPenalty(strength=strength, inside=inside, estimator=estimator)


def one_token(current, behaviour, estimator):
    """Expected gradient in the logits of a policy over one token, by enumeration."""
    logits = current.clone().requires_grad_()
    for action, chance in enumerate(behaviour.softmax(0)):
        batch = Batch(
            current=logits.log_softmax(0)[action].reshape(1, 1),
            behaviour=behaviour.log_softmax(0)[action].reshape(1, 1),
            advantages=torch.zeros(1),
            mask=torch.ones(1, 1),
        )
        (chance * penalty_of(estimator)(batch).loss).backward()
    return logits.grad


def divergence(first, second):
    return (first.softmax(-1) * (first.log_softmax(-1) - second.log_softmax(-1))).sum(-1)


def slope(of, at):
    at = at.clone().requires_grad_()
    return torch.autograd.grad(of(at), at)[0]


@given(SEEDS)
def test_k3_has_the_gradient_of_the_divergence_of_behaviour(seed):
    current, behaviour = draw(seed, 2, 4)
    found = one_token(current, behaviour, "k3")
    torch.testing.assert_close(found, slope(lambda at: divergence(behaviour, at), current))


@given(SEEDS)
def test_reverse_has_the_gradient_of_the_divergence_from_behaviour(seed):
    current, behaviour = draw(seed, 2, 4)
    found = one_token(current, behaviour, "reverse")
    torch.testing.assert_close(found, slope(lambda at: divergence(at, behaviour), current))


@given(SEEDS)
def test_k2_has_neither_far_away(seed):
    current, behaviour = draw(seed, 2, 4)
    found = one_token(3 * current, behaviour, "k2")
    for of in (lambda at: divergence(behaviour, at), lambda at: divergence(at, behaviour)):
        assert not torch.allclose(found, slope(of, 3 * current), rtol=1e-3)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_all_pull_by_the_fisher_information_to_second_order(estimator):
    behaviour, move = draw(1, 2, 4)
    chances = behaviour.softmax(0)
    fisher = torch.diag(chances) - torch.outer(chances, chances)
    errors = []
    for size in (1e-2, 1e-3):
        pull = one_token(behaviour + size * move, behaviour, estimator)
        errors.append((pull / size - fisher @ move).norm().item())
    # What is left is of the next order, or of the one after it: a tenth of the move leaves a tenth.
    assert errors[0] < 0.05 and errors[1] < 0.11 * errors[0]


def sequences(current, behaviour, estimator):
    """The same for two tokens, the second of which depends on the first: logits [1 + 3, 3]."""
    logits = current.clone().requires_grad_()
    for first, second in itertools.product(range(3), repeat=2):
        rows, actions = [0, 1 + first], [first, second]
        old = behaviour.log_softmax(-1)[rows, actions]
        batch = Batch(
            current=logits.log_softmax(-1)[rows, actions][None],
            behaviour=old[None],
            advantages=torch.zeros(1),
            mask=torch.ones(1, 2),
            total=1.0,  # a sum over tokens
        )
        (old.sum().exp() * penalty_of(estimator)(batch).loss).backward()
    return logits.grad


def whole(first, second):
    """Divergence of sequences, by the chain rule."""
    return (
        divergence(first[0], second[0])
        + (first[0].softmax(0) * divergence(first[1:], second[1:])).sum()
    )


@given(SEEDS)
def test_only_k3_adds_up_to_the_divergence_of_sequences(seed):
    current, behaviour = draw(seed, 2, 4, 3)
    found = sequences(current, behaviour, "k3")
    torch.testing.assert_close(found, slope(lambda at: whole(behaviour, at), current))
    found = sequences(current, behaviour, "reverse")
    wrong = slope(lambda at: whole(at, behaviour), current)
    assert not torch.allclose(found, wrong, rtol=1e-3)


# Delay compensation.


def bernoulli(weights, chosen):
    """Log-probabilities of choices [B, T], each with a weight of its own: F is diagonal."""
    return torch.nn.functional.logsigmoid(torch.where(chosen, weights, -weights))


def batches_of(old, now, count):
    """Every batch of `count` sequences with advantages of +-1 that know nothing, and its chance."""
    tokens = len(old)
    for bits in itertools.product((False, True), repeat=count * tokens):
        chosen = torch.tensor(bits).reshape(count, tokens)
        behaviour = bernoulli(old, chosen)
        for signs in itertools.product((-1.0, 1.0), repeat=count):
            batch = Batch(
                current=bernoulli(now, chosen),
                behaviour=behaviour,
                advantages=torch.tensor(signs, dtype=torch.float64),
                mask=torch.ones(count, tokens),
            )
            yield batch, behaviour.sum().exp() * 0.5**count


def pull_of_compensation(old, move, count, strength, clip_scale):
    """What the real optimizer adds to gradients, on the average."""
    pulls = torch.zeros_like(old)
    for bits, chance in _choices(old, count):
        weight = torch.nn.Parameter((old + move).clone())
        optimizer = torch.optim.SGD([weight], lr=0.0)
        versions = Versions(keep=2)
        optimizer = DelayCompensation(
            optimizer, versions, strength=strength, form="raw", publish=False
        )
        versions.publish(-1, [old])
        chosen, signs = bits
        batch = Batch(
            current=bernoulli(weight, chosen),
            behaviour=bernoulli(old, chosen),
            advantages=signs,
            mask=torch.ones_like(chosen),
        )
        (clip_scale * PLAIN(batch).loss).backward()
        before = weight.grad.clone()
        optimizer.staleness = 1
        optimizer.step()
        pulls += chance * (weight.grad - before)
    return pulls


def _choices(old, count):
    for bits in itertools.product((False, True), repeat=count * len(old)):
        chosen = torch.tensor(bits).reshape(count, len(old))
        chance = bernoulli(old, chosen).sum().exp() * 0.5**count
        for signs in itertools.product((-1.0, 1.0), repeat=count):
            yield (chosen, torch.tensor(signs, dtype=torch.float64)), chance


@pytest.mark.parametrize(("count", "strength", "clip_scale"), [(1, 5.0, 1.0), (2, 300.0, 0.4)])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_matched_penalties_pull_as_compensation_does(estimator, count, strength, clip_scale):
    old = torch.tensor([0.3, -1.1], dtype=torch.float64)
    errors = []
    for size in (1e-2, 1e-3):
        move = size * torch.tensor([1.0, -0.6], dtype=torch.float64)
        expected = pull_of_compensation(old, move, count, strength, clip_scale)
        weight = (old + move).requires_grad_()
        pull = torch.zeros_like(old)
        for batch, chance in batches_of(old, weight, count):
            with torch.no_grad():
                matched = matched_strength(strength, batch, PLAIN, clip_scale=clip_scale)
            with_it, without = penalty_of(estimator, matched), PLAIN
            added = with_it(batch).loss - without(batch).loss
            pull += chance * torch.autograd.grad(clip_scale * added, weight, retain_graph=True)[0]
        errors.append(((pull - expected).norm() / expected.norm()).item())
    assert errors[0] < 0.05 and errors[1] < 0.2 * errors[0]


def made(seed=0, rows=4, columns=6, apart=0.3):
    current = -draw(seed, rows, columns).abs()
    mask = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.7
    return Batch(
        current=current.requires_grad_(),
        behaviour=(current + apart * draw(seed + 1, rows, columns)).detach(),
        advantages=draw(seed + 2, rows),
        mask=mask,
    )


def with_more(batch, **more):
    return Batch(**{name: getattr(batch, name) for name in Batch.__slots__} | more)


def gradient(correction, batch):
    corrected = correction(batch)
    return corrected, torch.autograd.grad(corrected.loss, batch.current)[0]


def test_without_lag_the_matched_strength_is_one_over_tokens():
    batch = made(apart=0.0)
    batch = with_more(batch, advantages=batch.advantages.sign())
    tokens = int(batch.mask.sum())
    assert matched_strength(3.0, batch, PPOClip()) == pytest.approx(3.0 / tokens)
    larger = with_more(batch, advantages=2 * batch.advantages)
    assert matched_strength(3.0, larger, PPOClip()) == pytest.approx(4 * 3.0 / tokens)
    found = matched_strength(3.0, batch, PPOClip(), clip_scale=0.5)
    assert found == pytest.approx(1.5 / tokens)


@pytest.mark.parametrize("average", ["tokens", "sequences"])
def test_parts_of_a_step_are_matched_as_the_whole(average):
    inside = PPOClip(average=average)
    batch = made(apart=0.0)
    batch = with_more(batch, advantages=batch.advantages.sign(), mask=torch.ones(4, 6))
    total = {"tokens": 24, "sequences": 4}[average]
    part = Batch(
        current=batch.current[:1],
        behaviour=batch.behaviour[:1],
        advantages=batch.advantages[:1],
        mask=batch.mask[:1],
        total=total,
    )
    expected = matched_strength(1.0, batch, inside)
    assert matched_strength(1.0, part, inside) == pytest.approx(expected)


# Laws of the loss.


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("average", ["tokens", "sequences"])
@given(seed=SEEDS)
def test_the_penalty_is_what_autograd_makes_of_its_formula(estimator, average, seed):
    batch = made(seed)
    if not batch.mask.any():
        return
    inside = PPOClip(average=average)
    corrected, found = gradient(penalty_of(estimator, 0.7, inside), batch)
    log_ratio = batch.current - batch.behaviour
    ratio = log_ratio.exp()
    values = {
        "k2": log_ratio**2 / 2,
        "k3": ratio - 1 - log_ratio,
        "reverse": ratio * log_ratio - ratio + 1,
    }[estimator]
    rows = [values[b][batch.mask[b]] for b in range(4) if batch.mask[b].any()]
    means = torch.cat(rows) if average == "tokens" else torch.stack([row.mean() for row in rows])
    expected = inside(batch).loss + 0.7 * means.mean()
    torch.testing.assert_close(corrected.loss, expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, batch.current)[0])
    torch.testing.assert_close(corrected.losses, inside(batch).losses + 0.7 * values * batch.mask)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_new_samples_are_left_alone_one_by_one(estimator):
    batch = made(apart=0.0)
    plain, expected = gradient(PPOClip(), batch)
    corrected, found = gradient(penalty_of(estimator, 9.0, PPOClip()), batch)
    assert torch.equal(found, expected) and torch.equal(corrected.loss, plain.loss)


def test_a_strength_of_0_is_the_correction_inside():
    batch = with_more(made(), behaviour=torch.full((4, 6), math.nan, dtype=torch.float64))
    batch = with_more(batch, weights=torch.zeros(4, 6))
    corrected, found = gradient(penalty_of("k3", 0.0, M2PO()), batch)
    assert corrected.loss.item() == 0.0 and not found.any()


def test_tokens_that_the_inner_correction_masks_are_pulled_and_outer_masks_are_kept():
    mask = SequenceMask(low=-1e-9, high=1e-9, inside=PPOClip())
    batch = made(apart=0.5)
    _, pulled = gradient(penalty_of("k3", 1.0, mask), batch)
    assert torch.equal(pulled != 0, batch.mask)
    outer = SequenceMask(low=-1e-9, high=1e-9, inside=penalty_of("k3", 1.0, PPOClip()))
    _, left = gradient(outer, batch)
    assert not left.any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_padding_never_matters(estimator, junk):
    batch = made(3)
    clean, expected = gradient(penalty_of(estimator, 0.3), batch)
    dirty = with_more(
        batch,
        current=batch.current.detach().masked_fill(~batch.mask, junk).requires_grad_(),
        behaviour=batch.behaviour.masked_fill(~batch.mask, junk),
    )
    found, slopes = gradient(penalty_of(estimator, 0.3), dirty)
    assert torch.equal(found.loss, clean.loss) and torch.equal(slopes, expected)


@pytest.mark.parametrize("name", ["current", "behaviour"])
def test_nan_that_is_masked_from_outside_stays_out_of_loss_and_gradients(name):
    batch = made(12)
    broken = getattr(batch, name).detach().clone()
    broken[0] = math.nan
    weights = torch.ones(4, 6)
    weights[0] = 0.0
    if name == "current":
        broken.requires_grad_()
    corrected, found = gradient(
        penalty_of("k3"), with_more(batch, **{name: broken, "weights": weights})
    )
    assert corrected.loss.isfinite() and found.isfinite().all() and not found[0].any()


def test_nan_at_a_token_that_counts_is_not_hidden():
    batch = made(4)
    broken = with_more(batch, behaviour=batch.behaviour.masked_fill(batch.mask, math.nan))
    assert penalty_of("k3")(broken).loss.isnan()


def test_weights_and_what_is_told_are_the_inner_corrections():
    batch = made(5)
    plain, corrected = PPOClip()(batch), penalty_of("k3", 0.5, PPOClip())(batch)
    assert torch.equal(plain.weights, corrected.weights)
    assert plain.told.read() == corrected.told.read()
    added = (corrected.loss - plain.loss).item()
    assert added == pytest.approx(0.5 * plain.told.read()["kl"])


def test_penalties_around_masks_and_penalties_know_the_mean():
    inner = penalty_of("k2", 1.0, SequenceMask(low=-9, high=9, inside=PPOClip(average="sequences")))
    batch = made(6)
    twice = KLPenalty(strength=1.0, inside=inner, estimator="k2")(batch).loss
    alone = PPOClip(average="sequences")(batch).loss
    torch.testing.assert_close(twice - alone, 2 * (inner(batch).loss - alone))


@pytest.mark.parametrize(
    ("make", "need"),
    [
        (lambda: penalty_of("k1"), "k3"),
        (lambda: penalty_of("k3", -1.0), "at least 0"),
        (lambda: penalty_of("k3", math.nan), "finite"),
        (lambda: KLPenalty(strength=1.0, inside=PPOClip(), average="sequences"), "as the loss"),
        (lambda: KLPenalty(strength=1.0, inside=lambda batch: batch), "average="),
        (lambda: matched_strength(1.0, with_more(made(), mask=torch.zeros(4, 6)), PLAIN), "tokens"),
        (lambda: matched_strength(math.inf, made(), PLAIN), "finite numbers"),
    ],
)
def test_what_cannot_be_is_refused(make, need):
    with pytest.raises(InputError, match=need):
        make()
