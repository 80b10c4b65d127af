"""What a rank of an uneven cluster measures besides its device: its share of a core, its ways.

Times of collectives are means: a rank that has used up its share waits for the next period, and a
step meets such waits as often as they come. Keys: "way|i|j|bytes" between two ranks, and
"circle|n|kind|bytes" for collectives of the n-th circle of ranks. Who does not take part
reports 0 seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import combinations
from statistics import mean, median
from typing import TypeAlias, cast

import torch
import torch.distributed as dist

from weft.machine.model import COLLECTIVES
from weft.parallel.placement import Mesh
from weft.runtime.place import Place
from weft.runtime.probe_collectives import PAYLOADS, collective_run

__all__ = ["circle_items", "measured_share", "way_items"]

_Item: TypeAlias = tuple[str, Callable[[], list[float]]]

_SHARE_S = 2.0
"""Two hundred periods of a quota, so that the last one counts for next to nothing [s]."""

_WAY_CALLS = {4: 50, 2**23: 3}
"""Calls by bytes: of a message that is all latency, and of one that is all bandwidth."""

_MOST_CALLS = 50
_CIRCLE_PAYLOADS = PAYLOADS[:-1]
"""Up to 4 MiB: beyond it the time of a slow link grows with the bytes, and takes seconds."""


def measured_share() -> float:
    """Share of a core that this thread gets while all ranks compute [0 to 1]."""
    a = torch.randn(128, 128)
    start, worked = time.perf_counter(), time.thread_time()
    while time.perf_counter() - start < _SHARE_S:
        torch.mm(a, a)
    return min(1.0, (time.thread_time() - worked) / (time.perf_counter() - start))


def way_items(num_ranks: int) -> list[_Item]:
    """Messages there and back between every two ranks, while the others wait."""
    return [
        (f"way|{one}|{other}|{size}", lambda i=one, j=other, b=size: _way(i, j, b))
        for one, other in combinations(range(num_ranks), 2)
        for size in _WAY_CALLS
    ]


def _way(one: int, other: int, num_bytes: int) -> list[float]:
    """Bytes of a message, and seconds of one way."""
    rank = dist.get_rank()
    if rank not in (one, other):
        return [float(num_bytes), 0.0]
    x = torch.zeros(num_bytes // 4)
    times: list[float] = []
    for _ in range(_WAY_CALLS[num_bytes] + 1):
        start = time.perf_counter()
        if rank == one:
            dist.send(x, other)
            dist.recv(x, other)
        else:
            dist.recv(x, one)
            dist.send(x, one)
        times.append((time.perf_counter() - start) / 2)
    return [float(num_bytes), median(times[1:])]


def circle_items(circles: list[list[int]], budget_s: Callable[[], float]) -> list[_Item]:
    """Collectives of each circle of ranks. All ranks have to ask for them, in the same order."""
    items: list[_Item] = []
    for number, circle in enumerate(circles):
        # Torch's own type allows for who is not in the group, whose item never looks at it.
        group = cast("dist.ProcessGroup", dist.new_group(circle))
        items += [
            (
                f"circle|{number}|{kind}|{size}",
                lambda g=group, c=circle, k=kind, b=size: _circle(g, c, k, b, budget_s()),
            )
            for kind in COLLECTIVES
            for size in _CIRCLE_PAYLOADS
        ]
    return items


def _circle(
    group: dist.ProcessGroup, circle: list[int], kind: str, payload_bytes: int, budget_s: float
) -> list[float]:
    """Bytes of the tensor whole along the axis, and mean seconds of a call from a joint start."""
    if dist.get_rank() not in circle:
        return [float(payload_bytes), 0.0]
    place = Place(
        mesh=Mesh((len(circle),)),
        coordinate=(circle.index(dist.get_rank()),),
        device=torch.device("cpu"),
        groups=(group.group_name,),
    )
    num_bytes, run = collective_run(kind, payload_bytes, place)
    _joint_s(run, group)
    once = torch.tensor(_joint_s(run, group))
    dist.all_reduce(once, dist.ReduceOp.MAX, group=group)
    count = int(max(3, min(_MOST_CALLS, budget_s / float(once))))
    return [num_bytes, mean(_joint_s(run, group) for _ in range(count))]


def _joint_s(run: Callable[[], object], group: dist.ProcessGroup) -> float:
    dist.barrier(group)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
