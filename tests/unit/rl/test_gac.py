"""GAC in one process: what it does to gradients, and what it leaves alone."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.unit.rl.known import backward, equal, give, make_model, train, weights
from weft.core.errors import InputError
from weft.rl import GAC, Applied, Ema, Previous, Regime, Thresholds

REFERENCES = [Ema(), Ema(decay=0.0), Previous(), Applied(count=3)]


def names(value):
    return type(value).__name__ + str(getattr(value, "decay", ""))


def parameter(*values, dtype=torch.float32):
    return nn.Parameter(torch.tensor(values, dtype=dtype))


def made(weight, **options):
    return GAC(torch.optim.SGD([weight], lr=1.0), **options)


def stepped(gac, *gradients):
    """What was applied of each gradient."""
    weight, found = gac.parameters()[0], []
    for gradient in gradients:
        weight.grad = torch.tensor(gradient, dtype=weight.dtype)
        gac.step()
        found.append(weight.grad.tolist())
    return found


def test_the_default_reference_is_a_mean_of_gradients_as_they_came():
    gac = made(parameter(0.0, 0.0))
    found = stepped(gac, [2.0, 0.0], [2.0, 4.0], [0.0, 3.0])
    # References: [2, 0], then [2, 2] although only [0, 4] of the second was applied.
    assert found == [[2.0, 0.0], [0.0, 4.0], [-1.5, 1.5]]
    assert gac.last.cosine_raw == pytest.approx(math.sqrt(0.5))
    assert gac.last.cosine_applied == pytest.approx(0.0, abs=1e-12)
    assert (gac.last.norm_raw, gac.last.norm_applied) == pytest.approx((3.0, 1.5 * math.sqrt(2)))
    assert gac.parameters()[0].tolist() == [-0.5, -5.5]


def test_the_previous_gradient_counts_as_it_came():
    assert stepped(
        made(parameter(0.0, 0.0), reference=Previous()), [1.0, 0.0], [1.0, 1.0], [0.0, 2.0]
    ) == [
        [1.0, 0.0],
        [0.0, 1.0],
        [-1.0, 1.0],
    ]


def test_applied_gradients_count_as_they_were_applied_and_the_oldest_goes():
    gac = made(parameter(0.0, 0.0, 0.0), reference=Applied(count=2))
    found = stepped(gac, [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    assert found[:3] == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert found[3] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("synchronise", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    ("reference", "mode"),
    [
        *itertools.product([Ema(), Previous()], ["orthogonal", "cap", "shrink"]),
        (Applied(count=2), "orthogonal"),
        (Applied(count=2), "shrink"),
    ],
)
def test_of_a_gradient_that_repeats_nothing_is_left_not_even_rounding(
    reference, mode, compiled, synchronise
):
    options = {"reference": reference, "mode": mode, "compiled": compiled}
    if mode == "cap":
        options["cosine_low"] = 0.3
    weight = nn.Parameter(torch.zeros(5000))
    gac = made(weight, synchronise=synchronise, **options)
    one = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    found = []
    for factor in (1.0, 2.3, 0.7, 1.9):
        weight.grad = one * factor
        gac.step()
        found.append(bool(weight.grad.any()))
        assert (gac.last.norm_applied > 0.0) is found[-1]
    # Two that were applied as zeros are no reference, so the last is a first one again.
    assert found == [True, False, False, not reference.is_raw]


def test_rounding_of_what_was_taken_out_is_no_reference():
    weight = parameter(*[0.0] * 5000)
    gac = made(weight, reference=Applied(count=1), compiled=False)
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(5000, generator=generator)
    other = torch.randn(5000, generator=generator)
    for gradient in (one, 2.3 * one, other):
        weight.grad = gradient.clone()
        gac.step()
    assert gac.last.regime is Regime.FIRST and torch.equal(weight.grad, other)


def test_gradients_that_turn_away_are_left_alone():
    gac = made(parameter(0.0, 0.0))
    assert stepped(gac, [1.0, 0.0], [-1.0, 0.5]) == [[1.0, 0.0], [-1.0, 0.5]]
    assert gac.last.regime is Regime.SAFE


@pytest.mark.parametrize("synchronise", [True, False])
@pytest.mark.parametrize("reference", REFERENCES, ids=names)
def test_a_threshold_that_is_never_reached_changes_not_a_bit(reference, synchronise):
    plain, model = make_model(), make_model()
    inner = torch.optim.AdamW(model.parameters(), lr=0.05)
    gac = GAC(inner, cosine_low=0.9999, reference=reference, synchronise=synchronise)
    train(plain, torch.optim.AdamW(plain.parameters(), lr=0.05), range(5))
    train(model, gac, range(5))
    assert gac.counts[Regime.PROJECT] == 0
    assert equal(weights(plain), weights(model))


@pytest.mark.parametrize("mode", ["orthogonal", "cap", "shrink"])
@pytest.mark.parametrize("per", ["model", "group", "parameter"])
@pytest.mark.parametrize("reference", REFERENCES, ids=names)
def test_deciding_on_the_device_is_the_same_as_on_the_host(reference, per, mode):
    if isinstance(reference, Applied):
        mode = "orthogonal" if mode == "cap" else mode  # the cap takes one reference
    found = []
    for synchronise in (True, False):
        model = make_model()
        groups = [{"params": list(layer.parameters())} for layer in (model[0], model[1], model[3])]
        gac = GAC(
            torch.optim.AdamW(groups, lr=0.02),
            cosine_low=0.1,
            mode=mode,
            per=per,
            reference=reference,
            synchronise=synchronise,
        )
        found.append((train(model, gac, range(8)), weights(model), gac.counts))
    (ones, mine, counts), (others, theirs, other_counts) = found
    assert counts == other_counts and counts[Regime.PROJECT] > 2
    assert len(ones[-1].groups) == {"model": 1, "group": 3, "parameter": 6}[per]
    for one, other in zip(ones, others, strict=True):
        assert one.regime is other.regime
        assert one.cosine_applied == pytest.approx(other.cosine_applied, abs=1e-6)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(mine, theirs, strict=True))


@given(
    st.integers(0, 2**31),
    st.floats(0.0, 0.9),
    st.floats(-1.0, 1.0),
    st.sampled_from(["orthogonal", "cap", "shrink"]),
    st.booleans(),
)
def test_gradients_are_changed_one_sidedly_and_never_grow(seed, low, lean, mode, synchronise):
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.randn(2, 40, generator=generator).unbind()
    raw = other + 3 * lean * one
    weight = parameter(*[0.0] * 40)
    gac = made(weight, cosine_low=low, mode=mode, reference=Previous(), synchronise=synchronise)
    for gradient in (one, raw):
        weight.grad = gradient.clone()
        gac.step()
    cosine = torch.cosine_similarity(raw.double(), one.double(), dim=0).item()
    assert gac.last.cosine_raw == pytest.approx(cosine, abs=1e-6)
    if gac.last.cosine_raw <= low:
        assert torch.equal(weight.grad, raw)
        return
    applied = weight.grad.double()
    wanted = {"orthogonal": 0.0, "cap": low, "shrink": cosine}[mode]
    assert torch.cosine_similarity(applied, one.double(), dim=0) == pytest.approx(wanted, abs=1e-4)
    assert applied.norm() <= raw.double().norm() * (1 + 1e-6)


class Reads(TorchDispatchMode):
    """Counts how often a value of a tensor is asked for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", ["orthogonal", "shrink"])
