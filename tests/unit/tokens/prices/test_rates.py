from decimal import Decimal

import pytest

from weft.tokens import INPUT, OUTPUT, TokenClass
from weft.tokens.prices import FALLBACKS, BookSource, Rates, Step

CHEAP = Step(usd={TokenClass.FRESH: Decimal(1), TokenClass.TEXT: Decimal(8)})


def test_a_class_without_a_price_has_that_of_the_class_it_is_billed_as():
    assert CHEAP.price(TokenClass.REASONING) == 8
    assert CHEAP.price(TokenClass.CACHE_READ) == CHEAP.price(TokenClass.IMAGE_IN) == 1


@pytest.mark.parametrize("leaf", ["audio_in", "audio_out", "image_out", "cache_write_1h"])
def test_what_is_dearer_than_text_has_no_price_of_texts(leaf):
    assert CHEAP.price(TokenClass(leaf)) is None


def test_a_price_of_its_own_goes_first():
    step = Step(usd={**CHEAP.usd, TokenClass.REASONING: Decimal(9)})
    assert step.price(TokenClass.REASONING) == 9


def test_input_is_billed_as_input_and_output_as_output():
    assert all((leaf in INPUT) == (other in INPUT) for leaf, other in FALLBACKS.items())
    assert all((leaf in OUTPUT) == (other in OUTPUT) for leaf, other in FALLBACKS.items())


def test_a_step_holds_above_its_size_and_not_at_it():
    dear = Step(above=200, usd=CHEAP.usd)
    rates = Rates(provider="p", model="m", steps=(CHEAP, dear))
    assert [rates.step(size) for size in (0, 200, 201)] == [CHEAP, CHEAP, dear]
    assert rates.thresholds == (200,)


def test_a_source_says_all_that_is_needed_to_find_it_again():
    assert str(BookSource(name="book", version="1.2", digest="ab")) == "book 1.2 (ab)"
    assert str(BookSource(name="mine.yaml", version="", digest="ab")) == "mine.yaml (ab)"
