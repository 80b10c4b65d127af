"""State worked out again from the log, to be compared with what is kept.

Shares no code with the laws but the numbering of slices: it adds up entries, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from weft.core.errors import VerifyError
from weft.tokens.budgets.node import shown
from weft.tokens.budgets.records import Account, Entry, Kind
from weft.tokens.budgets.window import Window, parse_window
from weft.tokens.money import Money

__all__ = ["verify"]


@dataclass(slots=True)
class _Sum:
    window: Window
    cap: int
    carve: str
    held: int = 0
    slices: dict[int, int] = field(default_factory=dict[int, int])

    def spent(self, now: float) -> int:
        first = self.window.first(now)
        return sum(nano for number, nano in self.slices.items() if number >= first)


@dataclass(slots=True)
class _Open:
    held: dict[str, int]
    presumed: float | None = None


def verify(accounts: Sequence[Account], entries: Iterable[Entry]) -> int:
    """See that a log explains the state, and that no cap was exceeded but where the log says so.

    Args:
        accounts: the state after the last entry.
        entries: the log.

    Returns:
        How many entries there are.

    Raises:
        VerifyError: an account differs, or a reservation went beyond a cap.
    """
    replay = _Replay()
    count = 0
    for entry in entries:
        count += 1
        replay.take(entry)
    for own in accounts:
        found = replay.nodes.get(own.node, {}).get((own.unit, str(own.window)))
        kept = (own.cap, own.held, own.spent)
        logged = found and (found.cap, found.held, found.spent(replay.now))
        if kept != logged:
            raise VerifyError(
                need=f"cap, held and spent of {shown(own.node)} as in the log: {logged}",
                got=f"{kept} [billionths of {own.unit}]",
                hint="the state was changed by something else; the log says what happened",
            )
    if sum(map(len, replay.nodes.values())) != len(accounts):
        raise VerifyError(
            need=f"{sum(map(len, replay.nodes.values()))} accounts, as in the log",
            got=f"{len(accounts)}",
            hint="the state was changed by something else",
        )
    return count


class _Replay:
    def __init__(self) -> None:
        self.nodes: dict[str, dict[tuple[str, str], _Sum]] = {}
        self.holds: dict[str, _Open] = {}
        self.now = 0.0

    def take(self, entry: Entry) -> None:
        if entry.at < self.now:
            raise VerifyError(need="entries in order of time", got=f"{entry}", hint="")
        self.now = entry.at
        match entry.kind:
            case Kind.NODE | Kind.CAP:
                window, _, carve = entry.note.partition("|")
                for unit, cap in entry.amounts.items():
                    own = self.nodes.setdefault(entry.node, {})
                    if entry.kind is Kind.NODE:
                        own[unit, window] = _Sum(parse_window(window), cap, carve)
                    else:
                        own[unit, window].cap = cap
            case Kind.RESERVE | Kind.EXTEND:
                self._hold(entry)
            case Kind.PRESUME:
                self._end(entry, keep=True)
            case _:
                self._end(entry, keep=False)

    def _hold(self, entry: Entry) -> None:
        hold = self.holds.setdefault(entry.handle, _Open({}))
        for unit, nano in entry.amounts.items():
            hold.held[unit] = hold.held.get(unit, 0) + nano
        for path, unit, own in self._paying(entry.node):
            nano = entry.amounts.get(unit, 0)
            own.held += nano
            over = own.spent(self.now) + own.held - own.cap
            if nano and over > 0:
                raise VerifyError(
                    need=f"reservations within {Money(own.cap, unit)} of {shown(path)}",
                    got=f"{Money(over, unit)} more, by {entry}",
                    hint="please report this: it should be impossible",
                )
        if entry.kind is Kind.EXTEND and entry.note:
            for (unit, _), own in self.nodes[entry.note].items():
                own.cap += entry.amounts.get(unit, 0)

    def _end(self, entry: Entry, *, keep: bool) -> None:
        hold = self.holds[entry.handle]
        if not keep:
            del self.holds[entry.handle]
        at = self.now if hold.presumed is None else hold.presumed
        for _, unit, own in self._paying(entry.node):
            more = entry.amounts[unit]
            if hold.presumed is None:
                own.held -= hold.held[unit]
            else:
                more -= hold.held[unit]
            number = own.window.slice(at)
            own.slices[number] = own.slices.get(number, 0) + more
        if keep:
            hold.presumed = self.now

    def _paying(self, path: str) -> Iterator[tuple[str, str, _Sum]]:
        names = path.split("/") if path else []
        for depth in range(len(names), -1, -1):
            above = "/".join(names[:depth])
            carved = False
            for (unit, _), own in self.nodes.get(above, {}).items():
                yield above, unit, own
                carved = carved or bool(own.carve)
            if carved:
                return
