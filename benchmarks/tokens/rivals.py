"""What others say that a usage costs: run by the Python that they are installed in.

    python rivals.py < cases.json

Cases are a list of objects with provider, model, time and usage; the answer has, for each rival,
its version and a list of costs, or why there are none. Knows nothing of weft, which that Python
need not have.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

Case = dict[str, Any]


def _litellm(cases: list[Case]) -> list[object]:
    import litellm  # pyright: ignore[reportMissingImports]
    from litellm.types.utils import (  # pyright: ignore[reportMissingImports]
        CacheCreationTokenDetails,
        CompletionTokensDetailsWrapper,
        PromptTokensDetailsWrapper,
        Usage,
    )

    def one(case: Case) -> float:
        own = case["usage"]
        written = own["cache_write_5m"] + own["cache_write_1h"]
        prompt = own["fresh"] + own["cache_read"] + written
        output = own["text"] + own["reasoning"]
        usage = Usage(
            prompt_tokens=prompt,
            completion_tokens=output,
            total_tokens=prompt + output,
            prompt_tokens_details=PromptTokensDetailsWrapper(
                cached_tokens=own["cache_read"],
                cache_creation_tokens=written,
                cache_creation_token_details=CacheCreationTokenDetails(
                    ephemeral_5m_input_tokens=own["cache_write_5m"],
                    ephemeral_1h_input_tokens=own["cache_write_1h"],
                ),
            ),
            completion_tokens_details=CompletionTokensDetailsWrapper(
                reasoning_tokens=own["reasoning"]
            ),
            cache_creation_input_tokens=written,
            cache_read_input_tokens=own["cache_read"],
        )
        provider = {"google": "gemini"}.get(case["provider"], case["provider"])
        return sum(
            litellm.cost_per_token(
                model=case["model"], custom_llm_provider=provider, usage_object=usage
            )
        )

    return [_tried(one, case) for case in cases]


def _genai(cases: list[Case]) -> list[object]:
    from genai_prices import Usage, calc_price

    def one(case: Case) -> str:
        own = case["usage"]
        written = own["cache_write_5m"] + own["cache_write_1h"]
        usage = Usage(
            input_tokens=own["fresh"] + own["cache_read"] + written,
            cache_read_tokens=own["cache_read"],
            cache_write_tokens=written,
            cache_write_1h_tokens=own["cache_write_1h"],
            output_tokens=own["text"] + own["reasoning"],
        )
        at = datetime.datetime.fromtimestamp(case["at"], tz=datetime.UTC)
        found = calc_price(
            usage, case["model"], provider_id=case["provider"], genai_request_timestamp=at
        )
        return str(found.total_price)

    return [_tried(one, case) for case in cases]


def _tokencost(cases: list[Case]) -> list[object]:
    from tokencost import calculate_cost_by_tokens  # pyright: ignore[reportMissingImports]

    def one(case: Case) -> str:
        own = case["usage"]
        read = own["fresh"] + own["cache_read"] + own["cache_write_5m"] + own["cache_write_1h"]
        costs = (
            calculate_cost_by_tokens(count, case["model"], kind)
            for count, kind in ((read, "input"), (own["text"] + own["reasoning"], "output"))
        )
        return str(sum(costs))

    return [_tried(one, case) for case in cases]


def _tried(one: Callable[[Case], object], case: Case) -> object:
    try:
        return one(case)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:200]}


_RIVALS = {"litellm": _litellm, "genai-prices": _genai, "tokencost": _tokencost}


def main() -> None:
    """Answer."""
    cases = json.load(sys.stdin)
    answer: dict[str, object] = {}
    for name, ask in _RIVALS.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer[name] = {"version": version, "costs": ask(cases)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