@pytest.mark.parametrize("reference", REFERENCES, ids=names)
@pytest.mark.parametrize(("synchronise", "moves"), [(True, 1), (False, 0)])
def test_the_host_waits_once_a_step_or_never(monkeypatch, reference, mode, synchronise, moves):
    weight = parameter(0.0, 0.0)
    gac = made(weight, reference=reference, mode=mode, synchronise=synchronise)
    stepped(gac, [1.0, 0.0], [1.0, 1.0])
    weight.grad = torch.tensor([1.0, 2.0])
    moved, to_host = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: moved.append(self) or to_host(self))
    if not synchronise:
        monkeypatch.setattr(torch.Tensor, "tolist", None)
    with torch.no_grad(), Reads() as reads:
        assert gac.before() is True
    assert len(moved) == moves
    if not synchronise:
        assert reads.count == 0
    monkeypatch.undo()
    assert gac.last.regime is Regime.PROJECT


def test_reads_are_counted():
    with Reads() as reads:
        assert torch.ones(()) > 0
    assert reads.count == 1


@pytest.mark.parametrize("low", [0.0, 0.3])
@pytest.mark.parametrize("mode", ["orthogonal", "cap"])
def test_what_is_said_to_be_applied_is_what_the_optimizer_gets(mode, low):
    model = make_model()
    gac = GAC(torch.optim.SGD(model.parameters(), lr=0.02), low, mode=mode, reference=Previous())
    before, projected = None, 0
    for step in range(8):
        gac.zero_grad()
        backward(model, step)
        raw = torch.cat([p.grad.flatten() for p in model.parameters()])
        gac.step()
        applied = torch.cat([p.grad.flatten() for p in model.parameters()])
        if gac.last.regime is Regime.PROJECT:
            projected += 1
            cosine = torch.cosine_similarity(applied, before, dim=0).item()
            assert cosine == pytest.approx(low if mode == "cap" else 0.0, abs=1e-5)
            assert cosine == pytest.approx(gac.last.cosine_applied, abs=1e-5)
            assert applied.norm().item() == pytest.approx(gac.last.norm_applied, rel=1e-5)
            assert applied.norm() < raw.norm()
        before = raw
    assert projected > 2


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.02),
    "foreach": lambda p: torch.optim.AdamW(p, lr=0.02, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.02, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.02),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_any_optimizer_gets_the_projected_gradient(make):
    model, other = make_model(), make_model()
    gac, bare = GAC(make(model.parameters())), make(other.parameters())
    for step in range(5):
        gac.zero_grad()
        backward(model, step)
        gac.step()
        give(other.parameters(), *[p.grad for p in model.parameters()])
        bare.step()
    assert gac.counts[Regime.PROJECT] > 1
    assert equal(weights(model), weights(other))


