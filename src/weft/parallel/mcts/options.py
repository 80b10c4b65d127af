"""What can be decided about a group, and in which steps.

A choice names a method and some of the machine's groups of devices; `Options` turns it into an
action. TAG's own are `PUBLISHED`; the others are shares in proportion to speed, gradients from
factors, and one device for good.

Of machines with few groups of devices every choice is one step. Where choices would be more than
`MOST_CHOICES`, the method is decided first, and then one group of devices after the other; those
that are still open take part until it is their turn.

Groups of operators that nobody has decided about follow the first one, which has the most work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from itertools import product

import numpy as np

from weft.parallel.mcts.cluster import Cluster
from weft.parallel.mcts.decision import (
    Action,
    Decision,
    Sync,
    even_rows,
    proportional_rows,
    single,
)
from weft.parallel.mcts.layer_cuts import layer_cuts
from weft.parallel.mcts.sketch import Floats, Sketch

__all__ = ["EXTENDED", "MOST_CHOICES", "PUBLISHED", "Choice", "Method", "Options", "State"]

MOST_CHOICES = 105
"""More than this many in one step are decided in several. Chosen: four groups of devices, the most
of TAG's random machines, are one step: there, several steps found slower plans."""


class Method(Enum):
    """How rows are shared out and gradients meet."""

    EVEN = "even"
    EVEN_SERVED = "even, served"
    SPREAD = "spread"
    """Each group of operators on one device, the one with most room left."""
    PROPORTIONAL = "proportional"
    SERVED = "proportional, served"
    FACTORS = "proportional, factors"
    ONE = "one device"
    """The first device of the first group that takes part."""
    CUT = "cut"
    """Even, and layers' weights are cut where that moves less."""

    __hash__ = object.__hash__


PUBLISHED = (Method.EVEN, Method.EVEN_SERVED, Method.SPREAD)
"""Source: TAG (arXiv 2302.06126): all-reduce, parameter server, model parallel."""
EXTENDED = (
    Method.EVEN,
    Method.PROPORTIONAL,
    Method.SERVED,
    Method.FACTORS,
    Method.SPREAD,
    Method.ONE,
    Method.CUT,
)
_SYNC = {
    Method.EVEN_SERVED: Sync.SERVER,
    Method.SERVED: Sync.SERVER,
    Method.FACTORS: Sync.FACTORS,
    Method.CUT: Sync.CUT,
}
_EVEN = (Method.EVEN, Method.EVEN_SERVED, Method.CUT)


@dataclass(frozen=True, slots=True)
class Choice:
    """A method, and for each group of devices whether it takes part; None while that is open."""

    method: Method
    takes_part: tuple[bool | None, ...]

    @property
    def groups(self) -> tuple[int, ...]:
        """Groups of devices that take part, open ones included."""
        return tuple(g for g, part in enumerate(self.takes_part) if part is not False)

    @property
    def is_open(self) -> bool:
        """True if something is left to decide about it."""
        return None in self.takes_part


@dataclass(frozen=True, slots=True)
class State:
    """Choices for the first groups of operators; the last one may be open."""

    choices: tuple[Choice, ...] = ()

    @property
    def is_open(self) -> bool:
        """True if the last choice is not complete."""
        return bool(self.choices) and self.choices[-1].is_open

    @property
    def turn(self) -> int:
        """Group of operators whose turn it is."""
        return len(self.choices) - self.is_open


