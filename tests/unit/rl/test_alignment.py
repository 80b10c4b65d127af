"""Decisions, against formulas in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.rl.alignment import Mode, Regime, Thresholds, decide, decide_all, summarise

LOWS = st.floats(0.0, 0.9)
NORMS = st.floats(1e-6, 1e6)
COSINES = st.floats(-0.999, 0.999)
MODES = st.sampled_from(list(Mode))


def decided(g, r, cosine, low=0.0, mode=Mode.ORTHOGONAL, **more):
    return decide(
        g * r * cosine, g * g, r * r, thresholds=Thresholds(cosine_low=low), mode=mode, **more
    )


@given(NORMS, NORMS, COSINES, LOWS, MODES)
def test_the_regime_follows_the_cosine(g, r, cosine, low, mode):
    found = decided(g, r, cosine, low, mode)
    assert found.cosine_raw == pytest.approx(cosine, abs=1e-9)
    assert found.regime is (Regime.PROJECT if found.cosine_raw > low else Regime.SAFE)


@given(NORMS, NORMS, st.floats(-0.999, 0.5), st.floats(0.5, 0.9), MODES)
def test_at_or_below_the_threshold_nothing_changes(g, r, cosine, low, mode):
    found = decided(g, r, cosine, low, mode)
    if found.cosine_raw <= low:
        assert found.factors == (0.0,) and found.scale == 1.0
        assert found.cosine_applied == found.cosine_raw
        assert found.norm_applied == pytest.approx(found.norm_raw)


@given(NORMS, NORMS, st.floats(0.01, 0.999))
def test_orthogonal_takes_out_all_that_is_parallel(g, r, cosine):
    found = decided(g, r, cosine)
    assert found.factors[0] == pytest.approx(cosine * g / r)
    assert found.cosine_applied == pytest.approx(0.0, abs=1e-9)
    assert found.norm_applied == pytest.approx(g * math.sqrt(1 - cosine * cosine))


@given(NORMS, NORMS, st.floats(0.0, 0.8), st.floats(0.01, 0.19))
def test_the_cap_leaves_the_cosine_of_the_threshold(g, r, low, above):
    found = decided(g, r, low + above, low, Mode.CAP)
    assert found.cosine_applied == pytest.approx(low, abs=1e-6)
    across = g * math.sqrt(1 - (low + above) ** 2)
    assert found.norm_applied == pytest.approx(across / math.sqrt(1 - low * low))


@given(NORMS, NORMS, st.floats(0.01, 0.999))
def test_at_a_threshold_of_zero_the_cap_is_the_orthogonal_mode(g, r, cosine):
    assert decided(g, r, cosine, mode=Mode.CAP) == decided(g, r, cosine)


@given(NORMS, NORMS, st.floats(0.01, 0.999))
def test_shrink_cuts_the_norm_as_much_and_keeps_the_direction(g, r, cosine):
    found, other = decided(g, r, cosine, mode=Mode.SHRINK), decided(g, r, cosine)
    assert found.factors == (0.0,)
    assert found.norm_applied == other.norm_applied
    assert found.scale == pytest.approx(math.sqrt(1 - cosine * cosine))
    assert found.cosine_applied == pytest.approx(found.cosine_raw)


@given(NORMS, NORMS, COSINES, LOWS, MODES)
def test_the_norm_never_grows(g, r, cosine, low, mode):
    found = decided(g, r, cosine, low, mode)
    assert found.norm_applied <= found.norm_raw * (1 + 1e-12)


@given(NORMS, MODES)
def test_a_gradient_that_is_the_reference_again_becomes_zero(g, mode):
    found = decide(2 * g * g, g * g, 4 * g * g, thresholds=Thresholds(), mode=mode)
    assert found.regime is Regime.PROJECT
    assert found.norm_applied == pytest.approx(0.0, abs=1e-6 * g)
    if mode is not Mode.SHRINK:
        assert found.cosine_applied == pytest.approx(0.0, abs=1e-6)


def test_above_the_upper_threshold_steps_are_skipped_while_they_may_be():
    bounds = Thresholds(cosine_low=0.1, cosine_high=0.5)
    assert decide(0.6, 1.0, 1.0, thresholds=bounds).regime is Regime.SKIP
    assert decide(0.5, 1.0, 1.0, thresholds=bounds).regime is Regime.PROJECT
    assert decide(0.6, 1.0, 1.0, thresholds=bounds, may_skip=False).regime is Regime.PROJECT
    assert decide(0.6, 1.0, 1.0, thresholds=bounds, may_act=False).regime is Regime.SAFE


def test_without_a_reference_it_is_a_first_step_and_without_a_gradient_a_safe_one():
    assert decide(0.0, 1.0, 0.0, thresholds=Thresholds()).regime is Regime.FIRST
    found = decide(0.0, 0.0, 1.0, thresholds=Thresholds())
    assert (found.regime, found.cosine_raw) == (Regime.SAFE, 0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_invalid(bad):
    for products in ((bad, 1.0, 1.0), (1.0, abs(bad), 1.0)):
        found = decide(*products, thresholds=Thresholds())
        assert found.regime is Regime.INVALID and found.factors == (0.0,)
    assert decide(0.5, 1.0, 1.0, thresholds=Thresholds(), invalid=True).regime is Regime.INVALID


def gram_of(gradient, references):
    rows = torch.stack((gradient, *references)).double()
    return (rows @ rows.T)[None]


def applied(gradient, references, decisions):
    found = decisions.read()[0]
    taken = sum(k * r for k, r in zip(found.factors, references, strict=True))
    return found.scale * gradient - taken


@given(st.integers(0, 2**31), st.integers(1, 5), st.floats(0.0, 0.3))
def test_of_several_references_the_span_of_those_above_the_threshold_goes(seed, count, low):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count + 1, 9, generator=generator, dtype=torch.float64)
    gradient, references = rows[0], list(rows[1:])
    decisions = decide_all(gram_of(gradient, references), thresholds=Thresholds(cosine_low=low))
    used = [r for r in references if torch.cosine_similarity(gradient, r, dim=0) > low]
    wanted = gradient
    if used:
        basis = torch.stack(used, 1)
        wanted = gradient - basis @ torch.linalg.lstsq(basis, gradient[:, None]).solution[:, 0]
    assert torch.allclose(applied(gradient, references, decisions), wanted, atol=1e-9)
    assert decisions.read()[0].norm_applied == pytest.approx(wanted.norm().item(), abs=1e-6)


@given(st.integers(0, 2**31))
def test_references_that_depend_on_others_or_are_zero_change_nothing(seed):
    generator = torch.Generator().manual_seed(seed)
    gradient, one, other = torch.randn(3, 9, generator=generator, dtype=torch.float64).unbind()
    other, one = other + 9 * gradient, one + 9 * gradient  # of a positive cosine
    several = [one, 2 * one, torch.zeros(9, dtype=torch.float64), other, one + other]
    decisions = decide_all(gram_of(gradient, several), thresholds=Thresholds())
    alone = decide_all(gram_of(gradient, [one, other]), thresholds=Thresholds())
    assert torch.allclose(
        applied(gradient, several, decisions), applied(gradient, [one, other], alone), atol=1e-9
    )


def test_groups_decide_by_themselves_and_the_step_is_the_highest():
    gram = torch.tensor(
        [[[1.0, 0.5], [0.5, 1.0]], [[1.0, -0.5], [-0.5, 1.0]], [[1.0, 0.0], [0.0, 0.0]]],
        dtype=torch.float64,
    )
    decisions = decide_all(gram, thresholds=Thresholds())
    assert [found.regime for found in decisions.read()] == [
        Regime.PROJECT,
        Regime.SAFE,
        Regime.FIRST,
    ]
    regime, raw, after, norm_raw, norm_applied = summarise(gram, decisions).tolist()
    assert regime == Regime.PROJECT
    assert (raw, norm_raw) == pytest.approx((0.0, math.sqrt(3.0)))
    assert norm_applied == pytest.approx(math.sqrt(2.75))
    assert after == pytest.approx(-0.5 / math.sqrt(2.75 * 2.0))


@given(NORMS, NORMS, COSINES, LOWS, MODES)
def test_one_group_is_the_whole(g, r, cosine, low, mode):
    gram = torch.tensor([[[g * g, g * r * cosine], [g * r * cosine, r * r]]], dtype=torch.float64)
    decisions = decide_all(gram, thresholds=Thresholds(cosine_low=low), mode=mode)
    found = decisions.read()[0]
    assert summarise(gram, decisions).tolist() == pytest.approx(
        [
            found.regime,
            found.cosine_raw,
            found.cosine_applied,
            found.norm_raw,
            found.norm_applied,
        ],
        abs=1e-6,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"cosine_low": -0.1},
        {"cosine_low": 1.0},
        {"cosine_low": 0.5, "cosine_high": 0.5},
        {"cosine_low": 0.5, "cosine_high": 0.4},
        {"cosine_high": 1.1},
        {"cosine_low": math.nan},
        {"consecutive_skips": 0},
        {"window": 0},
        {"window_skips": 0},
    ],
)
def test_thresholds_out_of_order_are_refused(wrong):
    with pytest.raises(InputError) as caught:
        Thresholds(**wrong)
    (name, value), *_ = reversed(wrong.items())
    assert f"{name} {value}" in caught.value.got and caught.value.hint