def test_several_backward_passes_before_a_step_are_one_gradient():
    model, other = make_model(), make_model()
    gac, same = (GAC(torch.optim.SGD(m.parameters(), lr=0.02)) for m in (model, other))
    for step in range(4):
        gac.zero_grad()
        same.zero_grad()
        for part in (0, 1, 2):
            backward(model, 3 * step + part)
        sum_of = [
            torch.autograd.grad(_loss(other, 3 * step + part), list(other.parameters()))
            for part in (0, 1, 2)
        ]
        give(other.parameters(), *[a + b + c for a, b, c in zip(*sum_of, strict=True)])
        gac.step()
        same.step()
    assert sum(gac.counts.values()) == 4
    assert all(torch.allclose(a, b) for a, b in zip(weights(model), weights(other), strict=True))


def _loss(model, step):
    from tests.unit.rl.known import batch

    inputs, targets = batch(step)
    return (model(inputs) - targets).square().mean()


@pytest.mark.parametrize("synchronise", [True, False])
@pytest.mark.parametrize("reference", REFERENCES, ids=names)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_passed_on_and_history_begins_anew(
    bad, reference, synchronise
):
    weight = parameter(0.0, 0.0)
    gac = made(weight, reference=reference, synchronise=synchronise)
    assert stepped(gac, [1.0, 1.0], [1.0, 1.5])[1] != [1.0, 1.5]
    weight.grad = torch.tensor([bad, 1.0])
    gac.step()
    assert str(weight.grad.tolist()) == str([bad, 1.0])
    assert gac.last.regime is Regime.INVALID
    weight.data.zero_()
    assert stepped(gac, [1.0, 1.0]) == [[1.0, 1.0]]
    assert gac.last.regime is Regime.FIRST
    fresh = made(parameter(0.0, 0.0), reference=reference, synchronise=synchronise)
    stepped(fresh, [1.0, 1.0])
    for gradient in ([0.5, 2.0], [2.0, 1.0]):
        assert stepped(gac, gradient) == stepped(fresh, gradient)


@pytest.mark.parametrize("synchronise", [True, False])
def test_a_zero_gradient_is_safe_and_does_not_end_anything(synchronise):
    gac = made(parameter(0.0, 0.0), synchronise=synchronise)
    assert stepped(gac, [0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]) == [
        [0.0, 0.0],
        [1.0, 0.0],
        [0.0, 0.0],
        [0.0, 1.0],
    ]
    assert gac.counts[Regime.FIRST] == 2 and gac.counts[Regime.SAFE] == 1


def test_parameters_without_gradients_are_not_looked_at():
    one, other = parameter(0.0, 0.0), parameter(5.0)
    gac = GAC(torch.optim.SGD([one, other], lr=1.0))
    give((one, other), [1.0, 0.0], None)
    gac.step()
    give((one, other), [1.0, 1.0], None)
    gac.step()
    assert one.grad.tolist() == [0.0, 1.0] and other.grad is None and other.item() == 5.0


