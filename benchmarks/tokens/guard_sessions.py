"""Sessions of agents that call tools: honest ones of six kinds, and ones that go in circles.

Honest sessions turn pages, poll until something is done, try again after errors, edit and test, go
over files with the same tools, and repeat a fixed check a few times. Rules that people use are the
foils: one tool three times in a row, one call three times in a row, and any stretch of calls three
times among the last thirty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count

import numpy as np

from weft.tokens.guards import Again, Cycles, ToolCall

__all__ = ["HONEST", "RULES", "circling", "honest", "rounds_until"]

Session = list[ToolCall]
_numbers = count()


def _call(tool: str, arguments: object = None, result: object = None) -> ToolCall:
    return ToolCall(tool=tool, arguments=arguments, result=result, usd=0.01)


def _fresh(rng: np.random.Generator) -> ToolCall:
    """A step like no other."""
    tool = str(rng.choice(["read", "search", "run", "edit"]))
    number = next(_numbers)
    return _call(tool, {"what": f"item {number}"}, f"found {number}")


def _paged(rng: np.random.Generator) -> Session:
    return [_call("list", {"page": n}, f"rows {n}") for n in range(int(rng.integers(3, 40)))]


def _polled(rng: np.random.Generator) -> Session:
    """Pending some eight times in a row, with a name for the request that is never the same."""
    waits = int(rng.geometric(1.0 / 8.0))
    asked = {"job": int(rng.integers(10**6))}
    told = [_call("status", {**asked, "request_id": n}, "pending") for n in range(waits)]
    return [*told, _call("status", asked, "done")]


def _watched(rng: np.random.Generator) -> Session:
    steps = np.sort(rng.choice(100, size=int(rng.integers(3, 30)), replace=False))
    return [_call("progress", {"job": 1}, {"percent": int(own)}) for own in steps]


def _retried(rng: np.random.Generator) -> Session:
    fetch = {"url": f"https://example.com/{next(_numbers)}"}
    return [_call("fetch", fetch, "timed out")] * int(rng.geometric(0.5)) + [_fresh(rng)]


def _edited(rng: np.random.Generator) -> Session:
    """Edits differ, tests fail alike until the last."""
    found: Session = []
    for _ in range(int(rng.integers(2, 15))):
        found += [_call("edit", {"line": next(_numbers)}, "ok"), _call("test", None, "1 failed")]
    return [*found, _call("test", None, "all passed")]


def _checked(rng: np.random.Generator) -> Session:
    """A fixed round of three, once more with a chance of a quarter."""
    tools = ("status", "diff", "lint")
    return [_call(tool, None, "clean") for _ in range(int(rng.geometric(0.75))) for tool in tools]


HONEST: Mapping[str, Callable[[np.random.Generator], Session]] = {
    "pages": _paged,
    "polls": _polled,
    "progress bars": _watched,
    "retries": _retried,
    "edit and test": _edited,
    "fixed rounds": _checked,
}


def honest(rng: np.random.Generator, parts: int = 12) -> Session:
    """A session of some parts, with steps of its own between them."""
    kinds = list(HONEST.values())
    found: Session = []
    for _ in range(parts):
        found += kinds[int(rng.integers(len(kinds)))](rng)
        found += [_fresh(rng) for _ in range(int(rng.integers(1, 6)))]
    return found


def circling(rng: np.random.Generator, period: int, rounds: int = 60) -> Session:
    """The same round again and again, with ids and times that differ, after some honest work."""
    tools = [str(rng.choice(["search", "open", "plan", "ask"])) for _ in range(period)]
    about = [f"topic {next(_numbers)}" for _ in range(period)]

    def step(place: int, number: int) -> ToolCall:
        asked = {"q": about[place], "request_id": f"r{number}"}
        return _call(tools[place], asked, f"same, in {number % 7 + 1} ms")

    return [step(n % period, n) for n in range(period * rounds)]


def _tool_thrice(calls: Sequence[ToolCall]) -> int | None:
    return _in_a_row([own.tool for own in calls])


def _call_thrice(calls: Sequence[ToolCall]) -> int | None:
    return _in_a_row([f"{own.tool} {own.arguments}" for own in calls])


def _in_a_row(words: Sequence[str]) -> int | None:
    for place in range(2, len(words)):
        if words[place] == words[place - 1] == words[place - 2]:
            return place
    return None


def _stretch_thrice(calls: Sequence[ToolCall]) -> int | None:
    words = [own.tool for own in calls]
    for place in range(len(words)):
        last = words[max(place - 29, 0) : place + 1]
        for size in range(2, min(len(last) // 3, 6) + 1):
            end = tuple(last[-size:])
            seen = sum(tuple(last[n : n + size]) == end for n in range(len(last) - size + 1))
            if seen >= 3:
                return place
    return None


RULES: Mapping[str, Callable[[Sequence[ToolCall]], int | None]] = {
    "one tool three times in a row": _tool_thrice,
    "one call three times in a row": _call_thrice,
    "a stretch of tools three times in thirty": _stretch_thrice,
}
"""Place of the call at which each trips; None if it does not."""


def rounds_until(calls: Sequence[ToolCall], again: Again, level: float) -> int | None:
    """Place of the call at which the detector trips; None if it does not."""
    watch = Cycles(again, level=level)
    return next((place for place, own in enumerate(calls) if watch.observe(own).tripped), None)
