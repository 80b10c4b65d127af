import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import FileError, InputError
from weft.tokens.guards import Baseline, Breaker, Spend, blocks, learn_baseline


def drawn(count, *, speed=1.0, progress=0.0, seed=0, at=0.0):
    """Calls as people make them, some of which bring progress."""
    rng = np.random.default_rng(seed)
    times = at + np.cumsum(rng.exponential(1.0 / speed, count))
    usd = rng.lognormal(-4.0, 1.0, count)
    gains = rng.random(count) < progress
    return [
        Spend(at=float(a), usd=float(u), progress=float(g))
        for a, u, g in zip(times, usd, gains, strict=True)
    ]


BASE = learn_baseline(drawn(3000))
WORKING = learn_baseline(drawn(3000, progress=0.2))


def run(breaker, spends):
    return [breaker.observe(own) for own in spends][-1]


def test_what_is_as_it_was_does_not_trip():
    tripped = [run(Breaker(BASE), drawn(2000, seed=n)).tripped for n in range(1, 11)]
    assert not any(tripped)


def test_the_faster_the_sooner_and_large_jumps_within_a_few_calls():
    mean = sum(own.usd for own in drawn(3000)) / 3000
    spent = []
    for speed in (3.0, 10.0, 100.0):
        breaker = Breaker(BASE)
        run(breaker, drawn(500, seed=1))
        before = breaker.verdict().usd
        verdicts = (breaker.observe(own) for own in drawn(3000, speed=speed, seed=2, at=1e4))
        spent.append((next(v.usd for v in verdicts if v.tripped) - before) / mean)
    assert spent[0] > spent[1] >= spent[2]
    assert spent[1] < 80.0


def test_speed_that_buys_progress_is_fine_and_speed_that_does_not_is_not():
    for progress, trips in ((0.2, False), (0.0, True)):
        breaker = Breaker(WORKING)
        run(breaker, drawn(300, progress=0.2, seed=3))
        verdict = run(breaker, drawn(3000, speed=20.0, progress=progress, seed=4, at=1e4))
        assert verdict.tripped is trips
        assert verdict.speed > verdict.needed
        assert verdict.evidence == min(verdict.speed, verdict.poverty)


def test_no_progress_at_the_usual_speed_does_not_trip_but_is_seen():
    verdict = run(Breaker(WORKING), drawn(3000, seed=5))
    assert not verdict.tripped and verdict.poverty > verdict.needed


def test_a_verdict_says_when_it_tripped_and_what_was_spent_since():
    breaker = Breaker(BASE)
    seen = [(own, breaker.observe(own)) for own in drawn(400, speed=50.0, seed=6)]
    first = next(n for n, (_, v) in enumerate(seen) if v.tripped)
    last = seen[-1][1]
    assert last.tripped and last.at == seen[first][0].at and seen[first][1].usd_after == 0.0
    assert last.usd_after == pytest.approx(sum(own.usd for own, _ in seen[first + 1 :]))
    breaker.reset()
    assert not breaker.verdict().tripped and breaker.verdict().usd == 0.0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 399), st.booleans())
def test_a_restart_anywhere_changes_nothing(place, working):
    spends = drawn(400, speed=3.0, progress=0.1, seed=7)
    breaker = kept = Breaker(WORKING if working else BASE)
    told, after = [], []
    for number, own in enumerate(spends):
        if number == place:
            kept = Breaker.from_json(breaker.to_json())
        told.append(breaker.observe(own))
        if number >= place:
            after.append(kept.observe(own))
    assert after == told[place:]


def test_state_does_not_grow():
    early, late = Breaker(WORKING), Breaker(WORKING)
    run(early, drawn(300, progress=0.2, seed=8))
    run(late, drawn(4000, progress=0.2, seed=8))
    assert len(late.to_json()) < 1.2 * len(early.to_json())


def test_a_clock_that_is_set_back_stands_still():
    breaker = Breaker(BASE)
    breaker.observe(Spend(at=100.0, usd=0.01))
    breaker.observe(Spend(at=50.0, usd=0.01))
    assert json.loads(breaker.to_json())["last"] == 100.0


def test_blocks_are_of_so_much_money():
    spends = [Spend(at=float(n), usd=0.5, progress=float(n % 4 == 0)) for n in range(9)]
    speeds, poverties = blocks(spends, 1.0)
    assert np.allclose(speeds, math.log(0.5)) and len(speeds) == 4
    assert [math.isinf(own) for own in poverties] == [True, False, True, False]


@pytest.mark.parametrize(
    ("spends", "settings"),
    [
        ([], {}),
        (drawn(50), {}),
        ([Spend(at=float(n)) for n in range(500)], {}),
        (drawn(500), {"level": 0.0}),
        (drawn(500), {"tolerance": 0.5}),
        (drawn(500), {"horizon": 0}),
    ],
)
def test_what_nothing_can_be_learnt_from_is_refused(spends, settings):
    with pytest.raises(InputError):
        learn_baseline(spends, **settings)


def test_a_horizon_makes_it_quicker():
    base = learn_baseline(drawn(3000), horizon=1000)
    spent = []
    for own in (BASE, base):
        breaker = Breaker(own)
        run(breaker, drawn(1000, seed=9))
        before = breaker.verdict().usd
        verdicts = (breaker.observe(s) for s in drawn(2000, speed=10.0, seed=9, at=1e4))
        spent.append(next(v.usd for v in verdicts if v.tripped) - before)
    assert spent[1] < spent[0]


def test_baselines_and_states_are_read_as_written_and_nothing_else_is():
    assert Baseline.from_json(WORKING.to_json()) == WORKING
    for text in ("", "{}", "[]", '{"weft": "baseline", "form": 9}'):
        with pytest.raises(FileError, match="learn it again"):
            Baseline.from_json(text)
        with pytest.raises(FileError):
            Breaker.from_json(text)


@pytest.mark.parametrize("wrong", [{"at": math.nan}, {"usd": -1.0}, {"progress": -1.0}])
def test_events_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError):
        Spend(**{"at": 0.0, **wrong})