def test_a_changed_set_of_parameters_begins_anew():
    one, other = parameter(0.0, 0.0), parameter(5.0)
    gac = GAC(torch.optim.SGD([one, other], lr=1.0))
    regimes = []
    for gradient in (None, None, [1.0], [1.0], None):
        give((one, other), [1.0, 1.0], gradient)
        gac.step()
        regimes.append(gac.last.regime)
    first, project = Regime.FIRST, Regime.PROJECT
    assert regimes == [first, project, first, project, first]


def test_a_step_without_any_gradient_does_nothing():
    gac = made(parameter(1.0))
    gac.step()
    assert gac.last.regime is Regime.FIRST and gac.parameters()[0].item() == 1.0


def test_a_group_added_later_begins_anew():
    one, other = parameter(0.0, 0.0), parameter(0.0)
    gac = GAC(torch.optim.SGD([one], lr=1.0), per="group")
    stepped(gac, [1.0, 0.0])
    gac.add_param_group({"params": [other], "lr": 0.5})
    give((one, other), [1.0, 1.0], [1.0])
    gac.step()
    assert gac.last.regime is Regime.FIRST and len(gac.last.groups) == 2
    assert (one.tolist(), other.item()) == ([-2.0, -1.0], -0.5)


def test_few_trainable_parameters_of_a_large_model():
    model = make_model()
    for one in model[0].parameters():
        one.requires_grad_(False)
    frozen = weights(model[0])
    gac = GAC(torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02))
    train(model, gac, range(5))
    assert gac.counts[Regime.PROJECT] > 1
    assert equal(frozen, weights(model[0]))


def test_only_stale_gradients_are_changed():
    gac = made(parameter(0.0, 0.0))
    gac.staleness = 0
    assert stepped(gac, [1.0, 0.0], [1.0, 1.0])[1] == [1.0, 1.0]
    assert (gac.last.regime, gac.last.staleness) == (Regime.SAFE, 0)
    assert gac.last.cosine_raw == gac.last.cosine_applied > 0.5
    gac.staleness = 0.5
    assert stepped(gac, [1.0, 0.5]) == [[0.0, 0.0]]
    assert (gac.last.regime, gac.last.staleness) == (Regime.PROJECT, 0.5)


def test_steps_above_the_upper_threshold_are_skipped_as_often_as_they_may():
    weight = parameter(0.0, 0.0)
    gac = made(weight, cosine_high=0.9)
    seen = []
    for _ in range(5):
        weight.grad = torch.tensor([1.0, 0.0])
        before = weight.tolist()
        gac.step()
        seen.append((gac.last.regime.name, weight.tolist() == before))
    assert seen[0] == ("FIRST", False)
    assert [name for name, _ in seen[1:]] == ["SKIP", "PROJECT", "SKIP", "PROJECT"]
    assert seen[1][1] and seen[3][1]


def test_skipping_that_becomes_a_habit_ends_with_a_warning():
    weight = parameter(0.0, 0.0)
    bounds = Thresholds(cosine_high=0.9, window=10, window_skips=2, consecutive_skips=5)
    gac = made(weight, thresholds=bounds)
    with pytest.warns(UserWarning, match="No more"):
        stepped(gac, *[[1.0, 0.0]] * 9)
    assert gac.counts[Regime.SKIP] == 3


@pytest.mark.parametrize(
    ("reference", "dtype"),
    [
        (Ema(dtype=torch.bfloat16), torch.bfloat16),
        (Previous(dtype=torch.bfloat16), torch.bfloat16),
        (Applied(count=2, dtype=torch.bfloat16), torch.bfloat16),
        (Ema(device="cpu"), torch.float32),
    ],
)
@pytest.mark.parametrize("synchronise", [True, False])
def test_a_reference_in_another_precision_or_place(reference, dtype, synchronise):
    model, other = make_model(), make_model()
    gac = GAC(
        torch.optim.SGD(model.parameters(), lr=0.02), reference=reference, synchronise=synchronise
    )
    plain = type(reference)(**{**vars(reference), "dtype": None, "device": None})
    train(model, gac, range(5))
    train(other, GAC(torch.optim.SGD(other.parameters(), lr=0.02), reference=plain), range(5))
    kept = [t for p in gac.parameters() for t in gac.history.kept(p)]
    assert {tensor.dtype for tensor in kept} == {dtype}
    assert {tensor.device.type for tensor in kept} == {"cpu"}
    assert all(
        torch.allclose(a, b, atol=0.01) for a, b in zip(weights(model), weights(other), strict=True)
    )


