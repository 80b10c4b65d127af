"""The laws of budgets, on any tables: what is spent and held never exceeds a cap.

    reserve    least <= left, for each cap on the way up; then held += granted
    settle     held -= granted, spent += actual
    presume    held -= granted, spent += granted, until it is shown what it really was

A reservation is granted between the least that was asked for and the most that is useful,

    granted = min(most, max(least, left / (handles in flight + 1)))

so that a call gets all it may want while there is plenty, and calls share what is left towards
the end. What is granted is what is held, hence the worst case of all calls in flight is within the
caps at any time.

A law looks before it writes: one that refuses has changed nothing.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

from weft.tokens.budgets.node import CALLS, Amounts, Cap, lineage
from weft.tokens.budgets.records import Account, Entry, Hold, Kind
from weft.tokens.budgets.refusal import (
    child_there,
    no_cap,
    no_handle,
    no_node,
    no_room,
    not_delegated,
    other_caps,
    other_key,
    overrun,
    pays_child,
    shut_node,
    wrong_units,
)
from weft.tokens.budgets.tables import Tables
from weft.tokens.money import NANO, Money

__all__ = ["close", "define", "extend", "raise_cap", "recover", "renew", "reserve", "settle"]


def _chain(tables: Tables, path: str, now: float, *, closed: bool = False) -> list[Account]:
    """Accounts that pay for a node: its own and those above, up to where a delegation pays.

    Raises:
        NodeError: the node is not there, or is closed and that is not asked for.
    """
    found = tables.accounts(lineage(path))
    if not any(own.node == path for own in found):
        raise no_node(path)
    shut = next((own.node for own in found if own.closed), None)
    if shut is not None and not closed:
        raise shut_node(shut)
    carved = max((len(own.node) for own in found if own.carve), default=-1)
    paying = [own for own in found if len(own.node) >= carved]
    for own in paying:
        own.roll(now)
    return paying


def define(tables: Tables, path: str, caps: Sequence[Cap], now: float, *, carve: str = "") -> None:
    """Add a node with its caps; the same again changes nothing.

    Raises:
        NodeError: it is there with other caps, or the node above it is not there or is closed.
    """
    now = max(now, tables.clock())
    there = {(a.unit, str(a.window)): a.cap for a in tables.accounts([path])}
    wanted = {(cap.most.currency, str(cap.window)): cap.most.nano for cap in caps}
    if there and there != wanted:
        raise other_caps(path)
    if there:
        return
    if path:
        _chain(tables, path.rpartition("/")[0], now)
    for cap in caps:
        unit, nano = cap.most.currency, cap.most.nano
        tables.save(Account(node=path, unit=unit, window=cap.window, cap=nano, carve=carve))
        note = f"{cap.window}|{carve}"
        tables.append(Entry(at=now, kind=Kind.NODE, node=path, amounts={unit: nano}, note=note))


def raise_cap(tables: Tables, path: str, cap: Cap, now: float) -> None:
    """Change a cap; it may be lowered below what is spent, and nothing can then be reserved.

    Raises:
        NodeError: the node has no cap in that unit and window, or it was delegated.
    """
    now = max(now, tables.clock())
    for own in tables.accounts([path]):
        if (own.unit, own.window) == (cap.most.currency, cap.window) and not own.carve:
            own.cap = cap.most.nano
            tables.save(own)
            amounts, window = {own.unit: own.cap}, str(own.window)
            tables.append(Entry(at=now, kind=Kind.CAP, node=path, amounts=amounts, note=window))
            return
    raise no_cap(path)


def reserve(tables: Tables, hold: Hold, most: Amounts, now: float) -> Hold:
    """Reserve what `hold` asks for, or more, up to `most`; returns it with what it holds.

    Args:
        tables: the state.
        hold: what to reserve; `asked` is the least. Of a delegation, it names the child, which is
            added with caps of what is held.
        most: what is useful; what is asked where it says less or nothing.
        now: the time [s since 1970].

    Raises:
        BudgetError: there is no room.
        NodeError: the node is not there or is closed.
        InputError: a unit is not asked for, or not capped, or the key is in use for another.
    """
    now = max(now, tables.clock())
    if hold.key and (first := tables.keyed(hold.key)) is not None:
        return _same(first, hold)
    paying = _chain(tables, hold.node, now)
    if hold.child and tables.accounts([hold.child]):
        raise child_there(hold.child)
    asked = _with_calls(hold.asked, {own.unit for own in paying}, one=not hold.child)
    granted = dict(asked)
    for own in paying:
        if own.left < asked[own.unit]:
            raise no_room(own, asked[own.unit])
    for unit, least in asked.items():
        share = min(own.left // (own.flying + 1) for own in paying if own.unit == unit)
        granted[unit] = max(least, min(most.get(unit, least), share))
    hold = replace(hold, held=granted)
    for own in paying:
        own.held += granted[own.unit]
        own.flying += 1
        tables.save(own)
    tables.put(hold, new=True)
    tables.append(_entry(now, Kind.RESERVE, hold, granted, hold.child))
    if hold.child:
        caps = [Cap(Money(nano, unit)) for unit, nano in granted.items()]
        define(tables, hold.child, caps, now, carve=hold.id)
    return hold


def _with_calls(asked: Amounts, units: Set[str], *, one: bool) -> dict[str, int]:
    """What is asked for, and `one` call where calls are capped and it does not say how many.

    Raises:
        InputError: a capped unit is not asked for, or one is asked for that nothing caps.
    """
    full = {CALLS: NANO, **asked} if one and CALLS in units else dict(asked)
    if set(full) != units:
        raise wrong_units(units, full)
    return full


def _same(first: Hold, again: Hold) -> Hold:
    if (first.node, dict(first.asked), first.child) != (again.node, dict(again.asked), again.child):
        raise other_key(first, again)
    return first


def extend(tables: Tables, handle: str, more: Amounts, now: float) -> Hold:
    """Hold more under a handle that is open; of a delegation, raise the child's cap with it.

    Raises:
        BudgetError: there is no room.
        HandleError: the handle is not open.
    """
    now = max(now, tables.clock())
    hold = tables.hold(handle)
    if hold is None or hold.presumed is not None:
        raise no_handle(handle)
    if not set(more) <= set(hold.held):
        raise wrong_units(set(hold.held), more)
    paying = _chain(tables, hold.node, now, closed=True)
    for own in paying:
        if own.left < more.get(own.unit, 0):
            raise no_room(own, more[own.unit])
    hold = replace(hold, held={u: n + more.get(u, 0) for u, n in hold.held.items()})
    for own in paying:
        own.held += more.get(own.unit, 0)
        tables.save(own)
    for own in tables.accounts([hold.child] if hold.child else []):
        own.cap += more.get(own.unit, 0)
        tables.save(own)
    tables.put(hold, new=False)
    tables.append(_entry(now, Kind.EXTEND, hold, more, hold.child))
    return hold


def renew(tables: Tables, handles: Sequence[str], until: float) -> None:
    """Put off the end of leases; handles that are no longer open are left alone."""
    for handle in handles:
        hold = tables.hold(handle)
        if hold is not None and hold.presumed is None and hold.until < until:
            tables.put(replace(hold, until=until), new=False)


def settle(
    tables: Tables, handle: str, actual: Amounts | None, now: float, kind: Kind = Kind.SETTLE
) -> tuple[Hold, dict[str, int], tuple[str, ...]]:
    """Spend what was really used, and give back the rest of what was held.

    Returns:
        The hold, what was spent, and overruns in words.

    Raises:
        HandleError: the handle was settled or released before, or pays for a child.
    """
    now = max(now, tables.clock())
    hold = tables.hold(handle)
    if hold is None:
        raise no_handle(handle)
    if hold.child and kind is not Kind.CLOSE:
        raise pays_child(hold.child)
    spent = _actual(hold, actual)
    if hold.presumed is not None:
        kind = Kind.CORRECT
    overruns: list[str] = []
    for own in _chain(tables, hold.node, now, closed=True):
        used, held = spent[own.unit], hold.held[own.unit]
        if hold.presumed is None:
            own.held -= held
            own.flying -= 1
            own.spend(used, now, now)
        else:
            own.spend(used - held, hold.presumed, now)
        if used > held and own.left < 0:
            overruns.append(overrun(own.node, own.unit, min(used - held, -own.left)))
        tables.save(own)
    tables.drop(handle)
    tables.append(_entry(now, kind, hold, spent, "; ".join(overruns)))
    return hold, spent, tuple(overruns)


def _actual(hold: Hold, actual: Amounts | None) -> dict[str, int]:
    if actual is None:
        return dict.fromkeys(hold.held, 0)
    spent = {CALLS: hold.held[CALLS], **actual} if CALLS in hold.held else dict(actual)
    if set(spent) != set(hold.held):
        raise wrong_units(set(hold.held), spent)
    return spent


def close(tables: Tables, path: str, now: float) -> tuple[Hold, dict[str, int], tuple[str, ...]]:
    """Close a delegated node: what it spent is its parent's, the rest is given back.

    Raises:
        NodeError: it was not delegated, is closed, or handles in it are open.
    """
    now = max(now, tables.clock())
    own = next((a for a in tables.accounts([path]) if a.carve), None)
    if own is None or own.closed or own.flying:
        state = "closed" if own and own.closed else f"{own.flying} in flight" if own else ""
        raise not_delegated(path, state or "not delegated")
    spent: dict[str, int] = {}
    for own in tables.accounts([path]):
        spent[own.unit] = own.spent
        own.closed = True
        tables.save(own)
    return settle(tables, own.carve, spent, now, Kind.CLOSE)


def recover(tables: Tables, now: float, *, give_back: bool) -> list[tuple[Hold, Kind]]:
    """See to holds whose leases ended: calls first, then children that nobody is in any more.

    Args:
        tables: the state.
        now: the time [s since 1970].
        give_back: release them, instead of taking them for spent in full.
    """
    now = max(now, tables.clock())
    done: list[tuple[Hold, Kind]] = []
    left_behind = tables.expired(now)
    for hold in left_behind:
        if hold.child:
            continue
        if give_back:
            settle(tables, hold.id, None, now, Kind.RELEASE)
        else:
            _presume(tables, hold, now)
        done.append((hold, Kind.RELEASE if give_back else Kind.PRESUME))
    for hold in sorted(left_behind, key=lambda own: -len(own.child)):
        if hold.child and not any(own.flying for own in tables.accounts([hold.child])):
            close(tables, hold.child, now)
            done.append((hold, Kind.CLOSE))
    return done


def _presume(tables: Tables, hold: Hold, now: float) -> None:
    for own in _chain(tables, hold.node, now, closed=True):
        own.held -= hold.held[own.unit]
        own.flying -= 1
        own.spend(hold.held[own.unit], now, now)
        tables.save(own)
    tables.put(replace(hold, presumed=now), new=False)
    tables.append(_entry(now, Kind.PRESUME, hold, hold.held, ""))


def _entry(at: float, kind: Kind, hold: Hold, amounts: Amounts, note: str) -> Entry:
    return Entry(at=at, kind=kind, node=hold.node, handle=hold.id, amounts=amounts, note=note)
