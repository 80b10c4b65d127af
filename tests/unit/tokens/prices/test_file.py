from decimal import Decimal

import pytest

from weft.core.errors import FileError
from weft.tokens import TokenClass
from weft.tokens.prices import FileBook

TEXT = """
per: 1000000
prices:
  - model: gpt-*
    usd: {fresh: 9, text: 9}
  - provider: openai
    model: gpt-5*
    from: 2025-08-07
    usd: {fresh: 1.25, cache_read: 0.125, text: 10}
    above:
      272000: {fresh: 2.5, text: 15}
  - provider: openai
    model: gpt-5*
    from: 2025-08-07
    tier: batch
    usd: {fresh: 0.625, text: 5}
"""
LATE, EARLY = 1_793_491_200.0, 1_700_000_000.0


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text(TEXT)
    return FileBook(path)


def price(book, leaf, at=LATE, provider="openai", model="gpt-5-mini", size=0, **how):
    return book.rate(provider, model, at, **how).step(size).price(TokenClass(leaf))


def test_of_the_entries_that_fit_the_one_that_began_last_holds(book):
    assert price(book, "fresh") == Decimal("0.00000125")
    assert price(book, "fresh", at=EARLY) == Decimal("0.000009")
    assert price(book, "fresh", provider="other") == Decimal("0.000009")


def test_above_a_size_what_is_not_said_stays(book):
    assert price(book, "text", size=272_001) == Decimal("0.000015")
    assert price(book, "cache_read", size=272_001) == Decimal("0.000000125")


def test_tiers_are_apart(book):
    assert price(book, "text", tier="batch") == Decimal("0.000005")
    assert not book.rate("openai", "gpt-5", LATE, tier="flex").is_known


def test_a_model_that_no_entry_fits_has_a_reason(book):
    assert "llama" in book.rate("", "llama", LATE).why


def test_the_digest_is_of_what_the_file_says(tmp_path, book):
    other = tmp_path / "other.yaml"
    other.write_text(TEXT)
    assert FileBook(other).source.digest == book.source.digest
    other.write_text(TEXT + "# a remark\n")
    assert FileBook(other).source.digest != book.source.digest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "prices: 3",
        "prices:\n  - usd: {fresh: 1}",
        "prices:\n  - model: m\n    usd: {frsh: 1}",
        "prices:\n  - model: m\n    usd: {fresh: -1}",
        "prices:\n  - model: m\n    usd: {fresh: cheap}",
        "prices:\n  - model: m\n    colour: red\n    usd: {fresh: 1}",
        "prices: [",
        "per: 0\nprices: []",
        "prices:\n  - {model: m, usd: {fresh: 1, fresh: 2}}",
        "prices:\n  - {model: m, usd: {fresh: 1}}\n  - {model: m, usd: {fresh: 2}}",
        "prices:\n  - {model: m, usd: {}}",
        "prices:\n  - {model: m, usd: {fresh: 1}, above: [1]}",
        "prices:\n  - {model: m, usd: {fresh: 1}, above: {0: {fresh: 2}}}",
        "prices:\n  - {model: m, usd: {fresh: 1e400}}",
        "prices:\n  - {model: m, usd: {fresh: 1}, from: 2026-10-01T12:15:00Z}",
    ],
)
def test_what_is_no_list_of_prices_is_refused_with_its_name(tmp_path, text):
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(FileError, match=r"prices\.yaml"):
        FileBook(path)


def test_names_of_providers_and_tiers_are_taken_as_people_write_them(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("prices: [{provider: OpenAI, model: GPT-5, tier: standard, usd: {fresh: 1}}]")
    assert FileBook(path).rate("openai", "gpt-5", LATE).is_known
