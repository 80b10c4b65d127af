"""A step as the search simulates it: arrays for segments, parameters and what passes between.

Segments of the forward pass and then of the backward pass have *positions* 0, 1, 2, ... in the
order in which they run; the position after the last one is the update. All that grows with the
batch is kept for one row of it. Pure data: it knows kinds of devices, and no machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from weft.machine.model import Device

__all__ = ["Crossing", "Floats", "Integers", "Parameters", "Sketch"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Crossing:
    """What one segment makes for segments of other groups, by position, ascending."""

    maker: int
    readers: tuple[int, ...]
    row_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Parameters and what is done with their gradients, one entry each.

    Attributes:
        node: in the program.
        group: where it is.
        position: segment after which its gradient is complete.
        turn: 0 if it is so before the last of the sums that the segment waits for, 1 if before the
            last of the rows that it makes for other groups, else 2.
        num_bytes, state_bytes: of itself and of its optimizer state [bytes].
        gradient_bytes: that a synchronisation adds up [bytes].
        factor_row_bytes: of a row of the two factors whose product the gradient is, 0 if it is
            none, or if it is used more than once [bytes].
        product_s: time of that product [parameter, device kind, rows] [s].
        update_s: time of its update [parameter, device kind] [s].
        reader: segment of the layer that it is the weight of, -1 if of none.
        read_row_bytes, made_row_bytes: of a row of what that layer reads and makes [bytes].
        columns, summands: size of its dim by which results come in columns, or in summands; 0 if
            there is none.
        is_table: whether it is looked up.
    """

    node: Integers
    group: Integers
    position: Integers
    turn: Integers
    num_bytes: Floats
    state_bytes: Floats
    gradient_bytes: Floats
    factor_row_bytes: Floats
    product_s: Floats
    update_s: Floats
    reader: Integers
    read_row_bytes: Floats
    made_row_bytes: Floats
    columns: Integers
    summands: Integers
    is_table: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """A step in segments.

    Attributes:
        name: of the program.
        rows: of the batch.
        devices: kinds of devices that times are for.
        num_groups: how many are decided about.
        group: of each segment.
        num_forward: segments of the forward pass.
        seconds: time of a segment [position, device kind, rows] [s].
        reductions, reduced_bytes: sums over the whole batch that a segment waits for, such as
            statistics of a batch norm: how many, and of how much [position] [bytes].
        held_row_bytes, held_bytes: what a group has made and still needs, of a row and apart
            from rows [group, position, the update included] [bytes].
        passing_row_bytes, passing_bytes: the same for what is made and dropped inside a segment
            [position] [bytes].
        update_bytes: most that is in use for a moment in a group's update [group] [bytes].
        rest_s: update that belongs to no parameter [group, device kind] [s].
        lasting_bytes: buffers [group] [bytes].
        crossings: what passes between groups.
        parameters: what lasts and is synchronised.
    """

    name: str
    rows: int
    devices: tuple[Device, ...]
    num_groups: int
    group: Integers
    num_forward: int
    seconds: Floats
    reductions: Integers
    reduced_bytes: Floats
    held_row_bytes: Floats
    held_bytes: Floats
    passing_row_bytes: Floats
    passing_bytes: Floats
    update_bytes: Floats
    rest_s: Floats
    lasting_bytes: Floats
    crossings: tuple[Crossing, ...]
    parameters: Parameters

    @property
    def num_segments(self) -> int:
        """Segments of both passes."""
        return len(self.group)

    @cached_property
    def step_s(self) -> Floats:
        """Time of both passes on one device [device kind, rows] [s]."""
        return self.seconds.sum(axis=0)

    @cached_property
    def group_s(self) -> Floats:
        """Time of both passes of a group on one device [group, device kind, rows] [s]."""
        found = np.zeros((self.num_groups, *self.seconds.shape[1:]))
        np.add.at(found, self.group, self.seconds)
        return found

    @cached_property
    def group_bytes(self) -> Floats:
        """Parameters, optimizer state, gradients and buffers of a group [group] [bytes]."""
        its = self.parameters
        found = self.lasting_bytes.copy()
        np.add.at(found, its.group, its.num_bytes + its.state_bytes + its.gradient_bytes)
        return found

    @cached_property
    def peak_row_bytes(self) -> float:
        """Most that a row takes if all groups are on one device [bytes]."""
        held = self.held_row_bytes.sum(axis=0)
        held[:-1] += self.passing_row_bytes
        return float(held.max())
