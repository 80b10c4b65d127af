"""What is decided about each group: who computes how many rows, and how gradients meet.

An action is what one group does: rows of the batch for every device of the machine, in rank order,
0 for those that take no part, and one of four ways to synchronise the gradients of its parameters.

    all-reduce   every device that takes part adds up all gradients, and updates
    server       each parameter is updated by one device, which collects its gradients and from
                 which the others have it
    factors      where that moves less, rows of the two factors of a gradient are gathered instead,
                 and every device computes the whole product (sufficient-factor broadcasting)
    cut          where that moves less, the devices cut a layer's weight among them, and rows or
                 summands are exchanged instead (tensor parallelism)

A group that is computed by one device needs none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from math import gcd
from typing import TypeAlias

import numpy as np

from weft.core.errors import InputError
from weft.parallel.homes import Homes
from weft.parallel.mcts.groups import Grouping
from weft.parallel.mcts.layer_cuts import LayerCut
from weft.parallel.mcts.sketch import Floats, Sketch
from weft.program.graph import Phase, Role

__all__ = [
    "Action",
    "Decision",
    "Sync",
    "even_rows",
    "homes",
    "proportional_rows",
    "served",
    "single",
]


class Sync(Enum):
    """How gradients of replicated parameters meet."""

    ALL_REDUCE = "all-reduce"
    SERVER = "server"
    FACTORS = "factors"
    CUT = "cut"

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Action:
    """What one group does: rows of each device, and its synchronisation."""

    rows: tuple[int, ...]
    sync: Sync = Sync.ALL_REDUCE

    @property
    def members(self) -> tuple[int, ...]:
        """Devices that take part."""
        return tuple(d for d, rows in enumerate(self.rows) if rows)


Decision: TypeAlias = tuple[Action, ...]
"""An action for each group."""


def even_rows(rows: int, members: Sequence[int], num_devices: int) -> tuple[int, ...]:
    """Rows shared out evenly; where they do not divide, the first members have one more.

    Example:
        >>> even_rows(8, (0, 2, 3), 4)
        (3, 0, 3, 2)
    """
    share, more = divmod(rows, len(members))
    found = [0] * num_devices
    for at, member in enumerate(members):
        found[member] = share + (at < more)
    return tuple(found)


def proportional_rows(
    seconds: Floats, caps: Sequence[int], members: Sequence[int], num_devices: int
) -> tuple[int, ...]:
    """Rows shared out so that the last member ends as early as can be.

    Water filling: each member has as many rows as it computes until a common time, which is the
    earliest at which all rows are computed. What then is too much is taken from whoever ends last.

    Args:
        seconds: time of so many rows [member, rows from 0 to all] [s].
        caps: rows that each member has memory for; passed over if that is not all rows together.
        members: ranks of the members.
        num_devices: of the machine.

    Example:
        >>> import numpy as np
        >>> twice = np.asarray([[0.0, 1.0, 2.0, 3.0], [0.0, 2.0, 4.0, 6.0]])
        >>> proportional_rows(twice, (3, 3), (1, 2), 3)
        (0, 2, 1)
    """
    rows = seconds.shape[1] - 1
    times = np.maximum.accumulate(seconds, axis=1)
    limits = np.minimum(np.asarray(caps), rows) if sum(caps) >= rows else np.full(len(times), rows)

    def computed(until_s: float) -> list[int]:
        within = [int(np.searchsorted(line, until_s, side="right")) - 1 for line in times]
        return np.minimum(within, limits).tolist()

    known = np.unique(times)
    low, high = 0, len(known) - 1
    while low < high:
        middle = (low + high) // 2
        if sum(computed(float(known[middle]))) >= rows:
            high = middle
        else:
            low = middle + 1
    shares = computed(float(known[high]))
    while sum(shares) > rows:
        present = [at for at, share in enumerate(shares) if share]
        shares[max(present, key=lambda at: (times[at, shares[at]], at))] -= 1
    found = [0] * num_devices
    for member, share in zip(members, shares, strict=True):
        found[member] = share
    return tuple(found)


def single(rows: int, device: int, num_devices: int) -> tuple[int, ...]:
    """All rows on one device."""
    return tuple(rows if d == device else 0 for d in range(num_devices))


def served(sketch: Sketch, group: int, members: Sequence[int]) -> dict[int, int]:
    """Which member serves each parameter of a group, by number of the parameter.

    The largest parameter comes first, and each goes to whoever serves least so far.
    """
    its = sketch.parameters
    numbers = np.flatnonzero(its.group == group).tolist()
    load = dict.fromkeys(members, 0.0)
    found: dict[int, int] = {}
    for number in sorted(numbers, key=lambda n: (-its.num_bytes[n], n)):
        server = min(load, key=lambda member: (load[member], member))
        load[server] += float(its.num_bytes[number])
        found[number] = server
    return found


def homes(
    decision: Decision,
    grouping: Grouping,
    sketch: Sketch,
    factored: frozenset[int] = frozenset(),
    cut: Iterable[tuple[int, LayerCut]] = (),
) -> Homes:
    """Where every node of the program lives.

    Args:
        decision: an action for each group.
        grouping: which group each node is in.
        sketch: of the same grouping.
        factored: parameters, by number, whose gradients are made from factors, as the simulator
            says; see `weft.parallel.mcts.simulate`.
        cut: parameters, by number, whose layers are cut, and how, as the simulator says.

    Raises:
        InputError: a decision about other groups.
    """
    if len(decision) != grouping.num_groups:
        raise InputError(
            need=f"an action for each of {grouping.num_groups} groups",
            got=f"{len(decision)}",
            hint="decide about the groups of this program",
        )
    layouts: dict[tuple[int, ...], int] = {}

    def index(rows: tuple[int, ...]) -> int:
        divisor = gcd(*rows)
        return layouts.setdefault(tuple(r // divisor for r in rows), len(layouts))

    of_group = [index(action.rows) for action in decision]
    home = [of_group[group] for group in grouping.group]
    for group, action in enumerate(decision):
        if action.sync is Sync.SERVER and len(action.members) > 1:
            for number, server in served(sketch, group, action.members).items():
                alone = index(single(1, server, len(action.rows)))
                for node in _kept_with(grouping, int(sketch.parameters.node[number])):
                    home[node] = alone
    nodes = frozenset(int(sketch.parameters.node[number]) for number in factored)
    ways = {int(sketch.parameters.node[number]): (own.way,) for number, own in cut}
    return Homes(layouts=tuple(layouts), home=tuple(home), factors=nodes, cut=ways)


def _kept_with(grouping: Grouping, parameter: int) -> list[int]:
    """A parameter, its optimizer state, and the nodes that update them."""
    program = grouping.program
    name = next(i.name for i in program.inputs if i.node == parameter)
    state = [i.node for i in program.inputs if i.parameter == name and i.role is Role.STATE]
    kept = {parameter, *state}
    waiting = [value.node for node, value in program.updates if node in kept]
    while waiting:
        node = waiting.pop()
        # What belongs to no group's parameters, such as a norm of all gradients, is left alone.
        if node not in kept and program.nodes[node].phase is Phase.UPDATE:
            kept.add(node)
            waiting += [v.node for v in program.operands(node) if program.type_of(v).shape]
    return sorted(kept)
