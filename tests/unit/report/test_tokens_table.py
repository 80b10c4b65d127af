import json
from decimal import Decimal

import pytest

from tests.unit.report.tokens_known import a_report, an_empty_report
from weft.report.table import numeric_columns
from weft.report.tokens_table import (
    caveats,
    format_cost,
    format_tokens,
    quarantine_table,
    report_plain,
    report_sentence,
    skew_table,
    spent_table,
    unpriced_table,
)
from weft.tokens import Count, exactly
from weft.tokens.prices import Cost


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (exactly(0), "0"),
        (exactly(9_999), "9999"),
        (exactly(10_000), "10.0 k"),
        (exactly(999_499), "999 k"),
        (exactly(999_999), "1.00 M"),
        (exactly(123_456_789), "123 M"),
        (exactly(5 * 10**12), "5 T"),
        (Count(5, None), ">= 5"),
        (Count(0, 12_345), "0 to 12.3 k"),
    ],
)
def test_counts_have_three_digits_and_a_unit(count, text):
    assert format_tokens(count) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        ("0", "0", "$0.00"),
        ("1234.5", "1234.5", "$1,234.50"),
        ("0.037", "0.037", "$0.0370"),
        ("0.0000125", "0.0000125", "$0.0000125"),
        ("1", "2", "$1.00 to $2.00"),
        ("3", None, ">= $3.00"),
    ],
)
def test_costs_have_as_many_digits_as_are_worth_showing(low, high, text):
    assert format_cost(Cost(Decimal(low), None if high is None else Decimal(high))) == text


def test_a_table_has_a_row_for_each_group_and_one_for_all():
    table = spent_table(a_report())
    assert table.columns[:4] == ("agent", "model", "calls", "input")
    assert len(table.rows) == 5
    assert table.rows[-1][0] == "all"
    assert all(numeric_columns(table)[2:6])


def test_without_prices_there_are_no_columns_of_money():
    assert not any("USD" in column for column in spent_table(a_report(book=False)).columns)


def test_without_keys_there_is_one_row():
    assert [row[0] for row in spent_table(a_report(by=())).rows] == ["6"]


def test_a_sentence_says_calls_tokens_money_and_the_cost_of_a_pass():
    sentence = report_sentence(a_report())
    assert "6 calls from 2026-11-01" in sentence
    assert "for >= $" in sentence
    assert "a task that passed cost" in sentence
    assert report_sentence(an_empty_report()) == "The ledger holds no call."


def test_every_caveat_is_said():
    told = "\n".join(caveats(a_report()))
    for what in (
        "1 of 6 calls: how much was read",
        "1 of 6 calls: nothing limits",
        "1 of 6 calls: how much of the input came from caches",
        "calls that were met again, counted once: 3",
        "records that could not be read, kept aside: 1",
        "calls with times that cannot be: 1",
        "calls without a price: 1",
    ):
        assert what in told
    assert caveats(an_empty_report()) == ()


def test_examples_are_shown_with_where_they_are_from():
    report = a_report()
    assert quarantine_table(report).rows[0][:2] == ("log<1>.jsonl", "7")
    assert skew_table(report).rows[0][1] == "c5"
    assert unpriced_table(report).rows[0][1] == "mystery"


def test_the_plain_form_is_json_and_holds_both_ends():
    plain = json.loads(json.dumps(report_plain(a_report()), allow_nan=False))
    assert plain["by"] == ["agent", "model"]
    assert plain["prices"] == "toy 1 (00)"
    assert plain["total"]["output"][1] is None
    assert plain["total"]["cost_usd"][1] is None
    assert plain["quality"]["quarantined"] == 1
    assert plain["rows"][0]["passing"]["tasks"] == 2
    assert json.dumps(report_plain(an_empty_report()))
