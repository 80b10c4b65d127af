from tests.unit.report.tokens_known import a_report, an_empty_report
from weft.report.page import render
from weft.report.tokens_page import tokens_page


def test_a_page_says_what_was_spent_what_is_wrong_and_where_prices_are_from():
    html = render(tokens_page(a_report()))
    for text in (
        "6 calls from 2026-11-01",
        "Money by agent, model",
        "Before these figures are believed",
        "never heard of it",
        "need JSON; got &lt;nothing&gt;",
        "began 1.000 s before the call that led to it",
        "toy 1 (00)",
    ):
        assert text in html
    assert "<critic>" not in html


def test_a_page_without_prices_shows_tokens():
    html = render(tokens_page(a_report(book=False)))
    assert "Tokens by agent, model" in html
    assert "USD" not in html


def test_a_page_of_one_group_or_none_is_a_page():
    assert "Money by class" in render(tokens_page(a_report(by=())))
    assert "The ledger holds no call." in render(tokens_page(an_empty_report()))


def test_what_may_be_more_is_drawn_as_unknown():
    assert "not told apart" in render(tokens_page(a_report(by=())))
