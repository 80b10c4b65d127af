"""Thresholds of late gradients: against closed forms, recursions and the optimizers themselves."""

from __future__ import annotations

from math import inf, pi, sin

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weft.core.errors import InputError
from weft.rl import GAC, Applied, Ema, Previous
from weft.rl.delayed import (
    Delayed,
    Lead,
    applied_factor,
    guaranteed_step,
    mean_factor,
    momentum_cosine,
)

LAGS = st.integers(0, 64)
BETAS = st.sampled_from([0.0, 0.5, 0.9])
LEADS = st.one_of(
    st.builds(Lead.previous, st.floats(0.0, 0.9), back=st.integers(1, 6)),
    st.builds(Lead.mean, st.floats(0.0, 0.9), st.floats(0.0, 0.9)),
    st.builds(Lead.applied, st.floats(0.0, 0.2), st.integers(1, 4)),
)


@given(LAGS)
def test_without_momentum_the_threshold_is_the_classical_one(lag):
    assert Delayed(lag=lag).largest_step() == pytest.approx(2 * sin(pi / (4 * lag + 2)), rel=1e-9)


@pytest.mark.parametrize(
    ("beta", "cosine", "expected"),
    [
        (0.0, 0.0, (0.347, 0.185, 0.095)),
        (0.9, 0.0, (0.265, 0.139, 0.075)),
        (0.9, 0.5, (0.334, 0.155, 0.079)),
        (0.9, 0.7, (0.443, 0.178, 0.084)),
        (0.9, 0.9, (0.347, 0.185, 0.095)),
    ],
)
def test_momentum_and_a_lead_of_one_step(beta, cosine, expected):
    lead = Lead.previous(cosine)
    found = [Delayed(lag=s, beta=beta, lead=lead).net_step() for s in (4, 8, 16)]
    assert found == pytest.approx(expected, abs=5e-4)


@given(BETAS)
def test_without_lag_the_threshold_of_heavy_ball_is_the_textbook_one(beta):
    expected = 2 * (1 + beta) / (1 - beta)  # of the step size times 1 - beta: 2 (1 + beta)
    assert Delayed(lag=0, beta=beta).largest_step() == pytest.approx(expected, rel=1e-9)


@given(LAGS, BETAS, LEADS)
def test_errors_shrink_below_the_threshold_and_grow_above_it(lag, beta, lead):
    model = Delayed(lag=lag, beta=beta, lead=lead)
    limit = model.largest_step()
    assert 0.0 < limit < inf
    for share in (0.05, 0.4, 0.8, 0.99):
        assert model.growth(share * limit) < 1.0
    assert model.growth(1.01 * limit) > 1.0


@given(LAGS, st.floats(0.1, 0.9), st.integers(1, 6))
def test_the_polynomial_is_that_of_the_recursion(lag, factor, count):
    """A root of it is a solution of the recursion that was written down in words."""
    x, beta = 0.1, 0.5
    model = Delayed(lag=lag, beta=beta, lead=Lead.applied(factor / count, count))
    for root in np.polynomial.polynomial.polyroots(model.polynomial(x)):
        if abs(root) < 0.3:
            continue  # high powers of 1/z lose all digits

        def late(back, z=root):
            return z ** complex(-back)

        # With w(t) = z^t: m(t) = (w(t) - w(t+1)) / step, u(t) = (m(t) - beta m(t-1)) / (1 - beta).
        m = 1 - root
        u = m * (1 - beta * late(1)) / (1 - beta)
        left = u * (1 + factor / count * sum(late(n) for n in range(1, count + 1)))
        scale = 1 + abs(late(count)) + abs(late(lag))
        assert abs(left - x * late(lag)) / scale == pytest.approx(0.0, abs=1e-6)


@given(LAGS, BETAS)
def test_compensation_that_knows_the_curvature_takes_the_lag_out(lag, beta):
    known = Delayed(lag=lag, beta=beta, known=1.0).largest_step()
    assert known == pytest.approx(Delayed(lag=0, beta=beta).largest_step(), rel=1e-9)


@given(st.integers(1, 32), st.floats(0.1, 0.9))
def test_applied_gradients_with_factors_of_the_step_compensate_in_full(lag, x):
    """All of them, as many as the lag is long: then the lag is gone, as if weights were known."""
    by_gradients = Delayed(lag=lag, lead=Lead.applied(x, lag))
    by_weights = Delayed(lag=lag, known=1.0)
    assert by_gradients.growth(x) == pytest.approx(1.0 - x, abs=1e-6)
    assert by_weights.growth(x) == pytest.approx(1.0 - x, abs=1e-6)


def test_half_of_the_compensation_is_enough_and_a_quarter_is_better_than_none():
    limits = [Delayed(lag=8, known=known).largest_step() for known in (0.0, 0.25, 0.5, 0.75, 1.0)]
    none, quarter, half, most, all_of_it = limits
    assert none < 0.7 * quarter < 0.2 * half
    # From half on, nothing is left of the lag.
    assert (half, most, all_of_it) == pytest.approx((2.0, 2.0, 2.0))


@given(LAGS, BETAS)
def test_what_is_guaranteed_is_stable_and_not_far_from_all_there_is(lag, beta):
    guaranteed = guaranteed_step(lag, beta)
    limit = Delayed(lag=lag, beta=beta).largest_step()
    assert guaranteed <= limit * (1 + 1e-9)
    if beta == 0.0:
        assert limit < guaranteed * pi / 2 * (1 + 1e-9)


