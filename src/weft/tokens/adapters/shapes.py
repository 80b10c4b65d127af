"""The shapes of usage that providers report: what lies within what, and what beside.

A table of facts, each from the documentation that it names. `prompt_tokens` of one provider holds
cached tokens, `input_tokens` of another does not; reasoning is part of what one calls output, and
stands beside it at the next. That is all that differs.
"""

from __future__ import annotations

from types import MappingProxyType

from weft.tokens.adapters.shape import IMAGE_CACHE_READ, VIDEO_CACHE_READ, Number, Path, Shape

__all__ = ["SHAPES"]

_PROMPT = frozenset({"fresh", "cache_read", "cache_write_5m", "audio_in", "audio_cache_read"})
_COMPLETION = frozenset({"text", "reasoning", "audio_out", "rejected"})


def _number(leaves: str | frozenset[str], *paths: str | Path, none: bool = False) -> Number:
    """A number by its leaves, "fresh cache_read", and dotted names of where it stands."""
    return Number(
        paths=tuple(tuple(path.split(".")) if isinstance(path, str) else path for path in paths),
        leaves=frozenset(leaves.split()) if isinstance(leaves, str) else leaves,
        absent_is_none=none,
    )


def _openai(name: str, source: str, *, beside: bool = False) -> Shape:
    """Chat completions; `beside` where reasoning is not part of the completion."""
    return Shape(
        name=name,
        source=source,
        numbers=(
            _number(_PROMPT, "prompt_tokens"),
            _number("cache_read audio_cache_read", "prompt_tokens_details.cached_tokens"),
            # Models that write to a cache for money say so; the others have no such number.
            _number(
                "cache_write_5m",
                "prompt_tokens_details.cache_write_tokens",
                "prompt_tokens_details.cache_creation_tokens",
                none=True,
            ),
            _number("audio_in audio_cache_read", "prompt_tokens_details.audio_tokens", none=True),
            _number("audio_cache_read", "prompt_tokens_details.cached_tokens_details.audio_tokens"),
            _number(_COMPLETION - ({"reasoning"} if beside else set()), "completion_tokens"),
            _number("reasoning", "completion_tokens_details.reasoning_tokens"),
            _number("audio_out", "completion_tokens_details.audio_tokens", none=True),
            _number("rejected", "completion_tokens_details.rejected_prediction_tokens", none=True),
            _number(_PROMPT | _COMPLETION, "total_tokens"),
        ),
        input=("prompt_tokens",),
        output=(
            ("completion_tokens", "completion_tokens_details.reasoning_tokens")
            if beside
            else ("completion_tokens",)
        ),
        total="total_tokens",
    )


_RESPONSES = Shape(
    name="openai-responses",
    source="OpenAI API reference, responses: usage",
    numbers=(
        _number("fresh cache_read cache_write_5m", "input_tokens"),
        _number("cache_read", "input_tokens_details.cached_tokens"),
        _number("cache_write_5m", "input_tokens_details.cache_write_tokens", none=True),
        _number("text reasoning", "output_tokens"),
        _number("reasoning", "output_tokens_details.reasoning_tokens"),
        _number("fresh cache_read cache_write_5m text reasoning", "total_tokens"),
    ),
    input=("input_tokens",),
    output=("output_tokens",),
    total="total_tokens",
)

