"""Usage as providers report it, and what it means: worked out by hand from their documentation."""

from __future__ import annotations

from typing import Any

from weft.tokens import Count, Usage

__all__ = ["OPENAI", "TABLE", "WORKED"]

OPENAI: dict[str, Any] = {
    "prompt_tokens": 20_000,
    "completion_tokens": 3_000,
    "total_tokens": 23_000,
    "prompt_tokens_details": {"cached_tokens": 16_000, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 2_500,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
WORKED = Usage.of(fresh=4_000, cache_read=16_000, text=500, reasoning=2_500)
"""20 k read, 16 k of it cached, 3 k generated, 2.5 k of it reasoning."""

TABLE: tuple[tuple[str, dict[str, Any], Usage], ...] = (
    ("openai-chat", OPENAI, WORKED),
    (
        "openai-chat",
        {
            "prompt_tokens": 100,
            "completion_tokens": 60,
            "prompt_tokens_details": {
                "cached_tokens": 30,
                "audio_tokens": 50,
                "cached_tokens_details": {"audio_tokens": 20},
            },
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 40,
                "rejected_prediction_tokens": 5,
            },
        },
        Usage.of(
            fresh=40,
            cache_read=10,
            audio_in=30,
            audio_cache_read=20,
            text=15,
            audio_out=40,
            rejected=5,
        ),
    ),
    (
        "openai-chat",
        {
            "prompt_tokens": 2_000,
            "completion_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 500, "cache_write_tokens": 1_200},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        Usage.of(fresh=300, cache_read=500, cache_write_5m=1_200, text=10),
    ),
    (
        "openai-responses",
        {
            "input_tokens": 20_000,
            "input_tokens_details": {"cached_tokens": 16_000},
            "output_tokens": 3_000,
            "output_tokens_details": {"reasoning_tokens": 2_500},
            "total_tokens": 23_000,
        },
        WORKED,
    ),
    (
        "xai-chat",
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "prompt_tokens_details": {"cached_tokens": 6},
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        Usage.of(fresh=26, cache_read=6, text=9, reasoning=94),
    ),
    (
        "anthropic",
        {
            "input_tokens": 50,
            "cache_read_input_tokens": 100_000,
            "cache_creation_input_tokens": 248,
            "cache_creation": {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
            "output_tokens": 503,
            "output_tokens_details": {"thinking_tokens": 400},
        },
        Usage.of(
            fresh=50,
            cache_read=100_000,
            cache_write_5m=148,
            cache_write_1h=100,
            text=103,
            reasoning=400,
        ),
    ),
    (
        "anthropic",  # before lifetimes were reported
        {
            "input_tokens": 50,
            "cache_read_input_tokens": 0,
            "cache_creation_input_tokens": 248,
            "output_tokens": 503,
            "output_tokens_details": {"thinking_tokens": 0},
        },
        Usage.of(
            fresh=50,
            cache_write_5m=Count(0, 248),
            cache_write_1h=Count(0, 248),
            text=503,
            input=298,
        ),
    ),
    (
        "gemini",
        {
            "promptTokenCount": 1_000,
            "cachedContentTokenCount": 400,
            "toolUsePromptTokenCount": 70,
            "candidatesTokenCount": 50,
            "thoughtsTokenCount": 200,
            "totalTokenCount": 1_320,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": 600},
                {"modality": "AUDIO", "tokenCount": 250},
                {"modality": "IMAGE", "tokenCount": 100},
                {"modality": "DOCUMENT", "tokenCount": 50},
            ],
            "cacheTokensDetails": [
                {"modality": "TEXT", "tokenCount": 300},
                {"modality": "AUDIO", "tokenCount": 60},
                {"modality": "IMAGE", "tokenCount": 40},
            ],
            "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 50}],
        },
        Usage.of(
            fresh=300,
            cache_read=340,
            audio_cache_read=60,
            audio_in=190,
            image_in=110,
            tool=70,
            text=50,
            reasoning=200,
        ),
    ),
    (
        "otel",
        {
            "gen_ai.usage.input_tokens": 300,
            "gen_ai.usage.cache_read.input_tokens": 40,
            "gen_ai.usage.cache_write.input_tokens": 0,
            "gen_ai.usage.image.input_tokens": 200,
            "gen_ai.usage.output_tokens": 180,
            "gen_ai.usage.reasoning.output_tokens": 50,
        },
        Usage.of(fresh=60, cache_read=40, image_in=200, text=130, reasoning=50),
    ),
    (
        "otel",  # names that were the convention once
        {
            "gen_ai.usage.prompt_tokens": 300,
            "gen_ai.usage.cache_read_input_tokens": 40,
            "gen_ai.usage.cache_creation_input_tokens": 0,
            "gen_ai.usage.completion_tokens": 180,
            "gen_ai.usage.output_tokens.reasoning": 50,
        },
        Usage.of(fresh=260, cache_read=40, text=130, reasoning=50),
    ),
    (
        "openinference",
        {
            "llm.token_count.prompt": 10,
            "llm.token_count.prompt_details.cache_read": 5,
            "llm.token_count.prompt_details.cache_write": 0,
            "llm.token_count.prompt_details.audio": 1,
            "llm.token_count.completion": 15,
            "llm.token_count.completion_details.reasoning": 10,
            "llm.token_count.total": 25,
        },
        Usage.of(fresh=4, cache_read=5, audio_in=1, text=5, reasoning=10),
    ),
    (
        "litellm",
        {
            "prompt_tokens": 100_298,
            "completion_tokens": 503,
            "total_tokens": 100_801,
            "prompt_tokens_details": {
                "cached_tokens": 100_000,
                "cache_creation_tokens": 248,
                "cache_creation_token_details": {
                    "ephemeral_5m_input_tokens": 148,
                    "ephemeral_1h_input_tokens": 100,
                },
            },
            "completion_tokens_details": {"reasoning_tokens": 400},
        },
        Usage.of(
            fresh=50,
            cache_read=100_000,
            cache_write_5m=148,
            cache_write_1h=100,
            text=103,
            reasoning=400,
        ),
    ),
    (
        "plain",
        {"input": "374", "cached": 0, "output": 44, "reasoning": 0.0},
        Usage.of(fresh=374, text=44),
    ),
)
"""Shape, what is reported, and the leaves."""
