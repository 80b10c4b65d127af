"""Requests that are sent again under the same Idempotency-Key: made once, and paid once.

While the first is under way, the same is refused; when it was answered in full, the answer is given
again. What broke off or failed may be tried again, as a call of its own. Answers are remembered by
this process, the latest, up to a number of bytes.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from weft.tokens.proxy.problems import Problem

__all__ = ["Kept", "Retries"]

MOST_BYTES = 64 * 2**20
"""Of all answers that are remembered. Chosen."""
LARGEST_BYTES = 2**20
"""Of one of them. Chosen: longer than any text that a model answers."""
EACH_BYTES = 1000
"""What an answer takes beside its body, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An answer."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


class Retries:
    """See the module."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], tuple[bytes, Kept | None]] = OrderedDict()
        self._bytes = 0

    def begin(self, node: str, key: str, raw: bytes) -> Kept | None:
        """The answer that a request was given before; None if it is to be made.

        Raises:
            Problem: it is under way, or the key was another request's.
        """
        name, digest = (node, key), hashlib.sha256(raw).digest()
        if name not in self._known:
            self._known[name] = digest, None
            return None
        first, kept = self._known[name]
        if first != digest:
            raise _refused(422, "the key of another request", "idempotency_key_reused")
        if kept is None:
            raise _refused(409, "a request that is under way already", "under_way")
        return kept

    def end(self, node: str, key: str, kept: Kept | None) -> None:
        """Remember an answer; None if there was none."""
        found = self._known.pop((node, key), None)
        if found is None or kept is None or len(kept.body) > LARGEST_BYTES:
            return
        self._known[node, key] = found[0], kept
        self._bytes += len(kept.body) + EACH_BYTES
        if self._bytes > MOST_BYTES:
            self._forget()

    def _forget(self) -> None:
        for name, (_, old) in list(self._known.items()):
            if old is not None:
                self._bytes -= len(old.body) + EACH_BYTES
                del self._known[name]
            if self._bytes <= MOST_BYTES / 2:
                break


def _refused(status: int, what: str, code: str) -> Problem:
    return Problem(
        status=status,
        kind="invalid_request_error",
        code=code,
        message=f"Idempotency-Key: {what}",
        headers=((b"retry-after", b"1"),) if status == 409 else (),
    )
