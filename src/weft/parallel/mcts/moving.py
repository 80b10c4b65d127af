"""What it takes to hand on rows and gradients: plans of messages, made once and used often.

Rows lie on devices in rank order, so two layouts of the same rows overlap in intervals. Whoever has
rows before or after takes part, and all are through when the device is that has most to send or to
take up: that is how plans of homes move what they move, one value after the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.cost.collective import collective_seconds
from weft.machine.topology import link_between
from weft.parallel.bundle import SMALL_BYTES
from weft.parallel.mcts.cluster import Cluster
from weft.parallel.mcts.decision import Action, Sync, served
from weft.parallel.mcts.sketch import Floats, Integers, Sketch
from weft.parallel.messages import messages_s

__all__ = ["Exchange", "Synchronisation", "exchange", "pull_seconds", "synchronisation"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """Rows on their way from one layout to another.

    Attributes:
        at: devices that take part.
        latency_s: of the messages that a device sends over a link, or takes up, together
            [device, link and direction] [s].
        byte_s: time of these messages for a byte of a row [device, link and direction] [s].
    """

    at: Integers
    latency_s: Floats
    byte_s: Floats

    def seconds(self, row_bytes: float) -> float:
        """Until everybody is through, as `weft.parallel.messages` has it [s]."""
        return float((self.latency_s + row_bytes * self.byte_s).max(initial=0.0))


def exchange(cluster: Cluster, before: Sequence[int], after: Sequence[int]) -> Exchange:
    """Messages that bring rows from one layout to another.

    Args:
        cluster: where they are.
        before, after: rows of each device.
    """
    ends = [np.cumsum(np.asarray(rows)) for rows in (before, after)]
    starts = [end - np.asarray(rows) for end, rows in zip(ends, (before, after), strict=True)]
    shared = np.minimum(ends[0][:, None], ends[1][None, :]) - np.maximum(
        starts[0][:, None], starts[1][None, :]
    )
    busy: dict[tuple[str, int, int], Floats] = defaultdict(lambda: np.zeros(2))
    for source, target in zip(*np.nonzero(shared > 0), strict=True):
        if source != target:
            link = id(link_between(cluster.machine, int(source), int(target)))
            rows_s = shared[source, target] * cluster.s_per_byte[source, target]
            message = np.asarray([cluster.latency_s[source, target], rows_s])
            busy["out", int(source), link] += message
            busy["in", int(target), link] += message
    latency_s, byte_s = np.asarray(list(busy.values())).reshape(-1, 2).T
    at = np.flatnonzero(np.asarray(before) + np.asarray(after))
    return Exchange(at=at, latency_s=latency_s, byte_s=byte_s)


@dataclass(frozen=True, slots=True)
class Synchronisation:
    """How the gradients of one segment meet.

    Attributes:
        seconds: of the messages [s].
        gathered_s: of those that bring factors together, for which products wait [s].
        extra_s: what computing whole products takes longer than parts of them [device] [s].
        factored: parameters, by number, whose gradients are made from gathered factors.
    """

    seconds: float
    gathered_s: float
    extra_s: Floats
    factored: tuple[int, ...] = ()


def synchronisation(
    cluster: Cluster,
    sketch: Sketch,
    numbers: Sequence[int],
    group: int,
    action: Action,
    joined_bytes: float = SMALL_BYTES,
) -> Synchronisation:
    """What some parameters of a group need after their gradients are there.

    Args:
        cluster: where it runs.
        sketch: of the step.
        numbers: the parameters.
        group: which one they belong to.
        action: what that group does; several devices take part.
        joined_bytes: gradients up to this size travel together [bytes].
    """
    its = sketch.parameters
    nothing = np.zeros(cluster.num_devices)
    if action.sync is Sync.SERVER:
        pushed_s = _push_seconds(cluster, sketch, numbers, group, action)
        return Synchronisation(pushed_s, 0.0, nothing)
    if action.sync in (Sync.ALL_REDUCE, Sync.CUT):
        sizes = [float(its.gradient_bytes[n]) for n in numbers]
        return Synchronisation(_reduced(cluster, action.members, sizes, joined_bytes), 0.0, nothing)
    reduced: list[float] = []
    factored: list[int] = []
    all_gathered_s, extra_s = 0.0, nothing.copy()
    for number in numbers:
        size = float(its.gradient_bytes[number])
        gathered_s, longer_s = _gathered(cluster, sketch, number, action)
        if gathered_s + longer_s.max() < _reduced(cluster, action.members, [size], joined_bytes):
            factored.append(number)
            all_gathered_s += gathered_s
            extra_s += longer_s
        else:
            reduced.append(size)
    seconds = _reduced(cluster, action.members, reduced, joined_bytes)
    return Synchronisation(seconds, all_gathered_s, extra_s, tuple(factored))


def _reduced(
    cluster: Cluster, members: tuple[int, ...], sizes: Sequence[float], joined_bytes: float
) -> float:
    """Time of all-reduces, the small ones in one message."""
    meeting = cluster.meeting(members)
    small = sum(size for size in sizes if size <= joined_bytes)
    messages = [size for size in sizes if size > joined_bytes] + [small] * (small > 0)
    return sum(collective_seconds("all-reduce", size, meeting) for size in messages)


def _gathered(
    cluster: Cluster, sketch: Sketch, number: int, action: Action
) -> tuple[float, Floats]:
    """Time to gather the factors of a gradient, and how much longer the whole product takes."""
    row_bytes = float(sketch.parameters.factor_row_bytes[number])
    if not row_bytes:
        return np.inf, np.zeros(cluster.num_devices)
    # Messages of a gather are as long as the longest.
    payload = row_bytes * max(action.rows) * len(action.members)
    product_s = sketch.parameters.product_s[number][cluster.kind]
    rows = np.asarray(action.rows)
    longer_s = product_s[:, -1] - product_s[np.arange(len(rows)), rows]
    seconds = collective_seconds("all-gather", payload, cluster.meeting(action.members))
    return seconds, np.where(rows > 0, longer_s, 0.0)


def _push_seconds(
    cluster: Cluster, sketch: Sketch, numbers: Sequence[int], group: int, action: Action
) -> float:
    """Time in which servers have the gradients of some parameters, one after the other [s]."""
    servers, sizes = served(sketch, group, action.members), sketch.parameters.gradient_bytes
    return sum(
        messages_s([(m, servers[n], float(sizes[n])) for m in action.members], cluster.machine)
        for n in numbers
    )


def pull_seconds(cluster: Cluster, sketch: Sketch, group: int, action: Action) -> float:
    """Time in which all members have the parameters of a group, one after the other [s]."""
    sizes = sketch.parameters.num_bytes
    return sum(
        messages_s([(server, m, float(sizes[n])) for m in action.members], cluster.machine)
        for n, server in served(sketch, group, action.members).items()
    )
