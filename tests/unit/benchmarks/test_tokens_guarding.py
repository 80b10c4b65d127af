import numpy as np
import pytest

from benchmarks.tokens import guard_bills, guard_losses, guard_sessions, guarding
from benchmarks.tokens.guard_delays import FOILS, attacked, run_foil
from benchmarks.tokens.guard_streams import DRAWN, Stream, cuts, learnt, spends, trips
from weft.tokens.guards import Again, Breaker


def drawn(kind, runs, calls):
    return DRAWN[kind](np.random.default_rng(0), (runs, calls))


@pytest.mark.parametrize("kind", list(DRAWN)[:2])
def test_breakers_side_by_side_are_those_of_weft(kind):
    gaps, usd = drawn(kind, 6, 1500)
    gaps[3:, 1000:] /= 20.0
    bases = learnt(gaps[:, :1000], usd[:, :1000], 0.05)
    at = np.cumsum(gaps[:, 1000:], axis=1)
    found = trips(bases, at, usd[:, 1000:])
    for row, base in enumerate(bases):
        breaker, place = Breaker(base), np.inf
        for number, own in enumerate(spends(Stream(at[row], usd[row, 1000:]))):
            if breaker.observe(own).tripped:
                place = min(place, number)
        assert place == found[row]
    assert np.isfinite(found[3:]).all()


def test_attacks_come_so_many_times_as_fast():
    stream = Stream(np.arange(100.0), np.arange(100.0))
    attack = attacked(stream, 50, 10.0)
    assert np.allclose(np.diff(attack.at), 0.1) and attack.usd[0] == 50.0 == attack.usd[50]
    assert sum(len(own) for own in next(iter(cuts(stream)))) == 100


def test_foils_that_are_tuned_on_what_is_watched_trip_as_often_as_allowed():
    gaps, usd = drawn("Poisson, lognormal costs", 10, 800)
    at = np.cumsum(gaps, axis=1)
    whole = [Stream(*own) for own in zip(at, usd, strict=True)]
    pairs = [(own[:400], own[400:]) for own in whole]
    for foil in FOILS:
        own = run_foil(foil, pairs, [100] * 10, 10.0, allowed=0.2)
        assert own.false <= 0.2 and np.isfinite(own.delays).all()


def test_losses_are_as_promised():
    for part in (guard_losses.limits_part(True), guard_losses.verification_part(True)):
        assert all(claim.ok for claim in part.claims)


def test_circles_are_found_and_rules_that_people_use_stop_honest_work():
    rng = np.random.default_rng(1)
    for period in (1, 2, 7):
        calls = guard_sessions.circling(rng, period)
        assert guard_sessions.rounds_until(calls, Again(), 0.05) is not None
    good = [guard_sessions.honest(rng) for _ in range(10)]
    for rule in guard_sessions.RULES.values():
        assert any(rule(own) is not None for own in good)


def test_tokens_are_cut_and_the_text_stays():
    encoding = guard_bills.trained(600)
    if encoding is None:
        pytest.skip("tokenizers is not installed")
    text = guard_bills.passages()[0]
    ids = encoding.encode(text).ids
    more = guard_bills.split_tokens(encoding, ids, 0.5, np.random.default_rng(0))
    assert len(more) > 1.1 * len(ids) and encoding.decode(more) == text


def test_a_python_without_tiktoken_is_none():
    assert guard_bills.real_encoding("") is None


def test_a_trace_that_is_not_there_is_said_not_to_be(monkeypatch):
    monkeypatch.setattr(guarding, "data_file", lambda name: None)
    for name in ("_on_drawn", "_cycles", "limits_part", "verification_part"):
        monkeypatch.setattr(guarding, name, lambda quick: guard_losses.verification_part(True))
    monkeypatch.setattr(guarding, "_bills", lambda *_: guard_losses.verification_part(True))
    assert "not there" in guarding.guarding(True).facts["guard_streams"]