class Options:
    """Choices for one step on one machine."""

    def __init__(
        self, sketch: Sketch, cluster: Cluster, methods: Sequence[Method] = EXTENDED
    ) -> None:
        self.sketch = sketch
        self.cluster = cluster
        self.methods = tuple(methods)
        self._layouts: dict[tuple[bool, tuple[int, ...]], tuple[int, ...]] = {}
        self._fixed: dict[Choice, Action] = {}
        self._everybody = (True,) * cluster.num_groups

    @property
    def baseline(self) -> Choice:
        """Data parallel over all devices, with all-reduce."""
        return Choice(Method.EVEN, self._everybody)

    @property
    def everywhere(self) -> Choice:
        """Groups of operators one by one on devices with room, where data parallel does not fit."""
        return Choice(Method.SPREAD, self._everybody)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """All choices about one group of operators; empty if there are more than can be listed."""
        groups = self.cluster.num_groups
        if (2**groups - 1) * len(self.methods) > MOST_CHOICES:
            return ()
        found: dict[object, Choice] = {}
        for method in self.methods:
            subsets = [part for part in product((True, False), repeat=groups) if any(part)]
            if method is Method.ONE:
                subsets = [part for part in subsets if sum(part) == 1]
            for part in subsets:
                choice = Choice(method, part)
                found.setdefault(self._key(choice), choice)
        return tuple(found.values())

    @cached_property
    def listed(self) -> tuple[Choice, ...]:
        """All choices; where they are too many, those of all groups of devices or of one."""
        if self.choices:
            return self.choices
        count = self.cluster.num_groups
        alone = [tuple(g == at for g in range(count)) for at in range(count)]
        parts = dict.fromkeys(((True,) * count, *alone))
        return tuple(Choice(method, part) for method in self.methods for part in parts)

    def near(self, choice: Choice) -> tuple[Choice, ...]:
        """Choices that can be had instead of one by a small change; all, where they are listed.

        Otherwise another method, or one group of devices more or less.
        """
        if self.choices:
            return self.choices
        parts = [part is not False for part in choice.takes_part]
        methods = [Choice(method, tuple(parts)) for method in self.methods]
        flipped = [tuple(p != (g == at) for g, p in enumerate(parts)) for at in range(len(parts))]
        return (*methods, *(Choice(choice.method, part) for part in flipped if any(part)))

    def _key(self, choice: Choice) -> object:
        """Equal for choices that always come to the same action."""
        if choice.method is Method.SPREAD and len(self.cluster.members_of(choice.groups)) > 1:
            return choice
        return self.action(choice, 0, np.zeros(self.cluster.num_devices))

    def following(self, state: State) -> tuple[State, ...]:
        """States after one more step; none if everything is decided."""
        done, last = state.choices, None
        if state.is_open:
            *done, last = state.choices
        if last is not None:
            at = last.takes_part.index(None)
            rest = last.takes_part[at + 1 :]
            answers = [True, False]
            if not rest and not any(last.takes_part[:at]):
                answers = [True]  # somebody has to
            steps = [
                replace(last, takes_part=(*last.takes_part[:at], answer, *rest))
                for answer in answers
            ]
        elif len(done) == self.sketch.num_groups:
            steps = []
        elif self.choices:
            steps = list(self.choices)
        else:
            steps = [Choice(m, (None,) * self.cluster.num_groups) for m in self.methods]
        return tuple(State((*done, step)) for step in steps)

    def decision(self, state: State) -> Decision:
        """An action for each group of operators; those whose turn has not come follow the first."""
        return self.resolved(self.completed(state))

    def completed(self, state: State) -> tuple[Choice, ...]:
        """A choice for each group of operators."""
        choices = state.choices or (self.baseline,)
        return choices + choices[:1] * (self.sketch.num_groups - len(choices))

    def resolved(self, choices: Sequence[Choice]) -> Decision:
        """The actions of some choices, one for each group of operators."""
        load = np.zeros(self.cluster.num_devices)
        found: list[Action] = []
        counts = any(choice.method is Method.SPREAD for choice in choices)
        for group, choice in enumerate(choices):
            action = self.action(choice, group, load)
            found.append(action)
            if counts:
                load = load + self._load(group, action)
        return tuple(found)

    def action(self, choice: Choice, group: int, load: Floats) -> Action:
        """What a choice means for a group of operators.

        Args:
            choice: the choice; open groups of devices take part.
            group: of operators.
            load: what groups before it need on each device [bytes].
        """
        if choice.method is not Method.SPREAD:
            found = self._fixed.get(choice)
            if found is None:
                found = self._fixed[choice] = self._fixed_action(choice)
            return found
        at = list(self.cluster.members_of(choice.groups))
        filled = (load[at] + self._needs[group]) / self.cluster.memory_bytes[at]
        device = at[int(filled.argmin())]
        return Action(single(self.sketch.rows, device, self.cluster.num_devices))

    def _fixed_action(self, choice: Choice) -> Action:
        """What a choice means that is the same for all groups of operators."""
        members = self.cluster.members_of(choice.groups)
        if choice.method is Method.ONE:
            return Action(single(self.sketch.rows, members[0], self.cluster.num_devices))
        key = (choice.method in _EVEN, members)
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._layouts[key] = self._layout(members, even=key[0])
        sync = _SYNC.get(choice.method, Sync.ALL_REDUCE)
        alone = len(members) == 1 or (sync is Sync.CUT and not self._can_cut(members))
        return Action(layout, Sync.ALL_REDUCE if alone else sync)

    def _can_cut(self, members: tuple[int, ...]) -> bool:
        """Whether there is a layer that some devices had better cut among them."""
        return any(own is not None for own in layer_cuts(self.cluster, self.sketch, members))

    def _layout(self, members: tuple[int, ...], *, even: bool) -> tuple[int, ...]:
        rows, devices = self.sketch.rows, self.cluster.num_devices
        if even:
            return even_rows(rows, members, devices)
        at = list(members)
        room = self.cluster.memory_bytes[at] - self.sketch.group_bytes.sum()
        caps = np.maximum(room // max(self.sketch.peak_row_bytes, 1.0), 0).astype(int).tolist()
        return proportional_rows(self.sketch.step_s[self.cluster.kind[at]], caps, members, devices)

    @cached_property
    def _needs(self) -> Floats:
        """What each group of operators needs on a device that has it alone [bytes]."""
        held = self.sketch.held_row_bytes.max(axis=1) * self.sketch.rows
        return self.sketch.group_bytes + held

    def _load(self, group: int, action: Action) -> Floats:
        shares = np.asarray(action.rows) / self.sketch.rows
        held = self._needs[group] - self.sketch.group_bytes[group]
        return (shares > 0) * self.sketch.group_bytes[group] + shares * held
