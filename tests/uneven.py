"""Small uneven machines and sketches of steps by hand, for tests of what plans for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from weft.core.provenance import derived
from weft.machine.model import Device, Link, Machine, NodeGroup
from weft.machine.presets import preset
from weft.parallel.mcts.sketch import Crossing, Parameters, Sketch

SOURCE = "example"
UNLIMITED = 1e15


def device(name: str = "one", speed: float = 1.0, memory: float = UNLIMITED) -> Device:
    """A device that computes `speed` x 1e9 operations in a second and moves as many bytes."""
    return Device(
        name=name,
        kind="cuda",
        matmul_flops_per_s={"f32": derived(speed * 1e9, "FLOP/s", SOURCE)},
        vector_flops_per_s=derived(speed * 1e9, "op/s", SOURCE),
        memory_bytes=derived(memory, "B", SOURCE),
        memory_bytes_per_s=derived(speed * 1e9, "B/s", SOURCE),
        launch_s=derived(0.0, "s", SOURCE),
    )


def link(bytes_per_s: float = 1.0, latency_s: float = 0.0) -> Link:
    return Link(
        bytes_per_s=derived(bytes_per_s, "B/s", SOURCE), latency_s=derived(latency_s, "s", SOURCE)
    )


def machine(
    *groups: tuple[Device, int],
    inside: float = 1.0,
    network: float = 1.0,
    latency_s: float = 0.0,
    overlap: float = 1.0,
) -> Machine:
    """One node for each group of (device, how many)."""
    return Machine(
        name="uneven",
        groups=tuple(
            NodeGroup(
                device=kind, devices_per_node=count, num_nodes=1, link=link(inside, latency_s)
            )
            for kind, count in groups
        ),
        network=link(network, latency_s),
        overlap=derived(overlap, "share", SOURCE),
    )


MIXED = preset("mixed-v100-p100-1080ti")
KINDS = tuple(group.device for group in MIXED.groups)


def sketch(
    forward: list[tuple[int, float]],
    backward: list[tuple[int, float]] = [],  # noqa: B006 - never changed
    *,
    rows: int = 4,
    speeds: tuple[float, ...] = (1.0,),
    crossings: list[tuple[int, tuple[int, ...], float]] = [],  # noqa: B006
    gradients: list[tuple[int, int, float]] = [],  # noqa: B006
    factor_row_bytes: float = 0.0,
    layers: list[tuple[int, float, float, int, int]] = [],  # noqa: B006
) -> Sketch:
    """A step whose segments take (group, seconds of a row) on a device of speed 1.

    Args:
        forward, backward: segments.
        rows: of the batch.
        speeds: of the kinds of devices.
        crossings: (maker, readers, bytes of a row).
        gradients: (group, position, bytes); the parameter has as many, its state none.
        factor_row_bytes: of the factors of each gradient.
        layers: (segment, bytes of a row that is read, and made, columns, summands) of the first
            gradients' parameters.
    """
    segments = forward + backward
    each = np.asarray([seconds for _, seconds in segments])
    groups = 1 + max(group for group, _ in segments)
    count, kinds = len(gradients), len(speeds)
    held = np.zeros((groups, len(segments) + 1))
    sizes = np.asarray([float(size) for _, _, size in gradients])
    every = [*layers, *((-1, 0.0, 0.0, 0, 0),) * (count - len(layers))]
    return Sketch(
        name="by hand",
        rows=rows,
        devices=tuple(device(f"kind{k}", speed) for k, speed in enumerate(speeds)),
        num_groups=groups,
        group=np.asarray([group for group, _ in segments]),
        num_forward=len(forward),
        seconds=each[:, None, None] / np.asarray(speeds)[None, :, None] * np.arange(rows + 1),
        reductions=np.zeros(len(segments), np.int64),
        reduced_bytes=np.zeros(len(segments)),
        held_row_bytes=held,
        held_bytes=held.copy(),
        passing_row_bytes=np.zeros(len(segments)),
        passing_bytes=np.zeros(len(segments)),
        update_bytes=np.zeros(groups),
        rest_s=np.zeros((groups, kinds)),
        lasting_bytes=np.zeros(groups),
        crossings=tuple(Crossing(*crossing) for crossing in crossings),
        parameters=Parameters(
            node=np.arange(count),
            group=np.asarray([group for group, _, _ in gradients], np.int64),
            position=np.asarray([position for _, position, _ in gradients], np.int64),
            turn=np.full(count, 2),
            num_bytes=sizes,
            state_bytes=np.zeros(count),
            gradient_bytes=sizes,
            factor_row_bytes=np.full(count, factor_row_bytes),
            product_s=np.zeros((count, kinds, rows + 1)),
            update_s=np.zeros((count, kinds)),
            reader=np.asarray([layer[0] for layer in every], np.int64),
            read_row_bytes=np.asarray([layer[1] for layer in every], np.float64),
            made_row_bytes=np.asarray([layer[2] for layer in every], np.float64),
            columns=np.asarray([layer[3] for layer in every], np.int64),
            summands=np.asarray([layer[4] for layer in every], np.int64),
            is_table=np.zeros(count, np.bool_),
        ),
    )


def with_reductions(of: Sketch, position: int, count: int, num_bytes: float) -> Sketch:
    """The same with sums over the batch in one segment."""
    reductions, total = of.reductions.copy(), of.reduced_bytes.copy()
    reductions[position], total[position] = count, num_bytes
    return replace(of, reductions=reductions, reduced_bytes=total)
