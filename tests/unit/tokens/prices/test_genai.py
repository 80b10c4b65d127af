import datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price

from weft.tokens import TokenClass, Usage
from weft.tokens.prices import GenaiBook, cost

NOW = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
BOOK = GenaiBook()


def rate(model, provider, **how):
    return BOOK.rate(provider, model, NOW.timestamp(), **how)


CASES = [
    ("openai", "gpt-5", 4_000, 16_000, 0, 0, 3_000),
    ("openai", "gpt-5.4", 300_000, 0, 0, 0, 3_000),
    ("openai", "gpt-4o-mini", 100, 28, 0, 0, 7),
    ("anthropic", "claude-sonnet-4-5", 50, 100_000, 148, 100, 503),
    ("anthropic", "claude-sonnet-4-5", 150_000, 100_000, 148, 100, 503),
    ("anthropic", "claude-opus-4-5", 1, 0, 0, 0, 1),
    ("google", "gemini-2.5-pro", 150_000, 60_000, 0, 0, 100),
    ("google", "gemini-2.5-pro", 150_000, 50_000, 0, 0, 100),
    ("deepseek", "deepseek-chat", 1000, 10, 0, 0, 5),
]


@pytest.mark.parametrize(("provider", "model", "fresh", "read", "short", "long", "out"), CASES)
def test_costs_are_those_that_the_library_itself_finds(
    provider, model, fresh, read, short, long, out
):
    used = Usage.of(
        fresh=fresh, cache_read=read, cache_write_5m=short, cache_write_1h=long, text=out
    )
    theirs = calc_price(
        TheirUsage(
            input_tokens=used.input.low,
            cache_read_tokens=read,
            cache_write_tokens=short + long,
            cache_write_1h_tokens=long,
            output_tokens=out,
        ),
        model,
        provider_id=provider,
        genai_request_timestamp=NOW,
    )
    ours = cost(used, rate(model, provider))
    assert ours.is_exact
    assert ours.low == theirs.total_price


def test_batches_cost_what_the_book_says_of_them():
    assert rate("gpt-5", "openai", tier="batch").step(0).price(TokenClass.TEXT) == Decimal("5e-6")


def test_a_tier_without_prices_of_its_own_is_not_priced_as_another():
    early = BOOK.rate("openai", "gpt-5", 1_760_000_000.0, tier="batch")
    assert not early.is_known
    assert "batch" in early.why


def test_a_model_or_provider_that_is_not_there_has_no_price_and_a_reason():
    for provider, model in (("openai", "nothing-of-theirs"), ("nobody", "gpt-5"), ("", "no-model")):
        found = rate(model, provider)
        assert not found.is_known
        assert found.why


def test_audio_has_a_price_of_its_own_or_none():
    assert rate("gemini-2.5-flash", "google").step(0).price(TokenClass.AUDIO_IN) == Decimal("1e-6")
    assert rate("gpt-5", "openai").step(0).price(TokenClass.AUDIO_IN) is None


def test_the_source_names_version_and_digest():
    assert BOOK.source.name == "genai-prices"
    assert len(BOOK.source.digest) == 16
