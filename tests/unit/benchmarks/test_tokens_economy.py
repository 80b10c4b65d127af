import csv

import numpy as np
import pytest

from benchmarks.tokens import allocating, duality, routing
from benchmarks.tokens.places import VARIABLE, data_file


def test_the_laws_of_costs_hold():
    assert all(claim.ok for claim in duality.duality(True, "").claims)


def test_splits_and_menus_are_exact():
    parts = (allocating._splits(3), allocating._menus(5), allocating._paced(1))
    assert all(claim.ok for part in parts for claim in part.claims)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Tasks that say themselves whether the small model can do them."""
    rng = np.random.default_rng(0)
    with (tmp_path / routing.TABLE).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", "small", "large", "small said", "large said"])
        for _ in range(300):
            easy = rng.random() < 0.5
            small = rng.random() < (0.95 if easy else 0.1)
            words = " easy" if easy else " hard"
            rows.writerow([f"Do the{words} one.", small, rng.random() < 0.9, "a" * 300, "b" * 400])
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path / routing.TABLE


def test_what_prompts_say_is_worth_money(table):
    own = routing._replay(table)
    policies = {name: routing._decided(own, routing.POLICIES[name]) for name in routing.POLICIES}
    costs = routing._costs(policies, own, np.arange(300))
    for share in routing.TARGETS:
        assert costs["oracle", share] < costs["weft", share] < 0.8 * costs["random mix", share]
    # All of a budget is the large model, nothing the small one.
    for name in ("weft", "random mix", "threshold on a score"):
        passed, usd = policies[name][0.0]
        assert usd.mean() == pytest.approx(own.usd[:, 0].mean(), rel=0.05)
        assert passed.mean() == pytest.approx(own.passed[:, 0].mean(), abs=0.05)


def test_data_that_are_not_there_are_said_not_to_be(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr("benchmarks.tokens.places.BESIDE", tmp_path)
    assert data_file(routing.TABLE) is None
    part = routing.routing(True, "")
    assert part.claims == ()
    assert [row[3] for row in part.rows] == ["is not there", "is not there"]
