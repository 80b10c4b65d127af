"""What can be told of a program on a machine before anything is decided: ratios, no units.

They let one policy decide about programs and machines that it has not seen: whether gradients take
long to reduce compared with the arithmetic, and whether the state fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.parallel.dqn.environment import Numbers
from weft.parallel.estimate import slowest_device
from weft.parallel.pipeline.expert import forward_seconds
from weft.parallel.pipeline.stages import forward_nodes
from weft.parallel.request import PlanRequest
from weft.program.graph import Role
from weft.program.operators import Kind, operator

__all__ = ["Effect", "Sight"]

LEAST = 1e-4
"""Share of a step below which nothing is told apart. Chosen: far below what is predicted well."""
SHARED_OUT = (1.0, 1.0 / 3.0, 0.0)
"""Share of what a device keeps that each stage of `STORED` leaves whole. Derived: of a parameter
and the two moments of Adam, none, two thirds, and all are stored in parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a decision about a variable does, in one of the layers that are alike.

    Attributes:
        nodes: whose work is shared out.
        reduced_bytes, num_reduced: values that are reduced [bytes].
        cut_bytes: of variables that are cut [bytes].
        times: layers in which it does so.
    """

    nodes: Sequence[int]
    reduced_bytes: float
    num_reduced: int
    cut_bytes: float
    times: float


class Sight:
    """Ratios of a program on a machine.

    Args:
        request: which.
    """

    shared_width = 5
    mesh_width = 7
    storage_width = 5
    variables_width = 3

    def __init__(self, request: PlanRequest) -> None:
        program, machine = request.program, request.machine
        self._devices = machine.num_devices
        self._per_node = min(group.devices_per_node for group in machine.groups)
        self._inside = min(group.link.bytes_per_s.value for group in machine.groups)
        self._network = machine.network.bytes_per_s.value
        every = range(len(program.nodes))
        self._seconds = forward_seconds(program, every, slowest_device(machine))
        self._compute_s = max(sum(self._seconds) / self._devices, 1e-9)
        self._latencies = (
            max(group.link.latency_s.value for group in machine.groups),
            machine.network.latency_s.value,
        )
        held = {
            role: sum(
                float(program.nodes[i.node].outputs[0].num_bytes)
                for i in program.inputs
                if i.role is role
            )
            for role in (Role.PARAMETER, Role.STATE)
        }
        self._weights = max(held[Role.PARAMETER], 1.0)
        self._kept = sum(held.values()) / request.limit_bytes
        made = (program.nodes[n] for n in forward_nodes(program))
        self._products = sum(
            float(node.outputs[0].num_bytes)
            for node in made
            if operator(node.op).kind is Kind.CONTRACT
        )

    def shared(self) -> Numbers:
        """Of the program on all of the machine [S]."""
        inside_only = self._devices <= self._per_node
        return np.asarray(
            [
                math.log10(self._reduced_s(self._devices, 1) / self._compute_s) / 3,
                math.log10(max(self._kept, 1e-6)) / 3,
                math.log2(self._devices) / 10,
                math.log10(max(self._products, 1.0) / self._weights) / 3,
                0.0 if inside_only else math.log10(self._inside / self._network) / 3,
            ],
            dtype=np.float32,
        )

    def mesh(self, data: int, variables: int) -> list[float]:
        """Of devices that share out the batch, and those that share out the variables."""
        return [
            math.log2(data) / 10,
            math.log2(variables) / 10,
            variables == 1,
            data == 1,
            variables <= self._per_node,
            math.log10(max(self._reduced_s(data, variables) / self._compute_s, 1e-4)) / 4,
            math.log10(max(self._kept / variables, 1e-6)) / 3,
        ]

    def storage(self, place: int, data: int, variables: int) -> list[float]:
        """Of a stage of ZeRO, by its position among those that are chosen from."""
        whole = SHARED_OUT[place]
        kept = self._kept / variables * (whole + (1 - whole) / data)
        return [place == 0, place == 1, place == 2, kept <= 1.0, math.log10(max(kept, 1e-6)) / 3]

    def variables(self, effect: Effect, size: int) -> list[float]:
        """Of a decision: work that it shares out, what it reduces, gradients it need not reduce.

        Args:
            effect: of the decision.
            size: devices along the axis.
        """
        inside = size <= self._per_node
        bandwidth, latency = self._inside, self._latencies[0]
        if not inside:
            bandwidth, latency = self._network, self._latencies[1]
        ring = 2 * (size - 1) / size / bandwidth
        seconds = (
            (1 - 1 / size) * effect.times * sum(self._seconds[node] for node in effect.nodes),
            effect.times * (ring * effect.reduced_bytes + 2 * latency * effect.num_reduced),
            ring * effect.times * effect.cut_bytes,
        )
        return [math.log10(max(s / self._compute_s, LEAST)) / 4 for s in seconds]

    def _reduced_s(self, data: int, variables: int) -> float:
        """Time in which gradients are reduced over the first axis, level by level [s]."""
        if data == 1:
            return 1e-9 * self._compute_s
        own = self._weights / variables
        inside = min(data, max(1, self._per_node // variables))
        nodes = data // inside
        within = 2 * (inside - 1) / inside * own / self._inside
        # Inside a node each device reduces its part first, and takes that over the network.
        return within + 2 * (nodes - 1) / nodes * own / inside / self._network
