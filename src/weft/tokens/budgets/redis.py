"""Budgets in Redis, for processes on many machines: the laws as a script that Redis runs alone.

What survives a crash of Redis itself is what its persistence keeps: with appendfsync always
everything, with everysec all but the last second. Processes bring the time along, and the latest
that any of them told holds, so their clocks should agree to within a window's slice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from weft.core.errors import InputError, RunError, WeftError
from weft.tokens.budgets import refusal
from weft.tokens.budgets.node import Amounts, Cap
from weft.tokens.budgets.records import Account, Entry, Hold, Kind
from weft.tokens.budgets.store import Ended
from weft.tokens.budgets.window import parse_window

__all__ = ["RedisStore"]

CHUNK = 10_000
"""Entries read at a time. Chosen: a megabyte or two."""


class RedisStore:
    """The laws on a database of Redis.

    Args:
        address: "redis://host:port/number?name=team"; budgets of different names do not meet.

    Raises:
        InputError: the client is not installed.
        RunError: the server does not answer.
    """

    def __init__(self, address: str) -> None:
        try:
            client = import_module("redis")
        except ImportError as error:
            raise InputError(
                need="the client of Redis", got=str(error), hint="pip install 'weft[redis]'"
            ) from error
        parts = urlsplit(address)
        name = parse_qs(parts.query).get("name", ["budget"])[0]
        self._prefix = f"weft:{{{name}}}:"
        self._address = parts._replace(query="").geturl()
        # A retry after a lost answer could settle twice: whoever called decides.
        retry = client.retry.Retry(client.backoff.NoBackoff(), 0)
        self._client = client.Redis.from_url(self._address, decode_responses=True, retry=retry)
        self._lost: tuple[type[Exception], ...] = (client.exceptions.RedisError, OSError)
        text = Path(__file__).with_name("budget.lua").read_text(encoding="utf-8")
        self._script = self._client.register_script(text)
        self._run("accounts", {}, 0.0)

    def _run(self, law: str, argument: Mapping[str, object], now: float) -> Any:  # noqa: ANN401
        try:
            answer = self._script(
                keys=[self._prefix], args=[law, repr(float(now)), json.dumps(argument)]
            )
        except self._lost as error:
            raise RunError(
                need=f"an answer of Redis at {self._address}",
                got=f"{type(error).__name__}: {error}",
                hint="whether it was done is unknown: reserve again with the same key",
            ) from error
        told: Any = json.loads(answer)
        if "err" in told:
            raise _REFUSALS[told["err"]](told)
        return told

    def define(self, path: str, caps: Sequence[Cap], now: float) -> None:
        """Add a node."""
        plain = [
            {"unit": c.most.currency, "window": str(c.window), "cap": str(c.most.nano)}
            for c in caps
        ]
        self._run("define", {"path": path, "caps": plain}, now)

    def raise_cap(self, path: str, cap: Cap, now: float) -> None:
        """Change a cap."""
        plain = {"unit": cap.most.currency, "window": str(cap.window), "cap": str(cap.most.nano)}
        self._run("raise_cap", {"path": path, **plain}, now)

    def reserve(self, hold: Hold, most: Amounts, now: float) -> Hold:
        """Reserve, or delegate."""
        plain = {
            "id": hold.id,
            "node": hold.node,
            "key": hold.key,
            "child": hold.child,
            "asked": _text(hold.asked),
            "most": _text(most),
            "until": repr(hold.until),
        }
        found = _hold(self._run("reserve", plain, now))
        same = (found.node, dict(found.asked), found.child)
        if same != (hold.node, dict(hold.asked), hold.child):
            raise refusal.other_key(found, hold)
        return found

    def extend(self, handle: str, more: Amounts, now: float) -> Hold:
        """Hold more."""
        return _hold(self._run("extend", {"id": handle, "more": _text(more)}, now))

    def settle(self, handle: str, actual: Amounts | None, now: float) -> Ended:
        """Spend; None gives everything back."""
        plain = {} if actual is None else {"actual": _text(actual)}
        return _ended(self._run("settle", {"id": handle, **plain}, now))

    def close_node(self, path: str, now: float) -> Ended:
        """End a delegation."""
        return _ended(self._run("close", {"path": path}, now))

    def renew(self, handles: Sequence[str], until: float) -> None:
        """Put off the end of leases."""
        self._run("renew", {"ids": list(handles), "until": repr(until)}, 0.0)

    def recover(self, now: float, *, give_back: bool) -> list[tuple[Hold, Kind]]:
        """See to holds that were left behind."""
        done = self._run("recover", {"give_back": give_back}, now)
        return [(_hold(hold), Kind(kind)) for hold, kind in done]

    def accounts(self, now: float) -> list[Account]:
        """All accounts, as they stand now."""
        return self._accounts(now)[0]

    def _accounts(self, now: float) -> tuple[list[Account], int]:
        told = self._run("accounts", {}, now)
        found = sorted(map(_account, told["accounts"]), key=lambda own: (own.node, own.unit))
        for own in found:
            own.roll(max(now, float(told["clock"])))
        return found, told["length"]

    def audit(self) -> tuple[list[Account], Iterator[Entry]]:
        """Accounts as they stood after the last entry, and all entries up to it."""
        found, length = self._accounts(0.0)
        return found, self._entries(length)

    def _entries(self, length: int) -> Iterator[Entry]:
        for start in range(0, length, CHUNK):
            end = min(start + CHUNK, length) - 1
            lines: Any = self._client.lrange(f"{self._prefix}log", start, end)
            for line in lines:
                at, kind, node, handle, amounts, note = json.loads(line)
                yield Entry(
                    at=float(at),
                    kind=Kind(kind),
                    node=node,
                    handle=handle,
                    amounts=_numbers(amounts),
                    note=note if kind in (Kind.NODE, Kind.CAP, *_HOLDING) else _overruns(note),
                )

    def shut(self) -> None:
        """Close connections."""
        self._client.close()


_HOLDING = (Kind.RESERVE, Kind.EXTEND)


def _text(amounts: Amounts) -> dict[str, str]:
    return {unit: str(nano) for unit, nano in amounts.items()}


def _numbers(plain: Mapping[str, str]) -> dict[str, int]:
    return {unit: int(nano) for unit, nano in plain.items()}


def _hold(plain: Mapping[str, Any]) -> Hold:
    return Hold(
        id=plain["id"],
        node=plain["node"],
        held=_numbers(plain["held"]),
        until=float(plain["until"]),
        asked=_numbers(plain["asked"]),
        key=plain["key"],
        child=plain["child"],
        presumed=float(plain["presumed"]) if plain["presumed"] else None,
    )


def _ended(plain: Mapping[str, Any]) -> Ended:
    words = _overruns(plain["overruns"])
    return _hold(plain["hold"]), _numbers(plain["spent"]), tuple(words.split("; ") if words else ())


def _overruns(text: str) -> str:
    each: list[dict[str, Any]] = json.loads(text) if text else []
    return "; ".join(refusal.overrun(own["node"], own["unit"], int(own["over"])) for own in each)


def _account(plain: Mapping[str, Any]) -> Account:
    slices = {int(n[1:]): int(a) for n, a in plain.items() if n[0] == "s" and n[1:].isdecimal()}
    return Account(
        node=plain["node"],
        unit=plain["unit"],
        window=parse_window(plain["window"]),
        cap=int(plain["cap"]),
        held=int(plain["held"]),
        spent=int(plain["spent"]),
        flying=int(plain["flying"]),
        slices=slices,
        carve=plain.get("carve", ""),
        closed=plain.get("closed") == "1",
    )


_REFUSALS: Mapping[str, Callable[[dict[str, Any]], WeftError]] = {
    "no_node": lambda told: refusal.no_node(told["node"]),
    "shut_node": lambda told: refusal.shut_node(told["node"]),
    "child_there": lambda told: refusal.child_there(told["node"]),
    "other_caps": lambda told: refusal.other_caps(told["node"]),
    "no_cap": lambda told: refusal.no_cap(told["node"]),
    "not_delegated": lambda told: refusal.not_delegated(told["node"], told["state"]),
    "no_handle": lambda told: refusal.no_handle(told["id"]),
    "pays_child": lambda told: refusal.pays_child(told["node"]),
    "units": lambda told: refusal.wrong_units(set(told["units"]), _numbers(told["asked"])),
    "no_room": lambda told: refusal.no_room(_account(told), int(told["asked"])),
}
