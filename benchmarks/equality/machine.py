"""A machine on which tiny models are worth splitting, so that a search splits them."""

from __future__ import annotations

from dataclasses import replace

from weft.core.provenance import Quantity, derived
from weft.machine import Machine, preset

__all__ = ["slow_machine"]

_SLOWER = 1e5
"""A tiny model's step is this much shorter than one that fills an H100, give or take."""


def slow_machine(num_devices: int) -> Machine:
    """An H100 node with few devices, whose arithmetic is slowed and whose links are not.

    Nothing is measured against it: it only makes a search prefer plans with communication.
    """
    machine = preset("dgx-h100x1")
    group = machine.groups[0]
    device = replace(
        group.device,
        name=f"{group.device.name}-slowed",
        matmul_flops_per_s={
            name: _slowed(rate) for name, rate in group.device.matmul_flops_per_s.items()
        },
        vector_flops_per_s=_slowed(group.device.vector_flops_per_s),
        memory_bytes_per_s=_slowed(group.device.memory_bytes_per_s),
    )
    return replace(
        machine,
        name=f"slow-{num_devices}",
        groups=(replace(group, device=device, devices_per_node=num_devices),),
    )


def _slowed(rate: Quantity) -> Quantity:
    return derived(rate.value / _SLOWER, rate.unit, f"{rate.source}, divided by {_SLOWER:g}")
