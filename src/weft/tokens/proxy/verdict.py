"""Whether what a provider reports can be: it is believed within what was sent, allowed and seen."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from weft.core.errors import InputError
from weft.tokens.adapters import read_usage
from weft.tokens.proxy.answer import Answer
from weft.tokens.proxy.request import Api
from weft.tokens.proxy.terms import Terms
from weft.tokens.usage import Usage

__all__ = ["Verdict", "judge"]

SHOWN = 2000
"""Characters that are kept of a report that is not believed. Chosen."""
_BROKEN = (InputError, ValueError, TypeError, KeyError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a call used, as far as that can be known.

    Attributes:
        usage: by class; between bounds where the report is not believed.
        is_believed: whether it is the report.
        lie: why it is not, and its words; None if nothing is wrong with it.
    """

    usage: Usage
    is_believed: bool
    lie: tuple[str, str] | None = None


def judge(
    answer: Answer, api: Api, provider: str, terms: Terms, limit: int, *, broke_off: bool = False
) -> Verdict:
    """Read a report, and compare it with what is known without it.

    Args:
        answer: what was seen.
        api: whose form it has.
        provider: what numbers mean differs between those who use the form.
        terms: of the call.
        limit: tokens that each answer was held to.
        broke_off: whether more might have come: usage that is missing is then nobody's fault.

    Returns:
        The report's usage if it is one, is complete, and lies within what can have been read, what
        was allowed to be generated and what was seen of it. Otherwise these bounds.
    """

    def doubted(why: str) -> Verdict:
        words = json.dumps({"id": answer.id, "usage": answer.usage}, default=str)[:SHOWN]
        usage = terms.bounds(limit, answer.seen)
        return Verdict(usage=usage, is_believed=False, lie=(why, words))

    reported = answer.usage
    if reported is None:
        if broke_off or not answer.is_whole:
            return Verdict(usage=terms.bounds(limit, answer.seen), is_believed=False)
        return doubted("need usage with the answer; got none")
    if not isinstance(reported, dict):
        return doubted(f"need usage as an object; got {str(reported)[:80]}")
    if not answer.is_whole:
        # What a stream said on the way is no sum of it.
        return Verdict(usage=terms.bounds(limit, answer.seen), is_believed=False)
    shape = "openai-responses" if api is Api.RESPONSES else "openai-chat"
    if api is Api.CHAT and provider == "x-ai":
        shape = "xai-chat"
    try:
        usage = read_usage(shape, cast("dict[str, Any]", reported))
    except InputError as error:
        return doubted(f"need {error.need}; got {error.got}")
    except _BROKEN as error:
        return doubted(f"need usage; got {type(error).__name__}: {error}")
    why = _impossible(usage, answer, terms.input_bound, limit * terms.choices)
    return doubted(why) if why else Verdict(usage=usage, is_believed=True)


def _impossible(usage: Usage, answer: Answer, read: int, written: int) -> str:
    if not (usage.input.is_exact and usage.output.is_exact):
        return f"need tokens read and generated; got {usage.input} and {usage.output}"
    if usage.input.low > read:
        return f"need at most {read} tokens read, of what was sent; got {usage.input}"
    if usage.output.low > written:
        return f"need at most the {written} tokens that were allowed; got {usage.output}"
    if usage.output.low < answer.seen:
        return f"need at least {answer.seen} tokens for the text that came; got {usage.output}"
    return ""
