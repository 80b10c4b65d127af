"""Lines that LiteLLM logs: its standard payload for callbacks, and rows of its spend logs.

Source: LiteLLM documentation, StandardLoggingPayload specification and spend logs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from weft.tokens.adapters.envelope import Plain, about, content_id, name_in, seconds, tier_name
from weft.tokens.adapters.providers import provider_name, provider_of_model
from weft.tokens.adapters.shapes import SHAPES
from weft.tokens.adapters.solve import read_numbers
from weft.tokens.call import Call, Status
from weft.tokens.usage import Usage

__all__ = ["is_litellm", "litellm_calls"]

_PAYER = (
    *("team_alias", "user_api_key_team_alias", "team_id", "user_api_key_team_id"),
    *("user_api_key_alias", "user_api_key_user_id", "user"),
)


def is_litellm(record: Plain) -> bool:
    """Whether a record is one of LiteLLM's."""
    return "call_type" in record and "startTime" in record and "prompt_tokens" in record


def litellm_calls(record: Plain, at: float | None) -> Iterator[Call]:
    """The call that a line is about."""
    del at  # lines have times
    metadata = _object(record.get("metadata"))
    told = about({**record, "metadata": _told(metadata)}, {})
    start = seconds(record["startTime"])
    end = record.get("endTime")
    took = None if end is None else seconds(end) - start
    failed = record.get("status") == "failure"
    provider = provider_name(name_in(record, "custom_llm_provider"))
    model = name_in(record, "model")
    told.update(
        payer=name_in(metadata, *_PAYER) or name_in(record, *_PAYER) or told.get("payer", ""),
        agent=told.get("agent") or name_in(record, "agent_id"),
        session=told.get("session") or name_in(record, "session_id", "trace_id"),
    )
    yield Call(
        id=name_in(record, "id", "request_id", "litellm_call_id") or content_id(record),
        source="litellm",
        at=start,
        seconds=took if took is not None and took >= 0 else None,
        model=model.removeprefix(f"{name_in(record, 'custom_llm_provider')}/").lower(),
        provider=provider or provider_of_model(model),
        usage=_usage(record, metadata, failed=failed),
        status=Status.FAILED if failed else Status.DONE,
        tier=tier_name(_object(metadata.get("usage_object")).get("service_tier")),
        labels={"skew": f"ended {-took:.3f} s before it began"} if took and took < 0 else {},
        **{
            name: value
            for name, value in told.items()
            if name not in ("parent", "seconds", "labels")
        },
    )


def _usage(record: Plain, metadata: Plain, *, failed: bool) -> Usage:
    if str(record.get("cache_hit")).lower() == "true":
        return Usage()  # answered from LiteLLM's own cache: no model read or wrote anything
    hidden = _object(record.get("hidden_params"))
    usage = _object(metadata.get("usage_object")) or _object(hidden.get("usage_object"))
    own = {
        name: record.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    }
    if failed and not any(own.values()):
        return Usage()  # LiteLLM writes zeros for what was refused
    return read_numbers(SHAPES["litellm"], {**own, **usage})


def _told(metadata: Plain) -> dict[str, Any]:
    """What the caller said about a request, which LiteLLM keeps one level down."""
    told: dict[str, Any] = {}
    for name in ("requester_metadata", "spend_logs_metadata"):
        told.update(_object(metadata.get(name)))
    return told


def _object(value: object) -> dict[str, Any]:
    """An object, which rows of a database hold as text."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
