from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tokens.ledger.known import NOON, a_call
from weft.core.errors import InputError
from weft.tokens import UNKNOWN, Count, TokenClass, Usage
from weft.tokens.ledger import Ledger
from weft.tokens.prices import FREE, BookSource, Cost, FileBook, Rates, Step, cost
from weft.workflow.tokens_report import tokens_report

PRICES = {
    TokenClass.FRESH: Decimal("0.01"),
    TokenClass.CACHE_READ: Decimal("0.001"),
    TokenClass.TEXT: Decimal("0.1"),
}
# A toy call: 60 fresh, 40 cached, 6 of text, 4 of reasoning.
ONE = Decimal("0.60") + Decimal("0.04") + Decimal("1.0")


class Toy:
    """Twice the price above 150 tokens, and after noon and a half; no price of `mystery`."""

    source = BookSource(name="toy", version="1", digest="00")

    def rate(self, provider, model, at, *, tier=""):
        if model == "mystery":
            return Rates(provider=provider, model=model, why="never heard of it")
        late = 2 if at % 3600 else 1
        usd = {leaf: late * price for leaf, price in PRICES.items()}
        dear = {leaf: 2 * price for leaf, price in usd.items()}
        return Rates(
            provider=provider, model=model, steps=(Step(usd=usd), Step(above=150, usd=dear))
        )


def report(calls, by=("agent",), book=None):
    with Ledger(":memory:") as ledger:
        ledger.add(calls)
        return tokens_report(ledger, by=by, book=book or Toy())


def test_each_call_is_priced_at_its_own_time_and_size():
    told = report(
        [
            a_call(1, agent="a"),
            a_call(1801, agent="a"),  # after half past, at twice the price
            a_call(2, agent="b", usage=Usage.of(fresh=151)),
            a_call(3, agent="b", usage=Usage.of(fresh=100)),
        ]
    )
    costs = {row.group.key: row.cost.low for row in told.rows}
    assert costs == {("a",): 3 * ONE, ("b",): Decimal("4.02")}
    assert told.total.cost.low == sum(costs.values())
    assert told.total.cost.is_exact


def test_many_short_calls_are_not_priced_as_a_long_one():
    told = report([a_call(number) for number in range(50)])
    assert told.total.cost.low == 50 * ONE


SIZES = st.integers(0, 400)
EXACT = st.builds(
    lambda fresh, cached, text: Usage.of(fresh=fresh, cache_read=cached, text=text),
    SIZES,
    SIZES,
    SIZES,
)
SPLIT = st.builds(
    lambda whole, text: Usage.of(
        fresh=Count(0, whole), cache_read=Count(0, whole), input=whole, text=text
    ),
    SIZES,
    SIZES,
)


@given(st.lists(st.tuples(EXACT | SPLIT, st.integers(0, 7200)), min_size=1, max_size=8))
def test_a_total_is_the_sum_of_what_each_call_costs(calls):
    told = report([a_call(n, usage=used, at=NOON + at) for n, (used, at) in enumerate(calls)])
    each = [
        cost(used, Toy().rate("openai", "gpt-5", (NOON + at) // 1800 * 1800)) for used, at in calls
    ]
    assert told.total.cost == sum(each, FREE)


def test_parts_by_class_add_up_to_the_cost():
    told = report([a_call(1), a_call(2, usage=Usage.of(fresh=200, reasoning=3))])
    assert sum(told.total.by_class.values()) == told.total.cost.low
    assert told.total.by_class[TokenClass.REASONING] == Decimal("0.4") + Decimal("0.6")


def test_output_that_is_not_told_apart_is_priced_and_kept_apart():
    split = Count(0, 10)
    told = report([a_call(1, usage=Usage.of(text=split, reasoning=split, output=10))])
    assert told.total.cost.low == told.total.cost.high == told.total.either == Decimal("1.0")


def test_dear_groups_come_first():
    told = report([a_call(1, agent="cheap"), a_call(2, agent="dear"), a_call(3, agent="dear")])
    assert [row.group.key for row in told.rows] == [("dear",), ("cheap",)]


def test_a_model_without_a_price_leaves_the_cost_open_and_is_named():
    told = report([a_call(1), a_call(2, model="mystery")])
    assert (told.total.cost.low, told.total.cost.high) == (ONE, None)
    (missing,) = told.unpriced
    assert (missing.model, missing.calls, missing.why) == ("mystery", 1, "never heard of it")


def test_what_is_unknown_of_tokens_is_unknown_of_money():
    told = report([a_call(1, usage=Usage.of(fresh=UNKNOWN, text=1))])
    assert told.total.cost.high is None


def test_a_task_costs_all_of_its_calls_and_is_counted_where_it_ended():
    calls = [
        a_call(1, task="t1", agent="a"),
        a_call(2, task="t1", agent="b", passed=True),
        a_call(3, task="t2", agent="b", passed=False),
        a_call(4, task="t3", agent="a"),
    ]
    told = report(calls)
    rows = {row.group.key: row.passing for row in told.rows}
    assert rows["a",] is None
    assert (rows["b",].tasks, rows["b",].passed) == (2, 1)
    assert rows["b",].usd[0] == pytest.approx(float(3 * ONE))
    assert told.total.passing.usd == rows["b",].usd


def test_without_a_book_there_are_tokens_and_no_money():
    with Ledger(":memory:") as ledger:
        ledger.add([a_call(1, passed=True, task="t")])
        told = tokens_report(ledger, by=("model",))
    assert told.book is None
    assert told.rows[0].cost is None
    assert told.total.passing is None


def test_an_empty_ledger_has_an_empty_report():
    with Ledger(":memory:") as ledger:
        told = tokens_report(ledger, book=Toy())
    assert (told.rows, told.total) == ((), None)


def test_a_key_that_is_none_is_refused():
    with Ledger(":memory:") as ledger, pytest.raises(InputError, match="agnt"):
        tokens_report(ledger, by=("agnt",))


def test_prices_by_size_that_held_once_price_what_was_called_then(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "per: 1\nprices:\n  - {model: gpt-5, usd: {fresh: 1}, above: {50: {fresh: 3}}}\n"
        "  - {model: gpt-5, from: 2026-11-02, usd: {fresh: 2}}\n"
    )
    calls = [
        a_call(1, usage=Usage.of(fresh=60)),
        a_call(2, usage=Usage.of(fresh=10)),
        a_call(100_000, usage=Usage.of(fresh=60)),
    ]
    assert report(calls, by=(), book=FileBook(path)).total.cost == cost_of(180 + 10 + 120)


def cost_of(usd):
    return Cost(Decimal(usd), Decimal(usd))
