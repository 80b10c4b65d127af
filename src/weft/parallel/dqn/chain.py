"""A step as a chain of pieces on a line of devices, and how long it takes once it is cut.

The length of a pipeline of stages s, each of n_s devices that share its micro-batches:

    L = sum t_s + sum x_s + (M - 1) max(max t_s, max x_s) + max r_s

    t_s = C_s / (n_s M)              a micro-batch, forward and backward
    x_s = 2 A_s / (M b)              its activations over the cut, and their gradients back
    r_s = 2 (n_s - 1) / n_s W_s / b  gradients of the replicas, reduced in a ring

where b is the bandwidth of the slowest link that is crossed. Inside a node each pair of devices of
two neighbouring stages has a link of its own.

Source: Auto-MAP (Wang et al. 2020, arXiv 2007.04069), sections 3.4 and 4.4, which gives no formula;
this one is that of DAPPLE (Fan et al. 2020, arXiv 2007.01045, section 4), by the same group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from weft.core.errors import InputError

__all__ = ["Chain", "Cuts", "Line", "best_cuts", "device_cuts", "pipeline_seconds"]

Array: TypeAlias = npt.NDArray[np.float64]
Places: TypeAlias = "npt.NDArray[np.int64] | int"
Cuts: TypeAlias = tuple[tuple[int, int], ...]
"""Of each stage but the first, its first piece and its first device."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Chain:
    """Pieces that are computed one after the other.

    Attributes:
        seconds: of each piece, forward and backward, the whole batch on one device [N] [s].
        crossing_bytes: what goes from each piece but the last to the next [N-1] [bytes].
        weight_bytes: gradients of each piece's parameters [N] [bytes].

    Raises:
        InputError: sizes do not match, fewer than two pieces, or numbers that are negative or not
            finite, or nothing to compute.
    """

    seconds: Array
    crossing_bytes: Array
    weight_bytes: Array

    def __post_init__(self) -> None:
        sizes = [len(self.seconds), len(self.crossing_bytes) + 1, len(self.weight_bytes)]
        numbers = np.concatenate([self.seconds, self.crossing_bytes, self.weight_bytes])
        sound = bool(np.all(np.isfinite(numbers)) and np.all(numbers >= 0))
        if sizes[0] < 2 or len(set(sizes)) > 1 or not sound or not self.seconds.sum() > 0:
            raise InputError(
                need="times and weights of N > 1 pieces and bytes between them, none negative, some"
                " of the times above 0",
                got=f"{sizes[0]} times, {sizes[1] - 1} crossings, {sizes[2]} weights"
                + ("" if sound else ", some negative or not finite"),
                hint="one number of bytes fewer than pieces",
            )

    def __len__(self) -> int:
        return len(self.seconds)

    @cached_property
    def seconds_before(self) -> Array:
        """Time of all pieces before each place between pieces, both ends included [N+1] [s]."""
        return _before(self.seconds)

    @cached_property
    def weights_before(self) -> Array:
        """Gradients of all pieces before each place, both ends included [N+1] [bytes]."""
        return _before(self.weight_bytes)


def _before(numbers: Array) -> Array:
    return np.concatenate([np.zeros(1), np.cumsum(numbers)])


