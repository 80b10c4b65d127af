import json
from decimal import Decimal

import pytest

from weft.core.errors import FileError, InputError
from weft.tokens import TokenClass, Usage
from weft.tokens.prices import LitellmBook, cost

MAP = {
    "toy-1": {
        "litellm_provider": "openai",
        "input_cost_per_token": 1.25e-06,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "input_cost_per_token_batches": 6.25e-07,
        "output_cost_per_token": 1e-05,
        "output_cost_per_token_batches": 5e-06,
        "cache_read_input_token_cost": 1.25e-07,
        "cache_creation_input_token_cost": 2e-06,
    },
    "claude-toy": {
        "input_cost_per_token": 3e-06,
        "output_cost_per_token": 1.5e-05,
        "cache_creation_input_token_cost": 3.75e-06,
    },
    "gemini/toy-2": {
        "input_cost_per_token": 1e-06,
        "input_cost_per_audio_token": 4e-06,
        "output_cost_per_token": 2e-06,
        "output_cost_per_reasoning_token": 3e-06,
    },
    "toy-3": {
        "tiered_pricing": [
            {"range": [0, 256000.0], "input_cost_per_token": 5e-08, "output_cost_per_token": 4e-07},
            {
                "range": [256000.0, 1e6],
                "input_cost_per_token": 1e-07,
                "output_cost_per_token": 8e-07,
            },
        ]
    },
    "picture": {"output_cost_per_image": 0.02},
}


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps(MAP))
    return LitellmBook(path)


def price(book, model, leaf, provider="", size=0, **how):
    return book.rate(provider, model, 0.0, **how).step(size).price(TokenClass(leaf))


def test_prices_are_taken_as_they_are_written(book):
    assert price(book, "toy-1", "fresh") == Decimal("0.00000125")
    assert price(book, "toy-1", "cache_read") == Decimal("0.000000125")
    used = Usage.of(fresh=4_000, cache_read=16_000, text=500, reasoning=2_500)
    assert cost(used, book.rate("openai", "toy-1", 0.0)).low == Decimal("0.037")


def test_above_a_size_prices_are_others_and_those_that_have_none_stay(book):
    assert price(book, "toy-1", "fresh", size=200_001) == Decimal("0.0000025")
    assert price(book, "toy-1", "text", size=200_001) == Decimal("0.00001")


def test_a_tier_has_prices_of_its_own_or_none(book):
    assert price(book, "toy-1", "text", tier="batch") == Decimal("0.000005")
    assert not book.rate("", "toy-1", 0.0, tier="flex").is_known


def test_a_model_is_found_under_its_providers_prefix(book):
    assert price(book, "toy-2", "audio_in", provider="google") == Decimal("0.000004")
    assert price(book, "toy-2", "reasoning", provider="google") == Decimal("0.000003")
    assert not book.rate("openai", "toy-2", 0.0).is_known


def test_a_list_of_ranges_is_steps(book):
    assert price(book, "toy-3", "fresh") == Decimal("5e-8")
    assert price(book, "toy-3", "text", size=256_001) == Decimal("8e-7")


def test_an_hour_in_a_cache_is_dearer_where_there_are_two_lifetimes(book):
    assert price(book, "toy-1", "cache_write_1h") == Decimal("0.000002")
    assert price(book, "claude-toy", "cache_write_1h") is None


def test_what_is_not_priced_by_tokens_has_no_price(book):
    assert not book.rate("", "picture", 0.0).is_known
    assert "no toy-9" in book.rate("openai", "toy-9", 0.0).why


def test_a_file_that_is_no_map_is_named(tmp_path):
    path = tmp_path / "map.json"
    path.write_text("[1, 2")
    with pytest.raises(FileError, match="map of prices"):
        LitellmBook(path)


def test_without_the_package_the_error_says_what_to_do(monkeypatch):
    import importlib.metadata

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(InputError, match="--prices genai"):
        LitellmBook()
