"""Measure an uneven cluster on this host: each rank's device, and each rank's way to the network.

As `weft.runtime.probe`, in ranks with a share of a core behind links of their own. Ranks are not
alike, so no mean is taken over all of them: neighbours that are given the same are a group of
nodes, with one device each.

The way between two ranks is as slow as the slower one's. So a rank's own way is what it shows
with the peer that it reaches fastest. Collectives are measured among all ranks, and without those
with the slowest way, and so on: each belongs to the way that rules it.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import fmean

import torch

from weft.cost.fit import NodeTimes, Points, fit_cluster
from weft.machine.model import Machine
from weft.runtime.cluster import Cluster, ClusterRank, built
from weft.runtime.cluster.ranks import run_ranks
from weft.runtime.probe import Found, items_of, mean_of, measurements_of, processor

__all__ = ["circles", "machine_of", "probe_cluster"]

log = logging.getLogger("weft.runtime.probe")

_RANK = (
    "import os, sys; from weft.runtime.probe_rank import main; "
    "folder, *rest = sys.argv[1:]; main([folder, os.environ['RANK'], *rest])"
)


_HONEST_SHARE = 0.9
"""Below it a rank did not get what it was given, so its figures are not those of the description.
Measured: on a host that is not busy ranks get 0.96 to 1.00 of it."""


def probe_cluster(cluster: Cluster, seconds: float = 60.0) -> Machine:
    """Build a cluster, measure it, and take it down.

    Args:
        cluster: what to build.
        seconds: time to spend on measuring, by a rank with a whole core [s].

    Returns:
        A machine with a node of one device for each rank, in order of rank.

    Raises:
        InputError: this host does not permit such a cluster.
        RunError: a rank failed or did not end in time.
    """
    log.info("probe: starting %d ranks", cluster.num_ranks)
    with tempfile.TemporaryDirectory(prefix="weft-probe-") as name, built(cluster) as stands:
        rest = [f"{cluster.num_ranks}", f"{seconds}", json.dumps(circles(cluster))]
        slowest = min(rank.cores for rank in cluster.ranks)
        run_ranks(
            stands,
            [sys.executable, "-c", _RANK, name, *rest],
            # Starting and the least number of calls take a core some 40 s, whatever the time.
            timeout_s=60.0 + (120.0 + 6.0 * seconds) / slowest,
            env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
            on_line=_tell,
        )
        found = [json.loads(Path(name, f"{r}.json").read_text()) for r in range(cluster.num_ranks)]
    return machine_of(cluster, found)


def _tell(rank: int, line: str) -> None:
    if rank == 0 and line.startswith("item "):
        log.info("probe: %s", line)


def circles(cluster: Cluster) -> list[list[int]]:
    """Ranks whose way is at least as fast as one that there is, the fastest first.

    Where that leaves one rank only there are no collectives to measure.

    Example:
        >>> from weft.runtime.cluster import ClusterRank
        >>> fast, slow = (ClusterRank(cores=0.5, bytes_per_s=b) for b in (1e8, 1e7))
        >>> circles(Cluster(name="three", ranks=(fast, slow, fast)))
        [[0, 2], [0, 1, 2]]
    """
    ways = [rank.bytes_per_s for rank in cluster.ranks]
    found = [[r for r, way in enumerate(ways) if way >= least] for least in sorted(set(ways))]
    return [circle for circle in reversed(found) if len(circle) > 1]


def machine_of(cluster: Cluster, found: Sequence[Found]) -> Machine:
    """The machine of what each rank found."""
    source = (
        f"{processor()}, {cluster.num_ranks} ranks at once in namespaces of their own, "
        f"{date.today().isoformat()}, torch {torch.__version__}"
    )
    nodes = [_node_times(cluster, found, ranks, source) for ranks in cluster.alike()]
    overlap = fmean(f["overlap"][0] for f in found) if cluster.num_ranks > 1 else 0.0
    machine = fit_cluster(cluster.name, nodes, overlap, f"measured on {source}")
    short = [
        f"rank {rank} got {f['share'][0]:.3f} of {given.cores:g}"
        for rank, (given, f) in enumerate(zip(cluster.ranks, found, strict=True))
        if f["share"][0] < _HONEST_SHARE * given.cores
    ]
    if not short:
        return machine
    return replace(machine, notes=f"{machine.notes}; the host was busy: {', '.join(short)}")


def _node_times(cluster: Cluster, found: Sequence[Found], ranks: range, source: str) -> NodeTimes:
    given = cluster.ranks[ranks.start]
    own = mean_of([found[rank] for rank in ranks])
    who = f"rank {ranks.start}" if len(ranks) == 1 else f"ranks {ranks.start} to {ranks[-1]}"
    device = replace(
        measurements_of(own, 1),
        name=cluster.name,
        device_name=f"{processor()}, {given.cores:g} of a core",
        source=f"measured on {who} with {own['share'][0]:.3f} of a core: {source}",
    )
    number, circle = _own_circle(cluster, given)
    return NodeTimes(
        device=device,
        num_nodes=len(ranks),
        messages=_messages(found, ranks),
        circle=max(1, len(circle)),
        collectives=_collectives(found, number, circle) if circle else {},
    )


def _own_circle(cluster: Cluster, given: ClusterRank) -> tuple[int, list[int]]:
    """The circle that such a rank's way rules; an empty one if it has none of its own."""
    for number, circle in enumerate(circles(cluster)):
        if min(cluster.ranks[rank].bytes_per_s for rank in circle) == given.bytes_per_s:
            return number, circle
    return -1, []


def _messages(found: Sequence[Found], ranks: range) -> Points:
    """Mean over ranks of the shortest times to any peer, for each size."""
    times: dict[float, list[float]] = {}
    for rank in ranks:
        shortest: dict[float, float] = {}
        for (one, other, _), (num_bytes, seconds) in items_of(found[rank], "way"):
            if rank in (int(one), int(other)):
                shortest[num_bytes] = min(seconds, shortest.get(num_bytes, seconds))
        for num_bytes, seconds in shortest.items():
            times.setdefault(num_bytes, []).append(seconds)
    return tuple((num_bytes, fmean(seconds)) for num_bytes, seconds in times.items())


def _collectives(found: Sequence[Found], number: int, circle: list[int]) -> dict[str, Points]:
    """Until the last rank of a circle had its result."""
    points: dict[str, Points] = {}
    for (which, kind, size), (num_bytes, _) in items_of(found[circle[0]], "circle"):
        if int(which) == number:
            last_s = max(found[rank][f"circle|{which}|{kind}|{size}"][1] for rank in circle)
            points[kind] = (*points.get(kind, ()), (num_bytes, last_s))
    return points