@dataclass(frozen=True, kw_only=True)
class Line:
    """Devices one after the other, node by node.

    Attributes:
        nodes, per_node: how many.
        inside_bytes_per_s, network_bytes_per_s: of a link inside a node and of a node's own to the
            others [bytes/s].

    Raises:
        InputError: no devices, or a bandwidth that is not above 0.
    """

    nodes: int
    per_node: int
    inside_bytes_per_s: float
    network_bytes_per_s: float

    def __post_init__(self) -> None:
        slowest = min(self.inside_bytes_per_s, self.network_bytes_per_s)
        if min(self.nodes, self.per_node) < 1 or not slowest > 0:
            raise InputError(
                need="at least one node of at least one device, and bandwidths above 0",
                got=f"{self}",
                hint="a Line of a machine's own numbers",
            )

    @property
    def num_devices(self) -> int:
        """In all."""
        return self.nodes * self.per_node

    def crossing(self, device: Places, before: Places, after: Places) -> Array:
        """Bandwidth between two neighbouring stages [bytes/s].

        Args:
            device: the second one's first device.
            before, after: how many devices each has.
        """
        pairs = np.minimum(before, after)
        inside = self.inside_bytes_per_s * pairs
        return np.where(np.mod(device, self.per_node) == 0, self.network_bytes_per_s, inside)

    def around(self, first: Places, end: Places) -> Array:
        """Bandwidth of a ring through neighbouring devices [bytes/s].

        Args:
            first, end: its first device, and the one after its last.
        """
        one_node = np.floor_divide(first, self.per_node) == np.floor_divide(
            np.subtract(end, 1), self.per_node
        )
        return np.where(one_node, self.inside_bytes_per_s, self.network_bytes_per_s)

    @cached_property
    def boundaries(self) -> tuple[int, ...]:
        """First devices of all nodes but the first."""
        return tuple(range(self.per_node, self.num_devices, self.per_node))


def stage_seconds(chain: Chain, many: Places, first: Places, end: Places, micro: int) -> Array:
    """Time of a micro-batch in the stage of the pieces from `first` to `end` [s]."""
    work = np.asarray(chain.seconds_before[end] - chain.seconds_before[first])
    return work / np.multiply(many, float(micro))


def sync_seconds(
    chain: Chain, line: Line, pieces: tuple[Places, Places], devices: tuple[Places, Places]
) -> Array:
    """Time to reduce the gradients of a stage [s].

    Args:
        chain, line: what is cut.
        pieces: the stage's first piece, and the one after its last.
        devices: its first device, and the one after its last.
    """
    (first, end), (low, high) = pieces, devices
    count = np.subtract(high, low)
    held = np.asarray(chain.weights_before[end] - chain.weights_before[first])
    return 2 * (count - 1) / count * held / line.around(low, high)


def crossing_seconds(
    chain: Chain, line: Line, piece: Places, devices: tuple[Places, Places, Places], micro: int
) -> Array:
    """Time of a micro-batch's activations to the stage that begins with a piece, and back [s].

    Args:
        chain, line: what is cut.
        piece: the first one of the later stage.
        devices: first of the earlier stage, first of the later one, and the one after its last.
        micro: micro-batches of a step.
    """
    low, middle, high = devices
    bandwidth = line.crossing(middle, np.subtract(middle, low), np.subtract(high, middle))
    return 2 * np.asarray(chain.crossing_bytes[np.subtract(piece, 1)]) / micro / bandwidth


def pipeline_seconds(chain: Chain, line: Line, cuts: Cuts, micro_batches: int) -> float:
    """Length of the pipeline that these cuts make [s].

    Args:
        chain, line: what is cut.
        cuts: of each stage but the first, its first piece and its first device.
        micro_batches: parts of the batch.

    Raises:
        InputError: cuts that leave a stage without pieces or devices.
    """
    pieces = (0, *(piece for piece, _ in cuts), len(chain))
    devices = (0, *(device for _, device in cuts), line.num_devices)
    rises = all(a < b for ends in (pieces, devices) for a, b in pairwise(ends))
    if not rises or micro_batches < 1:
        raise InputError(
            need=f"cuts that rise from piece 1 to {len(chain) - 1} and from device 1 to "
            f"{line.num_devices - 1}, and at least one micro-batch",
            got=f"{cuts}, {micro_batches} micro-batches",
            hint="every stage needs a piece and a device",
        )
    times = [
        float(stage_seconds(chain, high - low, first, end, micro_batches))
        for (first, end), (low, high) in zip(pairwise(pieces), pairwise(devices), strict=True)
    ]
    syncs = [
        float(sync_seconds(chain, line, ends, own))
        for ends, own in zip(pairwise(pieces), pairwise(devices), strict=True)
    ]
    around = zip(devices, devices[1:], devices[2:], strict=False)
    moves = [
        float(crossing_seconds(chain, line, piece, own, micro_batches))
        for piece, own in zip(pieces[1:-1], around, strict=True)
    ]
    return sum(times) + sum(moves) + (micro_batches - 1) * max(times + moves) + max(syncs)


