import numpy as np
import pytest

from tests.unit.tokens.guards.letters import Letters, reply
from tests.unit.tokens.ledger.known import NOON, a_call
from weft.core.errors import InputError
from weft.tokens import Usage
from weft.tokens.guards.audit import audit_bills, audit_burn, audit_cycles, spent_on
from weft.tokens.guards.transcript import turns_of
from weft.tokens.prices import FileBook


def stream(name, speed, count=1500, at=0.0, seed=0):
    rng = np.random.default_rng(seed)
    times = NOON + at + np.cumsum(rng.exponential(1.0 / speed, count))
    return [
        a_call(
            id=f"{name}{at}-{n}", at=float(t), agent=name, usage=Usage.of(fresh=9, text=int(text))
        )
        for n, (t, text) in enumerate(zip(times, rng.integers(1, 100, count), strict=True))
    ]


CALLS = sorted(
    [
        *stream("calm", 1.0),
        *stream("calm", 1.0, at=2000.0, seed=1),
        *stream("wild", 1.0, seed=2),
        *stream("wild", 10.0, at=2000.0, seed=3),
        *stream("new", 1.0, count=20),
    ],
    key=lambda call: call.at,
)


def test_the_agent_that_ran_away_is_found_with_when_and_how_much():
    spent = spent_on(CALLS, None)
    told = audit_burn(CALLS, spent, unit="tokens", by="agent")
    (found,) = told.findings
    assert found.where == "wild" and found.evidence >= found.needed
    assert NOON + 1900.0 < found.at < NOON + 2030.0
    after = sum(
        spent[call.source, call.id] for call in CALLS if call.agent == "wild" and call.at > found.at
    )
    assert found.after == pytest.approx(after)
    assert told.looked == 2 and sum(told.skipped.values()) == 1
    assert "as learnt over 24 minutes, became" in found.said
    assert 5.0 < found.facts["times_as_fast"] < 20.0


def test_a_baseline_may_be_of_another_time():
    before = [call for call in CALLS if call.at < NOON + 1400.0]
    later = [call for call in CALLS if call.at >= NOON + 2000.0]
    spent = spent_on(CALLS, None)
    told = audit_burn(later, spent, unit="tokens", by="agent", before=before)
    assert [found.where for found in told.findings] == ["wild"]


@pytest.mark.parametrize("wrong", [{"by": "moon"}, {"share": 1.0}])
def test_what_cannot_be_asked_is_refused(wrong):
    with pytest.raises(InputError):
        audit_burn(CALLS, spent_on(CALLS, None), unit="tokens", **wrong)


def test_money_is_that_of_a_book(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("per: 1\nprices:\n  - model: gpt-*\n    usd: {fresh: 0.01, text: 0.1}\n")
    call = a_call(1, usage=Usage.of(fresh=3, text=2))
    assert spent_on([call], FileBook(path)) == {(call.source, call.id): pytest.approx(0.23)}


def turns(records):
    return [turn.answered({}) for record in records for turn in turns_of(record)]


def test_cycles_are_found_with_what_they_cost_and_end_where_they_end():
    looping = [reply(n, tool="ab"[n % 2], tokens=10) for n in range(40)]
    other = [reply(n, tool="read", arguments=f'{{"n": {n}}}', tokens=10) for n in range(40, 60)]
    own = turns([*looping, *other, *({**own, "session": "fine"} for own in other)])
    spent = spent_on([turn.call for turn in own], None)
    told = audit_cycles(own, spent, unit="tokens")
    (found,) = told.findings
    assert found.where == "s1" and found.facts["period"] == 2 and told.looked == 2
    assert found.facts["repeats"] == 20
    # Tripped within some ten rounds; the rest of the forty calls came after it.
    assert 20 * 110 < found.after < 30 * 110
    assert found.facts["spent_on_repeats"] == 38 * 110
    assert audit_cycles(turns(other[:1]), {}, unit="tokens").findings == ()


def test_bills_are_looked_at_for_each_model():
    records = [reply(n, "x" * 50, tokens=60) for n in range(30)]
    records += [reply(n, "x" * 50, tool="t") for n in range(30, 33)]
    fair = [reply(n, "x" * 50) for n in range(40, 70)]
    for record in fair:
        record["response"]["model"] = "gpt-6"
    own = turns([*records, *fair])
    spent = spent_on([turn.call for turn in own], None)
    told = audit_bills(own, spent, Letters(), unit="tokens")
    (found,) = told.findings
    assert found.where == "gpt-5" and found.facts["overcharge"] > 0.1
    assert told.looked == 2 and told.skipped == {"replies with tools, or without text": 3}
    some = audit_bills(own, spent, Letters(), unit="tokens", models=lambda name: name == "gpt-6")
    assert some.findings == () and some.skipped["replies of other models"] == 33
