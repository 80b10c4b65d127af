"""Records and calls that several tests are about."""

from weft.tokens import Call, Usage

NOON = 1_793_534_400.0
"""2026-11-01T12:00:00Z"""


def reply(number, **changed):
    """A chat completion as a log keeps it."""
    return {
        "agent": "coder",
        "task": f"t{number // 2}",
        "response": {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": NOON + number,
            "model": "gpt-5",
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "prompt_tokens_details": {"cached_tokens": 40},
                "completion_tokens_details": {"reasoning_tokens": 4},
            },
        },
        **changed,
    }


def a_call(number=0, **changed):
    """A call of 60 fresh tokens, 40 cached ones, 6 of text and 4 of reasoning."""
    return Call(
        **{
            "id": f"c{number}",
            "source": "proxy",
            "at": NOON + number,
            "provider": "openai",
            "model": "gpt-5",
            "usage": Usage.of(fresh=60, cache_read=40, text=6, reasoning=4),
            **changed,
        }
    )
