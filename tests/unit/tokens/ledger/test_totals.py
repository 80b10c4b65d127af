import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tokens.ledger.known import NOON, a_call
from weft.core.errors import InputError
from weft.tokens import UNKNOWN, Count, Usage, exactly
from weft.tokens.ledger import Ledger
from weft.tokens.ledger.totals import priced_totals, totals, whole

COUNTS = st.builds(
    lambda low, more: Count(low, None if more is None else low + more),
    st.integers(0, 1000),
    st.none() | st.integers(0, 1000),
)
USAGES = st.builds(
    lambda fresh, cached, text: Usage.of(fresh=fresh, cache_read=cached, text=text),
    COUNTS,
    COUNTS,
    COUNTS,
)


def filled(calls):
    ledger = Ledger(":memory:")
    ledger.add(calls)
    return ledger


@given(st.lists(USAGES, min_size=1, max_size=6))
def test_sums_in_the_database_are_sums_of_usages(usages):
    with filled([a_call(n, usage=used) for n, used in enumerate(usages)]) as ledger:
        (group,) = totals(ledger)
    assert group.usage == sum(usages[1:], usages[0])
    assert group.calls == len(usages)


@given(st.lists(USAGES, min_size=1, max_size=6), st.sets(st.integers(0, 2500), max_size=3))
def test_pieces_that_are_priced_alike_are_all_calls_once(usages, thresholds):
    with filled([a_call(n, usage=used) for n, used in enumerate(usages)]) as ledger:
        pieces = list(priced_totals(ledger, (), sorted(thresholds)))
    assert sum(piece.group.calls for piece in pieces) == len(usages)
    assert sum((piece.group.usage for piece in pieces), Usage()) == sum(usages, Usage())


def test_calls_on_both_sides_of_a_threshold_are_apart():
    calls = [a_call(n, usage=Usage.of(fresh=size)) for n, size in enumerate((200, 201, 50))]
    with filled(calls) as ledger:
        pieces = list(priced_totals(ledger, (), (200,)))
    assert {piece.size: piece.group.usage.input.low for piece in pieces} == {
        Count(0, 200): 250,
        Count(201, None): 201,
    }


def test_a_call_that_may_be_on_either_side_is_apart():
    calls = [
        a_call(1, usage=Usage.of(fresh=Count(100, 300))),
        a_call(2, usage=Usage.of(fresh=Count(100, 150))),
        a_call(3, usage=Usage.of(fresh=UNKNOWN)),
    ]
    with filled(calls) as ledger:
        pieces = list(priced_totals(ledger, (), (200,)))
    assert {piece.size: piece.group.calls for piece in pieces} == {
        Count(0, 200): 1,
        Count(0, None): 2,
    }


def test_calls_of_different_half_hours_are_priced_at_their_own():
    with filled([a_call(0), a_call(1, at=NOON + 1900)]) as ledger:
        assert [p.at for p in priced_totals(ledger, (), ())] == [NOON, NOON + 1800]


def test_groups_are_by_what_was_asked_for_most_calls_first():
    calls = [
        a_call(1, agent="a", arm="x"),
        a_call(2, agent="b", arm="x"),
        a_call(3, agent="b", arm="x"),
        a_call(4, agent="b", arm="y", at=NOON + 86400),
    ]
    with filled(calls) as ledger:
        by_agent = [(group.key, group.calls) for group in totals(ledger, ("agent",))]
        by_both = {group.key: group.calls for group in totals(ledger, ("agent", "day"))}
    assert by_agent == [(("b",), 3), (("a",), 1)]
    assert by_both == {("a", "2026-11-01"): 1, ("b", "2026-11-01"): 2, ("b", "2026-11-02"): 1}


def test_an_empty_ledger_has_no_group():
    with Ledger(":memory:") as ledger:
        assert totals(ledger) == totals(ledger, ("agent",)) == []


def test_what_nobody_knows_is_nothing_to_group_by():
    with Ledger(":memory:") as ledger, pytest.raises(InputError, match="'id; DROP'"):
        totals(ledger, ("id; DROP",))


def test_one_call_without_a_limit_takes_it_from_the_sum():
    with filled([a_call(1), a_call(2, usage=Usage.of(fresh=UNKNOWN))]) as ledger:
        (group,) = totals(ledger)
    assert group.usage.input == Count(100, None)
    assert group.usage.output == exactly(10)


@given(st.lists(USAGES, min_size=1, max_size=5))
def test_groups_together_are_the_group_of_all(usages):
    calls = [a_call(n, usage=used, agent="ab"[n % 2]) for n, used in enumerate(usages)]
    with filled(calls) as ledger:
        assert whole(totals(ledger, ("agent",))) == totals(ledger)[0]
    assert whole([]) is None
