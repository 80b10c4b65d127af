import numpy as np
import pytest

from weft.core.errors import InputError
from weft.tokens.allocate import fit_router


def world(count, seed):
    """A small model passes easy tasks; a large one passes others, at ten times the cost."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, 3))
    hard = features[:, 0]
    chances = 1.0 / (1.0 + np.exp(np.column_stack([2.0 * hard, hard - 2.0])))
    passed = (rng.random((count, 2)) < chances).astype(float)
    usd = np.column_stack([np.full(count, 0.01), 0.1 * np.exp(0.3 * features[:, 1])])
    return features, passed, usd


def test_a_budget_is_kept_and_beats_a_coin_on_tasks_not_seen():
    router = fit_router(*world(2000, 0), ("small", "large"))
    features, passed, usd = world(4000, 1)
    rows = np.arange(len(features))
    price = router.price_for(world(2000, 0)[0], 0.04)
    picks = router.routed(features, price)
    spent = usd[rows, picks].mean()
    assert spent == pytest.approx(0.04, rel=0.1)
    share = (spent - usd[:, 0].mean()) / (usd[:, 1] - usd[:, 0]).mean()
    coin = (1 - share) * passed[:, 0].mean() + share * passed[:, 1].mean()
    assert passed[rows, picks].mean() > coin + 0.08


def test_a_price_of_nothing_takes_the_best_and_a_high_one_the_cheapest():
    features, passed, usd = world(2000, 0)
    router = fit_router(features, passed, usd, ("small", "large"))
    assert (router.routed(features, 1e9) == 0).all()
    chances, costs = router.predicted(features)
    assert (router.routed(features, 0.0) == chances.argmax(axis=1)).all()
    assert costs[:, 1] == pytest.approx(usd[:, 1], rel=1e-2)
    assert router.price_for(features, 9.0) == 0.0


def test_what_cannot_be_learnt_says_why():
    features, passed, usd = world(50, 0)
    with pytest.raises(InputError, match="of each task under each model"):
        fit_router(features, passed[:, :1], usd, ("small", "large"))
    with pytest.raises(InputError, match="needs no router"):
        fit_router(features, np.ones_like(passed), usd, ("small", "large"))
    with pytest.raises(InputError, match="a budget for the cheapest models"):
        fit_router(features, passed, usd, ("small", "large")).price_for(features, 1e-6)
