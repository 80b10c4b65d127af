"""Collectives that read what another collective made, put off until it has had time to end.

The lowering puts the hops of a copy side by side: a reduce-scatter and an all-gather of what it
made, a reduction along one mesh axis and along the next. The second cannot start before the first
has ended, and whoever issues it waits until then, with all computation behind it. So it goes

    to the update                if it is small and of the update: others will join it there
    behind the next collective   otherwise: until that one is issued, computation hides the first

and in front of its first reader in any case. The order of hops of one copy stays as it is. What
they receive is held for longer: that cost up to an eighth of the peak on small models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from weft.parallel.bundle import is_small
from weft.parallel.local import Collective, Instruction, LocalProgram, Run, communicates
from weft.parallel.prefetch import slots_read
from weft.program.graph import Phase

__all__ = ["put_off_chained"]


def put_off_chained(local: LocalProgram) -> LocalProgram:
    """The same program with each collective that reads another one's result put off.

    What is computed does not change; only the order of issue does.
    """
    return replace(local, instructions=_Order(local).of(local.instructions))


class _Order:
    """The new order while it is made."""

    def __init__(self, local: LocalProgram) -> None:
        self._local = local
        self._ordered: list[Instruction] = []
        self._received: set[int] = set()
        self._waiting: dict[int, Collective] = {}  # by the slot that they write
        self._not_joined: dict[int, Collective] = {}  # those of them that do not join others later

    def of(self, instructions: Sequence[Instruction]) -> tuple[Instruction, ...]:
        """Instructions in their new order."""
        for instruction in instructions:
            if communicates(instruction):
                self._meet(instruction)
                continue
            for slot in slots_read(instruction):
                self._fetch(slot)
            if isinstance(instruction, Run) and instruction.phase is Phase.UPDATE:
                self._issue_all()
            self._ordered.append(instruction)
        self._issue_all()
        return tuple(self._ordered)

    def _meet(self, collective: Collective) -> None:
        if collective.source in self._received:
            self._waiting[collective.target] = collective
            if not self._is_joined_later(collective):
                self._not_joined[collective.target] = collective
        else:
            # One hop of each copy: the hop behind it waits for one more collective.
            next_hops = [
                waiting.target
                for waiting in self._not_joined.values()
                if waiting.source not in self._waiting
            ]
            self._ordered.append(collective)
            for slot in next_hops:
                self._fetch(slot)
        self._received.add(collective.target)

    def _is_joined_later(self, collective: Collective) -> bool:
        return collective.phase is Phase.UPDATE and is_small(self._local, collective)

    def _fetch(self, slot: int) -> None:
        """Issue what writes a slot, if it waits, and what that waits for."""
        waiting = self._waiting.pop(slot, None)
        self._not_joined.pop(slot, None)
        if waiting is not None:
            self._fetch(waiting.source)
            self._ordered.append(waiting)

    def _issue_all(self) -> None:
        for slot in tuple(self._waiting):
            self._fetch(slot)
