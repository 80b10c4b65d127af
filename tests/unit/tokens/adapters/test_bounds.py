import pytest

from weft.core.errors import InputError
from weft.tokens import Count, TokenClass, exactly
from weft.tokens.adapters import read_usage

CROSSED = {
    "prompt_tokens": 100,
    "completion_tokens": 1,
    "prompt_tokens_details": {"cached_tokens": 80, "audio_tokens": 50},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


def test_sets_that_cross_give_bounds_that_hold_every_way_they_can_overlap():
    used = read_usage("openai-chat", CROSSED)
    for both in range(30, 51):  # cached audio: at least 80 + 50 - 100
        assert used[TokenClass.AUDIO_CACHE_READ].low <= both
        assert both <= used[TokenClass.AUDIO_CACHE_READ].high
        assert used[TokenClass.FRESH].high >= 100 - 80 - 50 + both
    assert used.input == exactly(100)


def test_sets_that_cross_and_cannot_fit_are_an_error():
    details = {"cached_tokens": 101, "audio_tokens": 50}
    with pytest.raises(InputError, match="cached_tokens"):
        read_usage("openai-chat", {**CROSSED, "prompt_tokens_details": details})


def test_a_total_that_is_too_small_for_a_stream_that_broke_off_is_an_error():
    seen = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 50}
    assert read_usage("openai-chat", {**seen, "total_tokens": 107}, broke_off=True).output == Count(
        7, None
    )
    # What was seen of the total may have gone on, so that only what is fixed can contradict it.
    assert read_usage("openai-chat", seen, broke_off=True).input == exactly(100)