def test_a_filter_that_leaves_nothing_of_a_signal_makes_no_step_stable():
    assert Delayed(lag=2, lead=Lead.previous(1.0)).largest_step() == 0.0
    assert Delayed(lag=2, lead=Lead.previous(1.5)).largest_step() == 0.0
    assert Delayed(lag=2, lead=Lead.previous(1.5)).growth(1e-3) > 1.0


@given(st.floats(0.0, 0.99), st.floats(0.0, 0.95))
def test_the_factor_of_a_mean_is_that_of_its_gradients(cosine, decay):
    """Signal and noise, summed up term by term."""
    weights = [(1 - decay) * decay**n for n in range(2000)]
    square = cosine + (1 - cosine) * sum(one * one for one in weights)
    assert mean_factor(cosine, decay) == pytest.approx(cosine / square, rel=1e-6)


@given(st.floats(0.0, 0.99), st.integers(1, 16))
def test_the_factor_of_applied_gradients_makes_them_orthogonal(cosine, count):
    a = applied_factor(cosine, count)
    gain = 1 / (1 + count * a)
    square = 1 - count * a * a * (
        1 / (1 + count * a * a)
    )  # |u|^2, as |g|^2 = (1 + count a^2) |u|^2
    assert a == pytest.approx(gain * cosine / square, abs=1e-9)


@given(st.sampled_from([0.5, 0.9]))
def test_the_steps_of_momentum_line_up_without_any_signal(beta):
    assert momentum_cosine(0.0, beta) == pytest.approx(beta)
    assert momentum_cosine(0.99, beta) > 0.99


def test_projecting_steps_of_momentum_off_the_one_before_takes_momentum_out():
    lead = Lead.previous(momentum_cosine(0.0, 0.9))
    for lag in (2, 4, 16):
        bare = Delayed(lag=lag).largest_step()
        assert Delayed(lag=lag, beta=0.9, lead=lead).net_step() == pytest.approx(bare, rel=1e-9)


def test_the_best_step_is_a_compromise_of_both_ends():
    model = Delayed(lag=0)
    x, growth = model.best_growth(10.0)
    assert x == pytest.approx(2 / 1.1, rel=0.02)  # 2 / (h + h / 10), the textbook's
    assert growth == pytest.approx(9 / 11, abs=0.01)


@pytest.mark.parametrize("lag", [0, 1, 4])
@pytest.mark.parametrize("beta", [0.0, 0.9])
@pytest.mark.parametrize("make", [Ema, Previous, Applied, None])
def test_the_theorem_holds_for_the_optimizers(lag, beta, make):
    """What is applied, squared and summed, is bounded by the loss at the start."""
    step = 0.98 * guaranteed_step(lag, beta)
    generator = torch.Generator().manual_seed(lag)
    curvature = torch.logspace(0, -2, 6, dtype=torch.float64)  # the largest is 1
    weight = torch.nn.Parameter(torch.randn(6, generator=generator, dtype=torch.float64))
    inner = torch.optim.SGD([weight], lr=step, momentum=beta, dampening=beta)
    # The theorem's momentum starts from zero, torch's from the first gradient.
    inner.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    optimizer = inner if make is None else GAC(inner, reference=make())
    late = [weight.detach().clone()] * (lag + 1)
    loss = 0.5 * (curvature * weight.detach() ** 2).sum()
    applied = 0.0
    for _ in range(600):
        weight.grad = curvature * late[0]
        optimizer.step()
        applied += float(weight.grad.square().sum())
        late = [*late[1:], weight.detach().clone()]
    bound = float(loss) / (step * (1 - step / guaranteed_step(lag, beta)))
    assert 0.0 < applied <= bound


def test_applied_gradients_of_one_that_stands_still_add_up_to_most_of_it():
    """So `Applied` cannot come to rest before the gradient does; `Previous` does at once."""
    weight = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    sums = {}
    for reference in (Applied(count=3), Previous()):
        optimizer = GAC(torch.optim.SGD([weight], lr=0.0), reference=reference)
        squares = []
        for step in range(12):
            gradient = torch.arange(1.0, 6.0, dtype=torch.float64)
            weight.grad = torch.tensor([3.0, 1.0, 0, 0, 2.0]).double() if step < 2 else gradient
            optimizer.step()
            squares.append(float(weight.grad.square().sum()))
        sums[type(reference)] = [sum(squares[n : n + 4]) for n in (5, 6, 7, 8)]
    # In exact arithmetic to all of it, but what rounding leaves of nothing is a reference, too.
    assert all(0.8 * 55.0 < total < 55.0 + 1e-9 for total in sums[Applied])
    assert sums[Previous] == pytest.approx([0.0] * 4, abs=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Delayed(lag=-1),
        lambda: Delayed(lag=1, beta=1.0),
        lambda: Delayed(lag=1, known=inf),
        lambda: Lead(over=()),
        lambda: Lead(under=(2.0,)),
        lambda: Lead(over=(inf,)),
        lambda: Lead.applied(1.5, 1),
        lambda: Lead.previous(0.5, back=0),
        lambda: Lead.applied(0.5, -1),
        lambda: applied_factor(1.5, 1),
        lambda: mean_factor(0.5, 1.0),
        lambda: guaranteed_step(-1),
        lambda: Delayed(lag=1).growth(inf),
        lambda: Delayed(lag=1).best_growth(0.5),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(InputError):
        call()
