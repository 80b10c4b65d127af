"""Time of collective operations on a machine with levels (device < node < network).

Knows message sizes, group shapes and links. Does not know what is sent, why, or what it
overlaps with: that is `simulate`.

Every collective is made of three primitives, one level at a time. On n devices, with latency
a [s] and bandwidth b [bytes/s], a primitive on a payload of B bytes takes the cheaper of

    scatter, gather   in rounds            u a + B (n - 1) / (n b)
    exchange of L     pairwise             (n - 1) a + L (n - 1) / (n b)
                      store and forward    u a + L u / (2 b)

with u = ceil(log2 n), and L what each device holds. In rounds is recursive doubling where n is a
power of two and Bruck's algorithm elsewhere; a reduce-scatter runs either backwards. Both of its
terms are the least that any algorithm needs, a ring's included, and neither falls as devices join.
The levels inside a level reduce what crosses it: a reduce-scatter goes outwards with B, B / n_0,
B / (n_0 n_1), ... and an all-gather comes back the same way. An all-reduce is one after the other.

Source: Thakur, Rabenseifner and Gropp, Optimization of Collective Communication Operations in
MPICH, IJHPCA 19(1), 2005, section 4; for the reduce-scatter of any n in ceil(log2 n) rounds Traff,
Optimal, Non-pipelined Reduce-scatter and Allreduce Algorithms, arXiv 2410.14234; composed over
levels as stated above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from weft.core.errors import InputError
from weft.machine.model import COLLECTIVES, CollectiveCurve, Link
from weft.machine.topology import Group

__all__ = ["collective_seconds"]


def collective_seconds(kind: str, payload_bytes: float, group: Group) -> float:
    """Time of one collective whose tensor, whole along the axis, has `payload_bytes`.

    The payload is the tensor before it is cut along this axis: of an all-gather the result,
    of a reduce-scatter and an all-reduce the summand that each device holds, of an all-to-all
    the devices' parts together (the local size times the group's size).

    Where a link carries a measured curve for the collective, its level takes the curve's time.

    Args:
        kind: "all-reduce", "all-gather", "reduce-scatter" or "all-to-all".
        payload_bytes: size of that tensor [bytes].
        group: who takes part.

    Returns:
        Time until the last device holds its result [s]; 0 for a group of one device.

    Raises:
        InputError: the kind is unknown, or `payload_bytes` is negative or not finite.

    Source: module docstring.

    Example:
        >>> from weft.core.provenance import derived
        >>> link = Link(
        ...     bytes_per_s=derived(1e9, "B/s", "example"), latency_s=derived(0, "s", "example")
        ... )
        >>> collective_seconds("all-reduce", 1e9, Group(sizes=(2,), links=(link,)))
        1.0
    """
    seconds = _COLLECTIVES.get(kind)
    if seconds is None or not 0 <= payload_bytes < float("inf"):
        raise InputError(
            need=f"one of {', '.join(COLLECTIVES)} with a finite payload of at least 0 bytes",
            got=f"{kind!r} with {payload_bytes} bytes",
            hint="the payload is the tensor before it is cut along the axis",
        )
    levels = [(n, link) for n, link in zip(group.sizes, group.links, strict=True) if n > 1]
    return seconds(float(payload_bytes), levels) if levels else 0.0


def _all_reduce(num_bytes: float, levels: list[tuple[int, Link]]) -> float:
    *inner, (size, link) = levels
    total = 0.0
    for inner_size, inner_link in inner:
        total += _level_seconds("reduce-scatter", num_bytes, inner_size, inner_link)
        total += _level_seconds("all-gather", num_bytes, inner_size, inner_link)
        num_bytes /= inner_size
    return total + _level_seconds("all-reduce", num_bytes, size, link)


def _one_way(kind: str) -> Callable[[float, list[tuple[int, Link]]], float]:
    def seconds(num_bytes: float, levels: list[tuple[int, Link]]) -> float:
        total = 0.0
        for size, link in levels:
            total += _level_seconds(kind, num_bytes, size, link)
            num_bytes /= size
        return total

    return seconds


def _all_to_all(num_bytes: float, levels: list[tuple[int, Link]]) -> float:
    # Each level exchanges everything a device holds, so its payload is that times the level.
    held_bytes = num_bytes
    for size, _ in levels:
        held_bytes /= size
    return sum(_level_seconds("all-to-all", held_bytes * size, size, link) for size, link in levels)


_COLLECTIVES: Mapping[str, Callable[[float, list[tuple[int, Link]]], float]] = MappingProxyType(
    {
        "all-reduce": _all_reduce,
        "all-gather": _one_way("all-gather"),
        "reduce-scatter": _one_way("reduce-scatter"),
        "all-to-all": _all_to_all,
    }
)


def _level_seconds(kind: str, num_bytes: float, size: int, link: Link) -> float:
    """Time of a collective over one level: measured if the link knows it, else modelled."""
    if link.curves:
        curve = _nearest_curve(kind, size, link)
        if curve is not None:
            return _measured_seconds(curve, num_bytes, size, link)
    return _modelled_seconds(kind, num_bytes, size, link)


def _modelled_seconds(kind: str, num_bytes: float, size: int, link: Link) -> float:
    latency_s, bytes_per_s = link.latency_s.value, link.bytes_per_s.value
    rounds = (size - 1).bit_length()
    if kind == "all-to-all":
        held_s = num_bytes / size / bytes_per_s
        return min(
            (size - 1) * latency_s + held_s * (size - 1) / size,
            rounds * latency_s + held_s * rounds / 2,
        )
    one_way_s = rounds * latency_s + num_bytes / bytes_per_s * (size - 1) / size
    return 2 * one_way_s if kind == "all-reduce" else one_way_s


def _nearest_curve(kind: str, size: int, link: Link) -> CollectiveCurve | None:
    curves = [curve for curve in link.curves if curve.collective == kind]
    return min(curves, key=lambda c: abs(c.num_devices - size)) if curves else None


def _measured_seconds(curve: CollectiveCurve, num_bytes: float, size: int, link: Link) -> float:
    """Time by a curve; another group size is scaled by what the model says of the two sizes."""
    seconds = curve.curve.seconds_at(num_bytes)
    if curve.num_devices == size:
        return seconds
    there_s = _modelled_seconds(curve.collective, num_bytes, curve.num_devices, link)
    here_s = _modelled_seconds(curve.collective, num_bytes, size, link)
    return seconds * here_s / there_s if there_s > 0 else seconds
