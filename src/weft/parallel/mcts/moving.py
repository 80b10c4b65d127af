"""What it takes to hand on rows and gradients: plans of messages, made once and used often.

Rows lie on devices in rank order, so two layouts of the same rows overlap in intervals. A device
sends and receives at the same time, and each of the two takes the sum of its messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weft.cost.collective import collective_seconds
from weft.parallel.bundle import SMALL_BYTES
from weft.parallel.mcts.cluster import Cluster
from weft.parallel.mcts.decision import Action, Sync, served
from weft.parallel.mcts.sketch import Floats, Sketch

__all__ = ["Exchange", "Synchronisation", "exchange", "pull_seconds", "synchronisation"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """Rows on their way from one layout to another.

    Attributes:
        sends: who sends to whom [sender, receiver].
        receives: who receives anything [device].
        latency_s: of its slowest message [s].
        arrival_s: until a receiver has its rows, for a byte of a row [device] [s].
        busy_s: that a device sends or receives, for a byte of a row [device] [s].
    """

    sends: NDArray[np.bool_]
    receives: NDArray[np.bool_]
    latency_s: float
    arrival_s: Floats
    busy_s: Floats


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
    rows = np.maximum(shared, 0)
    np.fill_diagonal(rows, 0)
    sends = rows > 0
    seconds = rows * cluster.s_per_byte
    sent_s, received_s = seconds.sum(axis=1), seconds.sum(axis=0)
    slowest_sender = np.where(sends, sent_s[:, None], 0.0).max(axis=0)
    return Exchange(
        sends=sends,
        receives=rows.sum(axis=0) > 0,
        latency_s=float(np.where(sends, cluster.latency_s, 0.0).max()),
        arrival_s=np.maximum(received_s, slowest_sender),
        busy_s=np.maximum(received_s, sent_s),
    )


@dataclass(frozen=True, slots=True)
class Synchronisation:
    """How the gradients of one segment meet.

    Attributes:
        seconds: of the messages [s].
        extra_s: what computing whole products takes longer than parts of them [device] [s].
        factored: parameters, by number, whose gradients are made from gathered factors.
    """

    seconds: float
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
        return Synchronisation(_push_seconds(cluster, sketch, numbers, group, action), nothing)
    if action.sync is Sync.ALL_REDUCE:
        sizes = [float(its.gradient_bytes[n]) for n in numbers]
        return Synchronisation(_reduced(cluster, action.members, sizes, joined_bytes), nothing)
    reduced: list[float] = []
    factored: list[int] = []
    seconds, extra_s = 0.0, nothing.copy()
    for number in numbers:
        size = float(its.gradient_bytes[number])
        gathered_s, longer_s = _gathered(cluster, sketch, number, action)
        if gathered_s + longer_s.max() < _reduced(cluster, action.members, [size], joined_bytes):
            factored.append(number)
            seconds += gathered_s
            extra_s += longer_s
        else:
            reduced.append(size)
    seconds += _reduced(cluster, action.members, reduced, joined_bytes)
    return Synchronisation(seconds, extra_s, tuple(factored))


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
    servers = served(sketch, group, action.members)
    load = np.zeros(cluster.num_devices)
    for number in numbers:
        load[servers[number]] += sketch.parameters.gradient_bytes[number]
    return _served_seconds(cluster, action.members, load)


def pull_seconds(cluster: Cluster, sketch: Sketch, group: int, action: Action) -> float:
    """Time in which all members have the parameters of a group from their servers [s]."""
    load = np.zeros(cluster.num_devices)
    for number, server in served(sketch, group, action.members).items():
        load[server] += sketch.parameters.num_bytes[number]
    return _served_seconds(cluster, action.members, load)


def _served_seconds(cluster: Cluster, members: tuple[int, ...], load: Floats) -> float:
    """All members exchange with all servers: the busiest of them counts, over its slowest link."""
    if not load.any():
        return 0.0
    at = list(members)
    own = load[at]
    num_bytes = np.maximum((len(at) - 1) * own, own.sum() - own)
    s_per_byte = cluster.s_per_byte[np.ix_(at, at)].max(axis=1)
    return float((num_bytes * s_per_byte).max() + cluster.latency_s[np.ix_(at, at)].max())
