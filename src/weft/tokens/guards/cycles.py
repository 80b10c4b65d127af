"""Cycles of tool calls: the same steps again and again, with the same results, and no progress.

The last calls show whether a stretch of them has just been gone through twice; of such stretches
the shortest is taken. From then on each further round is evidence (`evidence`): honest work that
has gone through the same round twice goes through it again with a chance of at most `again`.

Pages that are turned have other arguments, and polls that find something new have other results,
so neither is a cycle. A tool that is polled until something happens is one for which `again` is
high: learnt from honest logs, or said. Progress ends a cycle.

With chances as said, ever tripping on honest work has a chance of at most the level; half of it is
left for chances that were learnt too low.

Source: Knuth, Morris and Pratt, SIAM J. Comput. 1977, for periods of sequences; here for all short
periods at once, by how long each has held.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Self

from weft.core.errors import FileError, InputError
from weft.tokens.guards.evidence import LARGEST, part, unbegun
from weft.tokens.guards.odds import chance_bound
from weft.tokens.guards.signature import ToolCall, signature

__all__ = ["Again", "CycleVerdict", "Cycles", "learn_again", "tool_name"]

LONGEST = 12
"""Calls of the longest cycle that is looked for. Chosen."""
UNKNOWN_AGAIN = 0.3
"""Chosen: one in three who did the same twice do it a third time. What agents do is learnt from
their logs."""
SEEN = 20
"""Rounds with a tool from which its own chance is taken. Chosen."""


def tool_name(call: ToolCall) -> str:
    """What is compared where arguments may vary: the tool alone. Learn chances before using it."""
    return call.tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Chances that honest work which has gone through a round twice goes through it again.

    Attributes:
        chance: of any tool.
        tools: of those that are known to differ, such as one that is polled; the largest of a
            round's tools holds for it.
    """

    chance: float = UNKNOWN_AGAIN
    tools: Mapping[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        object.__setattr__(self, "tools", MappingProxyType(dict(self.tools)))
        for name, chance in (("any tool", self.chance), *self.tools.items()):
            if not 0.0 < chance <= 1.0:
                raise InputError(
                    need="chances above 0 and at most 1",
                    got=f"{chance} for {name}",
                    hint="1 for a tool that may be called for ever",
                )

    def of(self, tool: str) -> float:
        """Of one tool."""
        return self.tools.get(tool, self.chance)


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleVerdict:
    """What is known after a call.

    Attributes:
        tripped: whether there is enough evidence now.
        evidence: that this is a cycle; enough at `needed`.
        period: calls of the cycle; 0 where nothing has been gone through twice.
        repeats: times that it was gone through in full.
        tools: of one round.
        usd: spent from the second round on [usd].
    """

    tripped: bool
    evidence: float
    needed: float
    period: int
    repeats: int
    tools: tuple[str, ...]
    usd: float


@dataclass(frozen=True, slots=True)
class _Round:
    """A round that was expected, its tools, and whether it came."""

    tools: tuple[str, ...]
    came: bool


@dataclass(slots=True)
class _Recent:
    """The last calls, for how long each period has held, and a round that is expected."""

    longest: int
    keys: deque[tuple[str, str]]
    runs: list[int]
    spent: list[float]
    expects: int = 0
    """Calls of the round that is expected; 0 for none."""
    missing: int = 0
    """Of them, those that are still to come."""

    @staticmethod
    def of(longest: int) -> _Recent:
        return _Recent(longest, deque(maxlen=longest), [0] * longest, [0.0] * longest)

    def period(self) -> int:
        """The shortest that has just been gone through twice; 0 for none."""
        return next((p for p in range(1, self.longest + 1) if self.runs[p - 1] >= p), 0)

    def add(self, call: ToolCall, key: str) -> _Round | None:
        """Take a call in; a round that ends with it."""
        if call.progress > 0.0:
            self.clear()
        if not self.expects:
            self.expects = self.missing = self.period()
        for p in range(1, self.longest + 1):
            same = len(self.keys) >= p and self.keys[-p][0] == key
            self.runs[p - 1] = self.runs[p - 1] + 1 if same else 0
            self.spent[p - 1] = self.spent[p - 1] + call.usd if same else 0.0
        ended = self._round()
        self.keys.append((key, call.tool))
        return ended

    def _round(self) -> _Round | None:
        if not self.expects:
            return None
        came = self.runs[self.expects - 1] > 0
        self.missing -= 1
        if came and self.missing:
            return None
        tools = tuple(tool for _, tool in list(self.keys)[-self.expects :])
        self.expects = 0
        return _Round(tools, came)

    def clear(self) -> None:
        self.keys.clear()
        self.runs, self.spent = [0] * self.longest, [0.0] * self.longest
        self.expects = 0


class Cycles:
    """Watches the tools that one agent calls.

    Args:
        again: chances for honest work.
        level: chance of a false alarm.
        key: what of a call is compared.
        longest: calls of the longest cycle [calls].

    Example:
        >>> watch = Cycles()
        >>> steps = [ToolCall(tool=name, usd=0.01) for name in ("search", "open") * 12]
        >>> seen = [watch.observe(step) for step in steps]
        >>> [v.repeats for v in seen if v.tripped][0], seen[-1].period, seen[-1].tools
        (7, 2, ('search', 'open'))
    """

    def __init__(
        self,
        again: Again | None = None,
        *,
        level: float = 0.01,
        key: Callable[[ToolCall], str] = signature,
        longest: int = LONGEST,
    ) -> None:
        if not 0.0 < level < 1.0 or longest < 1:
            raise InputError(
                need="a level between 0 and 1, and cycles of at least one call",
                got=f"level {level}, {longest} calls",
                hint="level=0.01, longest=12",
            )
        self.again = Again() if again is None else again
        self.level = level
        self._key = key
        self._recent = _Recent.of(longest)
        self._played, self._rounds = 0.0, 0

    def observe(self, call: ToolCall) -> CycleVerdict:
        """Take a call in."""
        if call.progress > 0.0:
            self._played = 0.0
        ended = self._recent.add(call, self._key(call))
        if ended is not None:
            self._rounds += 1
            stake = self._played + part(self._rounds)
            chance = max(map(self.again.of, ended.tools))
            self._played = min(stake / chance, LARGEST) if ended.came else 0.0
        return self.verdict()

    def verdict(self) -> CycleVerdict:
        """What is known now."""
        period = self._recent.period()
        run = self._recent.runs[period - 1] if period else 0
        tools = list(self._recent.keys)[-period:] if period else []
        evidence = self._played + unbegun(self._rounds)
        return CycleVerdict(
            tripped=period > 0 and evidence >= 2.0 / self.level,
            evidence=evidence,
            needed=2.0 / self.level,
            period=period,
            repeats=1 + run // period if period else 0,
            tools=tuple(tool for _, tool in tools),
            usd=self._recent.spent[period - 1] if period else 0.0,
        )

    def to_json(self) -> str:
        """Its state as one line; chances and level are those of who reads it."""
        own = self._recent
        recent = {**asdict(own), "keys": list(own.keys)}
        return json.dumps(
            {"weft": "cycles", "recent": recent, "played": self._played, "rounds": self._rounds}
        )

    def restore(self, text: str) -> Self:
        """Go on where another was that looked for cycles as long.

        Raises:
            FileError: the text is something else.
        """
        try:
            told = json.loads(text)
            recent = told["recent"]
            keys = ((str(key), str(tool)) for key, tool in recent.pop("keys"))
            own = _Recent(**recent, keys=deque(keys, maxlen=self._recent.longest))
            if told["weft"] != "cycles" or own.longest != self._recent.longest:
                raise ValueError("not a state for cycles as long")
            self._played, self._rounds = float(told["played"]), int(told["rounds"])
        except (ValueError, TypeError, KeyError) as error:
            raise FileError(
                need="a state of cycles as weft writes it", got=str(error), hint="begin anew"
            ) from error
        self._recent = own
        return self


def learn_again(
    sessions: Iterable[Sequence[ToolCall]],
    *,
    level: float = 0.01,
    key: Callable[[ToolCall], str] = signature,
    longest: int = LONGEST,
) -> Again:
    """Chances from logs of work that went well.

    Args:
        sessions: calls of one agent each, in order.
        level: chance of a false alarm; half of it is spent on bounds.
        key: what of a call will be compared.
        longest: calls of the longest cycle that will be looked for.

    Returns:
        Bounds from above; UNKNOWN_AGAIN of tools that were seen too seldom.
    """
    bets: Counter[str] = Counter()
    came: Counter[str] = Counter()
    for calls in sessions:
        recent = _Recent.of(longest)
        for call in calls:
            ended = recent.add(call, key(call))
            for tool in () if ended is None else set(ended.tools):
                bets[tool] += 1
                came[tool] += ended is not None and ended.came
    known = [tool for tool in bets if bets[tool] >= SEEN]
    doubt = 0.5 * level / (len(known) + 1)
    others = sum(bets[tool] for tool in bets if tool not in known)
    again = sum(came[tool] for tool in bets if tool not in known)
    rest = chance_bound(again, others, doubt) if others >= SEEN else UNKNOWN_AGAIN
    return Again(
        chance=rest,
        tools={tool: chance_bound(came[tool], bets[tool], doubt) for tool in known},
    )
