"""What layers cost together, and that it follows what a simulation says."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.homed import devices
from tests.programs import mlp, transformer
from weft.parallel.degrees import Degrees
from weft.parallel.experts import Desk
from weft.parallel.pinning import resolve
from weft.parallel.way_prices import Prices, cheapest
from weft.parallel.wide import Way, alike, possible

MACHINE = devices(4)
CHAIN = mlp(num_layers=4, batch=64, width=256, hidden=lambda _: 1024)
WORDS = transformer(num_layers=1, batch=6, length=32, width=128, num_heads=2, vocabulary=1 << 12)


def drawn(program, layers, mesh, seed):
    rng, found = random.Random(seed), {}
    for kind in alike(program, layers):
        found |= dict.fromkeys(kind, rng.choice(possible(program, layers[kind[0]], mesh)))
    return found


@pytest.mark.parametrize("program", [CHAIN, WORDS], ids=["chain", "words"])
def test_prices_follow_the_simulation(program) -> None:
    desk, degrees = Desk(program, resolve(program)), Degrees(dp=2, tp=2, zero=1, wide=True)
    runs = desk.schemes.runs
    prices = Prices(runs, MACHINE, degrees.mesh)
    found = [drawn(program, runs.layers, degrees.mesh, seed) for seed in range(12)]
    steps = [desk.candidate(MACHINE, degrees, 1e12, ways).step_s for ways in found]
    ranks = [np.argsort(np.argsort(own)) for own in (steps, [prices.total(w) for w in found])]
    assert np.corrcoef(*ranks)[0, 1] > 0.7
    best = desk.candidate(MACHINE, degrees, 1e12, cheapest(runs, MACHINE, degrees.mesh))
    assert best.step_s <= min(steps)


def test_layers_that_all_compute_all_rows_cost_less_together_than_each_alone() -> None:
    runs = Desk(CHAIN, resolve(CHAIN)).schemes.runs
    prices = Prices(runs, MACHINE, Degrees(tp=4, wide=True).mesh)
    whole = dict.fromkeys(runs.layers, (Way.WHOLE,))
    alone = sum(prices.seconds(layer, (Way.WHOLE,)) for layer in runs.layers.values())
    assert prices.total(whole) < 0.7 * alone


def test_layers_that_share_out_rows_cost_the_same_whatever_is_around_them() -> None:
    runs = Desk(CHAIN, resolve(CHAIN)).schemes.runs
    prices = Prices(runs, MACHINE, Degrees(dp=2, tp=2, wide=True).mesh)
    alone = sum(prices.seconds(layer, prices.plain) for layer in runs.layers.values())
    assert prices.total({}) == pytest.approx(alone)


@pytest.mark.parametrize("program", [CHAIN, WORDS], ids=["chain", "words"])
@pytest.mark.parametrize("named", [{"tp": 4}, {"dp": 2, "tp": 2}], ids=str)
def test_nothing_is_cheaper_than_the_cheapest_by_one_kind_of_layers(program, named) -> None:
    runs = Desk(program, resolve(program)).schemes.runs
    mesh = Degrees(**named, wide=True).mesh
    prices, found = Prices(runs, MACHINE, mesh), cheapest(runs, MACHINE, mesh)
    assert all(ways != prices.plain for ways in found.values())
    least_s = prices.total(found)
    for kind in alike(program, runs.layers):
        for ways in possible(program, runs.layers[kind[0]], mesh):
            assert prices.total(found | dict.fromkeys(kind, ways)) >= least_s
