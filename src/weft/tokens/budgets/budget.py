"""A budget: caps in a tree, from which is reserved before anything is spent."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from weft.core.errors import InputError
from weft.tokens.budgets.leases import Leases
from weft.tokens.budgets.memory import MemoryStore
from weft.tokens.budgets.node import (
    ROOT,
    Amounts,
    Cap,
    amounts_of,
    check_path,
    lineage,
)
from weft.tokens.budgets.records import Account, Handle, Hold, Kind, Settled, Standing
from weft.tokens.budgets.refusal import NodeError
from weft.tokens.budgets.sqlite import SqliteStore
from weft.tokens.budgets.store import Ended, Store
from weft.tokens.budgets.verify import verify
from weft.tokens.money import Money

__all__ = ["LEASE_S", "Budget"]

LEASE_S = 120.0
"""How long a hold outlives its process [s]. Chosen: three renewals fit in, and a pause of a minute,
as of a machine that swaps, is survived."""
ANY = "*"
"""Last name of a node whose caps are given to each new node beside it."""


class Budget:
    """A tree of caps, with what is spent and held.

    For each cap, spent + held is at most the cap, at any time, in any number of threads, tasks and
    processes, and of a node's caps and all above it. An amount is reserved first and settled after.
    Names between slashes are nodes; the root has none.

    Args:
        store: where it is kept.
        clock: tells the time [s since 1970]; one that is set back is taken to stand still.
        lease_s: how long a handle outlives its process, until `recover` takes it for spent [s].

    Example:
        >>> from weft.tokens import usd
        >>> budget = Budget.open(":memory:", cap=usd(50))
        >>> budget.add("coder", Cap.of(usd(5), "daily"))
        >>> handle = budget.reserve("coder", usd("0.02"))
        >>> handle.most
        0.02 usd
        >>> budget.settle(handle, usd("0.013")).spent
        (0.013 usd,)
        >>> [standing.left for standing in budget.standing("coder")]
        [49.987 usd, 4.987 usd]
        >>> budget.reserve("coder", usd(7))
        Traceback (most recent call last):
        weft.tokens.budgets.refusal.BudgetError: there is no room in coder.
          need  7 usd within what is left of 5 usd daily
          got   4.987 usd left: 0.013 usd spent, 0 usd held by 0 in flight
          try   wait until some of those are settled, reserve less, or set_cap
    """

    def __init__(
        self, store: Store, *, clock: Callable[[], float] = time.time, lease_s: float = LEASE_S
    ) -> None:
        self._store = store
        self._clock = clock
        self._lease_s = lease_s
        self._leases = Leases(self._renew, lease_s)

    @classmethod
    def open(
        cls,
        where: str | Path,
        *,
        cap: Money | Cap | Sequence[Cap] | None = None,
        clock: Callable[[], float] = time.time,
        lease_s: float = LEASE_S,
        durable: bool = False,
    ) -> Self:
        """Open a budget, and make it if there is none.

        Args:
            where: a file; "redis://host:port/0?name=team" for one in Redis; ":memory:" for one that
                ends with the process.
            cap: of the whole budget; None if it is there already.
            clock, lease_s: see the class.
            durable: whether each commit waits for the disc: what is then lost in a power cut is
                nothing, otherwise the last moment. A killed process loses nothing either way.

        Raises:
            NodeError: it has another cap, or none was given and it is new.
            FileError: the file is something else, or cannot be opened.
            InputError: the client of Redis is not installed.
        """
        budget = cls(_store(str(where), durable=durable), clock=clock, lease_s=lease_s)
        if cap is not None:
            caps = (cap,) if isinstance(cap, Money | Cap) else cap
            budget.add(ROOT, *caps)
        elif not any(own.node == ROOT for own in budget._store.accounts(0.0)):
            raise NodeError(
                need="a cap for a budget that is new", got=f"none for {where}", hint="cap=usd(50)"
            )
        return budget

    def add(self, node: str, *caps: Money | Cap) -> None:
        """Add a node below one that is there; the same again changes nothing.

        A node whose last name is "*" stands for any: a reservation of a node beside it that is not
        there adds that one first, with the same caps.

        Args:
            node: path, such as "team/coder".
            caps: at least one; one for each unit and window.

        Raises:
            NodeError: it is there with other caps, or the node above it is not there.
            InputError: the path is none, or there is no cap, or two of a unit and window.
        """
        each = [Cap.of(cap) for cap in caps]
        if not each or len({(c.most.currency, c.window) for c in each}) < len(each):
            raise InputError(
                need="caps of a node, one for each unit and window",
                got=", ".join(map(str, caps)) or "none",
                hint='add("coder", usd(5), Cap.of(usd(1), "hourly"))',
            )
        self._store.define(check_path(node), each, self._clock())

    def set_cap(self, node: str, cap: Money | Cap) -> None:
        """Change a cap; lowered below what is spent and held, it lets nothing more be reserved.

        Raises:
            NodeError: the node has no cap of that unit and window, or was delegated.
        """
        self._store.raise_cap(check_path(node), Cap.of(cap), self._clock())

    def reserve(
        self,
        node: str,
        amount: Money | Sequence[Money],
        *,
        most: Money | Sequence[Money] | None = None,
        key: str = "",
    ) -> Handle:
        """Reserve an amount of a node and of all above it.

        With `most`, as much as that is granted while there is plenty, and the less the less is
        left, but never less than the amount. Hold the provider to `Handle.most`, by its
        max_tokens, and nothing can be overspent.

        Args:
            node: path.
            amount: the least to go ahead with; of each unit that is capped on the way up, but for
                calls, of which it is one.
            most: what is useful at most.
            key: a name for this reservation: the same again gives the same handle.

        Raises:
            BudgetError: there is no room.
            NodeError: the node is not there, or is closed.
            InputError: units are missing, or not capped; or the key is in use for something else.
        """
        asked = amounts_of(amount)
        hold = self._hold(check_path(node), asked, key)
        wanted = amounts_of(most) if most is not None else asked
        try:
            held = self._store.reserve(hold, wanted, self._clock())
        except NodeError:
            if not self._added(node):
                raise
            held = self._store.reserve(hold, wanted, self._clock())
        return self._taken(held)

    def settle(self, handle: Handle | str, actual: Money | Sequence[Money]) -> Settled:
        """Spend what was really used, and give back the rest.

        What is more than was held is taken from what is left. Where there is too little, it is
        spent nevertheless, since the money is gone, and the answer says so: `Settled.overruns`.
        A handle that was taken for spent by `recover` is corrected.

        Raises:
            HandleError: it was settled or released before; nothing is changed.
        """
        return self._ended(self._store.settle(_id(handle), amounts_of(actual), self._clock()))

    def release(self, handle: Handle | str) -> Settled:
        """Give everything back: nothing was spent.

        Raises:
            HandleError: it was settled or released before; nothing is changed.
        """
        return self._ended(self._store.settle(_id(handle), None, self._clock()))

    def extend(self, handle: Handle | str, more: Money | Sequence[Money]) -> Handle:
        """Hold more under a handle; of a delegation, its child may then spend more.

        Raises:
            BudgetError: there is no room; what was held stays held.
            HandleError: the handle is not open.
        """
        return self._taken(self._store.extend(_id(handle), amounts_of(more), self._clock()))

    def delegate(
        self, node: str, name: str, amount: Money | Sequence[Money], *, key: str = ""
    ) -> Handle:
        """Carve a child's budget out of a node's: held there until the child is closed.

        The child is the node `<node>/<name>`. Whatever happens in it, no more than the amount is
        taken from those above.

        Raises:
            BudgetError: there is no room.
            NodeError: the node is not there or closed, or the child is there.
            InputError: as for `reserve`.
        """
        child = check_path(f"{node}/{name}" if node else name)
        asked = amounts_of(amount)
        hold = self._hold(child.rpartition("/")[0], asked, key, child)
        return self._taken(self._store.reserve(hold, asked, self._clock()))

    def close_node(self, node: str) -> Settled:
        """End a delegation: what the child spent is its parent's, the rest is given back.

        Raises:
            NodeError: it was not delegated, is closed, or has handles in flight.
        """
        return self._ended(self._store.close_node(check_path(node), self._clock()))

    def recover(self, *, release: bool = False) -> tuple[Settled, ...]:
        """See to handles whose processes died: what is unknown is spent, until shown otherwise.

        Handles whose leases ended are settled in full; a late `settle` corrects that. Delegated
        nodes left behind are closed.

        Args:
            release: give back what they held, where it is known that nothing was spent.
        """
        done = self._store.recover(self._clock(), give_back=release)
        full = (Kind.PRESUME,)
        return tuple(
            Settled(node=hold.node, spent=_money(hold.held) if kind in full else ())
            for hold, kind in done
        )

    def standing(self, node: str = ROOT) -> tuple[Standing, ...]:
        """Where the caps of a node stand, and those above it: the root first."""
        paths = lineage(check_path(node))
        return tuple(own for own in self.standings() if own.node in paths)

    def standings(self) -> tuple[Standing, ...]:
        """Where all caps stand."""
        return tuple(map(_standing, self._store.accounts(self._clock())))

    def verify(self) -> int:
        """Work the state out from the log, compare, and say how many entries there are.

        Raises:
            VerifyError: they differ, or a cap was exceeded other than by an overrun in the log.
        """
        return verify(*self._store.audit())

    def close(self) -> None:
        """Close the file or connection; handles stay open until they are settled or recovered."""
        self._leases.shut()
        self._store.shut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _hold(self, node: str, asked: Amounts, key: str, child: str = "") -> Hold:
        until = self._clock() + self._lease_s
        return Hold(
            id=uuid.uuid4().hex,
            node=node,
            held=asked,
            until=until,
            asked=asked,
            key=key,
            child=child,
        )

    def _added(self, node: str) -> bool:
        """Whether a node that was not there is now: after a pattern beside it, or by another."""
        accounts = self._store.accounts(self._clock())
        if any(own.node == node for own in accounts):
            return bool(node)  # another was quicker; or it is closed, and is refused again
        above = node.rpartition("/")[0]
        pattern = f"{above}/{ANY}" if above else ANY
        caps = [Cap(Money(a.cap, a.unit), a.window) for a in accounts if a.node == pattern]
        if caps:
            with suppress(NodeError):  # another was quicker
                self._store.define(node, caps, self._clock())
        return bool(caps)

    def _taken(self, hold: Hold) -> Handle:
        self._leases.add(hold.id)
        return Handle(id=hold.id, node=hold.node, held=_money(hold.held), until=hold.until)

    def _ended(self, ended: Ended) -> Settled:
        hold, spent, overruns = ended
        self._leases.drop(hold.id)
        return Settled(node=hold.node, spent=_money(spent), overruns=overruns)

    def _renew(self, handles: Sequence[str]) -> None:
        self._store.renew(handles, self._clock() + self._lease_s)


def _store(where: str, *, durable: bool) -> Store:
    if where == ":memory:":
        return MemoryStore()
    if where.startswith(("redis://", "rediss://", "unix://")):
        # The client is an extra, loaded where it is asked for.
        from weft.tokens.budgets.redis import RedisStore

        return RedisStore(where)
    return SqliteStore(where, durable=durable)


def _id(handle: Handle | str) -> str:
    return handle if isinstance(handle, str) else handle.id


def _money(amounts: Amounts) -> tuple[Money, ...]:
    return tuple(Money(nano, unit) for unit, nano in amounts.items())


def _standing(own: Account) -> Standing:
    return Standing(
        node=own.node,
        cap=Cap(Money(own.cap, own.unit), own.window),
        spent=Money(own.spent, own.unit),
        held=Money(own.held, own.unit),
        flying=own.flying,
        closed=own.closed,
    )