def test_gradients_in_half_precision_are_measured_and_changed_in_float32():
    weight = parameter(*[0.0] * 300, dtype=torch.bfloat16)
    gac = made(weight)
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(300, generator=generator)
    for _ in range(3):
        weight.grad = (base + torch.randn(300, generator=generator)).bfloat16()
        raw = weight.grad.clone()
        reference = [r.clone() for r in gac.history.kept(weight)]
        gac.step()
    factor = gac.last.groups[0].factors[0]
    assert gac.last.regime is Regime.PROJECT
    wanted = (raw.float() - factor * reference[0].float()).bfloat16()
    assert torch.equal(weight.grad, wanted) and weight.grad.dtype is torch.bfloat16


def test_large_tensors_are_worked_on_in_pieces():
    shape = (300, 2100)
    generator = torch.Generator().manual_seed(0)
    ones = [torch.randn(shape, generator=generator) + 1.0 for _ in range(2)]
    for transposed in (False, True):
        weight = nn.Parameter(torch.zeros(shape))
        gac = made(weight, reference=Previous())
        for gradient in ones:
            weight.grad = gradient.T.contiguous().T if transposed else gradient.clone()
            gac.step()
        one, other = (gradient.double() for gradient in ones)
        factor = (one * other).sum() / one.square().sum()
        assert gac.last.groups[0].factors[0] == pytest.approx(factor.item(), rel=1e-7)
        assert torch.allclose(weight.grad, (other - factor * one).float(), atol=1e-6)


def test_deep_copies_go_on_by_themselves():
    model = make_model()
    gac = GAC(torch.optim.AdamW(model.parameters(), lr=0.02))
    train(model, gac, range(3))
    other_model, other = copy.deepcopy((model, gac))
    assert other.parameters()[0] is next(iter(other_model.parameters()))
    train(model, gac, range(3, 6))
    train(other_model, other, range(3, 6))
    assert equal(weights(model), weights(other_model))
    assert other.last == gac.last


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cosine_low": 0.5, "cosine_high": 0.4}, "cosine_low < cosine_high"),
        ({"cosine_low": 0.5, "thresholds": Thresholds()}, "within thresholds"),
        ({"mode": "sideways"}, "'orthogonal'"),
        ({"per": "layer"}, '"parameter"'),
        ({"mode": "cap", "reference": Applied()}, "one reference"),
        ({"cosine_high": 0.9, "per": "parameter"}, "one decision"),
        ({"cosine_high": 0.9, "synchronise": False}, "one decision"),
    ],
)
def test_options_that_cannot_be_are_refused(options, says):
    with pytest.raises(InputError, match=says) as caught:
        made(parameter(0.0), **options)
    assert caught.value.got and caught.value.hint


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Ema(decay=1.0), "decay < 1"),
        (lambda: Ema(decay=-0.1), "decay < 1"),
        (lambda: Applied(count=0), "at least one"),
        (lambda: Previous(dtype=torch.int8), "floating point"),
    ],
)
def test_references_that_cannot_be_are_refused(make, says):
    with pytest.raises(InputError, match=says) as caught:
        make()
    assert caught.value.got and caught.value.hint


def test_sparse_gradients_are_refused():
    layer = nn.Embedding(4, 2, sparse=True)
    gac = GAC(torch.optim.SparseAdam(layer.parameters(), lr=0.1))
    layer(torch.tensor([1])).sum().backward()
    with pytest.raises(InputError, match="dense"):
        gac.step()


@pytest.mark.parametrize("staleness", [-1, float("nan"), float("inf"), "8"])
def test_an_age_that_is_none_is_refused_where_it_is_set(staleness: object) -> None:
    gac = GAC(torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1))
    with pytest.raises(InputError, match="staleness in steps"):
        gac.staleness = staleness  # pyright: ignore[reportAttributeAccessIssue]
    assert gac.staleness is None


@pytest.mark.parametrize("reference", ["ema", Ema])
def test_a_reference_that_is_none_is_refused(reference: object) -> None:
    with pytest.raises(InputError, match="a reference of gradients"):
        GAC(
            torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1),
            reference=reference,  # pyright: ignore[reportArgumentType]
        )


def test_a_step_is_told_in_a_line() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    gac = GAC(torch.optim.SGD([weight], lr=0.1))
    for gradient in ([1.0, 0.0], [3.0, 4.0]):
        weight.grad = torch.tensor(gradient)
        gac.staleness = 2
        gac.step()
    told = "step 2: project, cosine 0.60 -> 0.00, norm 5 -> 4, samples 2 steps old"
    assert str(gac.last) == told