_ANTHROPIC = Shape(
    name="anthropic",
    source="Claude API reference, messages: usage; prompt caching, tracking cache performance",
    numbers=(
        _number("fresh", "input_tokens"),  # after the last cache breakpoint only
        _number("cache_read", "cache_read_input_tokens"),
        _number("cache_write_5m cache_write_1h", "cache_creation_input_tokens"),
        _number("cache_write_5m", "cache_creation.ephemeral_5m_input_tokens"),
        _number("cache_write_1h", "cache_creation.ephemeral_1h_input_tokens"),
        _number("text reasoning", "output_tokens"),
        _number("reasoning", "output_tokens_details.thinking_tokens"),
    ),
    input=("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
    output=("output_tokens",),
)

_GEMINI_PROMPT = (
    "fresh cache_read audio_in audio_cache_read image_in video_in"
    f" {IMAGE_CACHE_READ} {VIDEO_CACHE_READ}"
)
_GEMINI = Shape(
    name="gemini",
    source="Gemini API and Vertex AI references: GenerateContentResponse.UsageMetadata",
    # JSON of protocol buffers leaves zeros out, hence none=True. Modalities stand in lists, which
    # `gemini` turns into objects; a list that is missing says nothing.
    numbers=(
        _number(_GEMINI_PROMPT, "promptTokenCount", "prompt_token_count"),
        _number(
            f"cache_read audio_cache_read {IMAGE_CACHE_READ} {VIDEO_CACHE_READ}",
            "cachedContentTokenCount",
            "cached_content_token_count",
            none=True,
        ),
        _number("audio_in audio_cache_read", "promptTokensDetails.AUDIO"),
        _number(f"image_in {IMAGE_CACHE_READ}", "promptTokensDetails.IMAGE"),
        _number(f"video_in {VIDEO_CACHE_READ}", "promptTokensDetails.VIDEO"),
        _number("audio_cache_read", "cacheTokensDetails.AUDIO"),
        _number(IMAGE_CACHE_READ, "cacheTokensDetails.IMAGE"),
        _number(VIDEO_CACHE_READ, "cacheTokensDetails.VIDEO"),
        _number("tool", "toolUsePromptTokenCount", "tool_use_prompt_token_count", none=True),
        _number(
            "text audio_out image_out",
            "candidatesTokenCount",
            "candidates_token_count",
            "responseTokenCount",  # of the live API
            none=True,
        ),
        _number("audio_out", "candidatesTokensDetails.AUDIO"),
        _number("image_out", "candidatesTokensDetails.IMAGE"),
        _number("reasoning", "thoughtsTokenCount", "thoughts_token_count", none=True),
        _number(
            f"{_GEMINI_PROMPT} tool text audio_out image_out reasoning",
            "totalTokenCount",
            "total_token_count",
        ),
    ),
    input=("promptTokenCount", "toolUsePromptTokenCount"),
    output=("candidatesTokenCount", "thoughtsTokenCount"),
    total="totalTokenCount",
)


def _at(*names: str) -> tuple[Path, ...]:
    """Attributes of spans: their names have dots of their own."""
    return tuple((name,) for name in names)


_SPAN_INPUT = (
    "fresh cache_read cache_write_5m cache_write_1h audio_in audio_cache_read image_in"
    f" {IMAGE_CACHE_READ}"
)
_USAGE = "gen_ai.usage."
_OTEL = Shape(
    name="otel",
    source="OpenTelemetry semantic conventions for generative AI, client inference spans",
    # Later names first. Each of the others was the convention once, or is Sentry's or Langfuse's.
    numbers=(
        _number(_SPAN_INPUT, *_at(f"{_USAGE}input_tokens", f"{_USAGE}prompt_tokens")),
        _number(
            f"cache_read audio_cache_read {IMAGE_CACHE_READ}",
            *_at(
                f"{_USAGE}cache_read.input_tokens",
                f"{_USAGE}cache_read_input_tokens",
                f"{_USAGE}input_tokens.cached",
                f"{_USAGE}details.cache_read_input_tokens",
            ),
        ),
        _number(
            "cache_write_5m cache_write_1h",
            *_at(
                f"{_USAGE}cache_write.input_tokens",
                f"{_USAGE}cache_creation.input_tokens",
                f"{_USAGE}cache_creation_input_tokens",
                f"{_USAGE}input_tokens.cache_write",
                f"{_USAGE}details.cache_creation_input_tokens",
            ),
        ),
        _number("audio_in audio_cache_read", *_at(f"{_USAGE}audio.input_tokens"), none=True),
        _number("audio_cache_read", *_at(f"{_USAGE}audio.cache_read.input_tokens"), none=True),
        _number(f"image_in {IMAGE_CACHE_READ}", *_at(f"{_USAGE}image.input_tokens"), none=True),
        _number(IMAGE_CACHE_READ, *_at(f"{_USAGE}image.cache_read.input_tokens"), none=True),
        _number(
            "text reasoning audio_out image_out",
            *_at(f"{_USAGE}output_tokens", f"{_USAGE}completion_tokens"),
        ),
        _number(
            "reasoning",
            *_at(
                f"{_USAGE}reasoning.output_tokens",
                f"{_USAGE}output_tokens.reasoning",
                f"{_USAGE}reasoning_tokens",
                f"{_USAGE}details.reasoning_tokens",
            ),
        ),
        _number("audio_out", *_at(f"{_USAGE}audio.output_tokens"), none=True),
        _number("image_out", *_at(f"{_USAGE}image.output_tokens"), none=True),
        _number(f"{_SPAN_INPUT} text reasoning audio_out image_out", *_at(f"{_USAGE}total_tokens")),
    ),
    input=(f"{_USAGE}input_tokens",),
    output=(f"{_USAGE}output_tokens",),
    total=f"{_USAGE}total_tokens",
)

_COUNT = "llm.token_count."
_OPENINFERENCE = Shape(
    name="openinference",
    source="OpenInference specification, semantic conventions: llm.token_count",
    numbers=(
        _number("fresh cache_read cache_write_5m cache_write_1h audio_in", *_at(f"{_COUNT}prompt")),
        _number(
            "cache_read",
            *_at(f"{_COUNT}prompt_details.cache_read", f"{_COUNT}prompt_details.cache_input"),
        ),
        _number("cache_write_5m cache_write_1h", *_at(f"{_COUNT}prompt_details.cache_write")),
        _number("audio_in", *_at(f"{_COUNT}prompt_details.audio"), none=True),
        _number("text reasoning audio_out", *_at(f"{_COUNT}completion")),
        _number("reasoning", *_at(f"{_COUNT}completion_details.reasoning")),
        _number("audio_out", *_at(f"{_COUNT}completion_details.audio"), none=True),
        _number(
            "fresh cache_read cache_write_5m cache_write_1h audio_in text reasoning audio_out",
            *_at(f"{_COUNT}total"),
        ),
    ),
    input=(f"{_COUNT}prompt",),
    output=(f"{_COUNT}completion",),
    total=f"{_COUNT}total",
)

_DETAILS = "prompt_tokens_details"
_LITELLM_PROMPT = _PROMPT | {"cache_write_1h", "image_in"}
_LITELLM_COMPLETION = _COMPLETION | {"image_out"}
_LITELLM = Shape(
    name="litellm",
    source="LiteLLM, StandardLoggingPayload and Usage: counts of every provider in OpenAI's form,"
    " cached tokens and those written to caches within the prompt",
    numbers=(
        _number(_LITELLM_PROMPT, "prompt_tokens"),
        _number(
            "cache_read audio_cache_read", f"{_DETAILS}.cached_tokens", "cache_read_input_tokens"
        ),
        _number(
            "cache_write_5m cache_write_1h",
            f"{_DETAILS}.cache_write_tokens",
            f"{_DETAILS}.cache_creation_tokens",
            "cache_creation_input_tokens",
        ),
        _number(
            "cache_write_5m",
            f"{_DETAILS}.cache_creation_token_details.ephemeral_5m_input_tokens",
        ),
        _number(
            "cache_write_1h",
            f"{_DETAILS}.cache_creation_token_details.ephemeral_1h_input_tokens",
        ),
        _number("audio_in audio_cache_read", f"{_DETAILS}.audio_tokens", none=True),
        _number("image_in", f"{_DETAILS}.image_tokens", none=True),
        _number(_LITELLM_COMPLETION, "completion_tokens"),
        _number("reasoning", "completion_tokens_details.reasoning_tokens"),
        _number("audio_out", "completion_tokens_details.audio_tokens", none=True),
        _number("image_out", "completion_tokens_details.image_tokens", none=True),
        _number("rejected", "completion_tokens_details.rejected_prediction_tokens", none=True),
        _number(_LITELLM_PROMPT | _LITELLM_COMPLETION, "total_tokens"),
    ),
    input=("prompt_tokens",),
    output=("completion_tokens",),
    total="total_tokens",
)

_PLAIN = Shape(
    name="plain",
    source="columns of a table: what was read and what was generated, no more",
    numbers=(
        _number("fresh cache_read", "input"),
        _number("cache_read", "cached"),
        _number("text reasoning", "output"),
        _number("reasoning", "reasoning"),
    ),
    input=("input",),
    output=("output",),
)

SHAPES = MappingProxyType(
    {
        shape.name: shape
        for shape in (
            _openai("openai-chat", "OpenAI API reference, chat completions: usage"),
            _RESPONSES,
            _openai(
                "xai-chat",
                "xAI documentation, reasoning: reasoning_tokens are separate from"
                " completion_tokens",
                beside=True,
            ),
            _ANTHROPIC,
            _GEMINI,
            _OTEL,
            _OPENINFERENCE,
            _LITELLM,
            _PLAIN,
        )
    }
)
"""By name."""