def device_cuts(line: Line, stages: int, radius: int) -> Iterator[tuple[int, ...]]:
    """Where a line may be cut into stages, near the boundaries of nodes.

    Args:
        line: of devices.
        stages: how many; the boundaries that share the line most evenly are the ones to stay near.
        radius: how far from them, at most [devices].
    """
    near = (near_boundary(line, stages, number, radius) for number in range(1, stages))
    for cut in product(*near):
        if all(a < b for a, b in pairwise((0, *cut, line.num_devices))):
            yield cut


def near_boundary(line: Line, stages: int, number: int, radius: int) -> range:
    """First devices that stage `number` may have, near the boundary of a node."""
    even = number * line.num_devices / stages
    centre = min(line.boundaries, key=lambda b: abs(b - even), default=round(even))
    low, high = max(number, centre - radius), centre + radius
    return range(low, min(high, line.num_devices - stages + number) + 1)


def best_cuts(
    chain: Chain, line: Line, stages: int, *, micro_batches: int = 16, radius: int = 3
) -> tuple[Cuts, float]:
    """The shortest pipeline of all, by looking at each one.

    Args:
        chain, line: what to cut.
        stages: 2 to 4.
        micro_batches: parts of the batch.
        radius: how far device cuts may lie from the boundaries of nodes [devices].

    Returns:
        The cuts and the length [s].

    Raises:
        InputError: more stages than pieces or devices, or not 2 to 4 of them.
    """
    if not 2 <= stages <= min(4, len(chain), line.num_devices):
        raise InputError(
            need="2 to 4 stages, and a piece and a device for each",
            got=f"{stages} stages, {len(chain)} pieces, {line.num_devices} devices",
            hint="fewer stages",
        )
    best: tuple[Cuts, float] = ((), np.inf)
    for devices in device_cuts(line, stages, radius):
        lengths = _all_lengths(chain, line, (0, *devices, line.num_devices), micro_batches)
        place = np.unravel_index(int(lengths.argmin()), lengths.shape)
        if float(lengths.min()) < best[1]:
            pieces = [int(p) + 1 for p in place]
            best = tuple(zip(pieces, devices, strict=True)), float(lengths.min())
    return best


def _all_lengths(chain: Chain, line: Line, devices: Sequence[int], micro: int) -> Array:
    """Length of every pipeline with these device cuts, by its cuts' pieces less one [s]."""
    count, places = len(devices) - 2, np.arange(1, len(chain))

    def along(cut: int) -> npt.NDArray[np.int64]:
        return places.reshape([-1 if axis == cut else 1 for axis in range(count)])

    ends: list[Places] = [0, *map(along, range(count)), len(chain)]
    total, longest, sync = np.asarray(0.0), np.asarray(0.0), np.asarray(0.0)
    fits = np.ones((), dtype=np.bool_)
    for stage, ((first, end), (low, high)) in enumerate(
        zip(pairwise(ends), pairwise(devices), strict=True)
    ):
        time = stage_seconds(chain, high - low, first, end, micro)
        total, longest = total + time, np.maximum(longest, time)
        sync = np.maximum(sync, sync_seconds(chain, line, (first, end), (low, high)))
        fits = fits & np.less(first, end)
        if stage:
            before = devices[stage - 1]
            move = crossing_seconds(chain, line, first, (before, low, high), micro)
            total, longest = total + move, np.maximum(longest, move)
    return np.where(fits, total + (micro - 1) * longest + sync, np.inf)
