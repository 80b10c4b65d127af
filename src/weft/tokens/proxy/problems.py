"""What clients are told where something goes wrong: errors in OpenAI's form, and what helps."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from weft.core.errors import WeftError
from weft.tokens.budgets.records import Account
from weft.tokens.budgets.refusal import BudgetError
from weft.tokens.budgets.window import Window

__all__ = [
    "Problem",
    "bad_request",
    "broken_upstream",
    "no_room",
    "not_known",
    "trouble",
    "window_left",
]

Headers = tuple[tuple[bytes, bytes], ...]


NO_RETRY: Headers = ((b"x-should-retry", b"false"),)
"""What OpenAI's client goes by before it looks at the status."""


@dataclass(kw_only=True, eq=False)
class Problem(Exception):
    """An answer that is an error.

    Attributes:
        status: of HTTP.
        kind: "type" of OpenAI's errors.
        code: what programs look at.
        message: what people read.
        parts: need, got and hint, each by itself.
        headers: that go with it.
    """

    status: int
    kind: str
    code: str
    message: str
    parts: dict[str, str] = field(default_factory=dict[str, str])
    headers: Headers = ()

    def body(self) -> bytes:
        """In JSON."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": None,
            "code": self.code,
            **self.parts,
        }
        return json.dumps({"error": error}).encode()


def _said(error: WeftError) -> dict[str, str]:
    return {"need": error.need, "got": error.got, "hint": error.hint}


def bad_request(error: WeftError, code: str = "invalid_request") -> Problem:
    """A request that cannot be used."""
    return Problem(
        status=400,
        kind="invalid_request_error",
        code=code,
        message=str(error),
        parts=_said(error),
        headers=NO_RETRY,
    )


def no_room(error: BudgetError, accounts: Sequence[Account], now: float) -> Problem:
    """A budget that is used up: for good, until its window ends, or until others have settled.

    Args:
        error: the refusal.
        accounts: of the node that pays and those above.
        now: the time [s since 1970].
    """
    own = next(
        (a for a in accounts if a.node == error.node and a.unit == error.left.currency), None
    )
    headers = NO_RETRY
    hint = "ask for a larger cap: this one has no window, so waiting does not help"
    if own is not None and own.held > 0:
        headers = ((b"retry-after", b"1"),)
        hint = "others are in flight: what they do not use can be had when they have ended"
    elif own is not None and own.window.kind != "none":
        hint = "wait until the window of that cap ends, or ask for a larger one"
        headers = ((b"retry-after", str(window_left(own.window, now)).encode()), *NO_RETRY)
    error.hint = hint
    return Problem(
        status=429,
        kind="insufficient_quota",
        code="budget_exceeded",
        message=str(error),
        parts={**_said(error), "node": error.node},
        headers=headers,
    )


def window_left(window: Window, now: float) -> int:
    """Seconds until something of a window is forgotten, at least 1; 0 where nothing ever is."""
    if window.kind == "none":
        return 0
    if window.kind == "rolling":
        return window.length_s
    # No calendar's window ends within an hour by its clock.
    return max(1, math.ceil(_window_end(window, now // 3600 * 3600) - now))


@lru_cache(maxsize=64)
def _window_end(window: Window, hour: float) -> float:
    end, number = hour + 3600.0, window.slice(hour)
    while window.slice(end) == number:
        end += 3600.0
    return end


def not_known(what: str, *, status: int = 404) -> Problem:
    """A key or an address that there is none of."""
    if status == 401:
        return Problem(
            status=401,
            kind="invalid_request_error",
            code="invalid_api_key",
            message=f"{what}: need a key of this proxy's as Authorization: Bearer",
            headers=((b"www-authenticate", b"Bearer"),),
        )
    return Problem(status=status, kind="invalid_request_error", code="unknown_url", message=what)


def broken_upstream(what: str, *, status: int = 502, code: str = "upstream_failed") -> Problem:
    """A provider that does not answer as it should."""
    return Problem(status=status, kind="upstream_error", code=code, message=what)


def trouble(what: str) -> Problem:
    """Something here cannot be written, so nothing may be spent."""
    return Problem(
        status=503,
        kind="server_error",
        code="cannot_write",
        message=f"nothing can be spent while nothing can be written down: {what}",
        headers=((b"retry-after", b"5"),),
    )
