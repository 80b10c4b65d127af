"""GPUs that kernels are planned for, and how many blocks of threads one of their processors holds.

Sources: NVIDIA A100 Tensor Core GPU Architecture (white paper, 2020), NVIDIA H100 Tensor Core GPU
Architecture (white paper, 2022), and the data sheets of A100 80GB SXM and H100 SXM5; limits by
compute capability: CUDA C++ Programming Guide, table "Technical Specifications per Compute
Capability"; in what amounts registers and shared memory are given: CUDA Occupancy Calculator.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.errors import InputError

__all__ = [
    "A100",
    "DEVICES",
    "H100",
    "Device",
    "Usage",
    "blocks_per_processor",
    "device_like",
    "steps_apart",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU.

    Attributes:
        name: as its maker calls it.
        capability: compute capability times ten: 80, 90.
        processors: streaming multiprocessors.
        clock_ghz: of its processors [GHz].
        lanes: single-precision operations that a processor begins in a cycle.
        registers: of 32 bits, of a processor.
        shared_bytes: of a processor, at most [bytes].
        warps, blocks: that a processor holds at most.
        cache_bytes: of the second level [bytes].
        cache_bytes_per_ns: that the second level delivers.
        memory_bytes_per_ns: that memory delivers.
        launch_ns: of a kernel after another [ns].
    """

    name: str
    capability: int
    processors: int
    clock_ghz: float
    lanes: int = 128
    registers: int = 65_536
    shared_bytes: int
    warps: int = 64
    blocks: int = 32
    cache_bytes: float
    cache_bytes_per_ns: float
    memory_bytes_per_ns: float
    launch_ns: float = 2500.0


A100 = Device(
    name="A100 80GB SXM",
    capability=80,
    processors=108,
    clock_ghz=1.41,
    lanes=64,
    shared_bytes=164 * 1024,
    cache_bytes=40e6,
    # Half of the 5120 bytes a cycle of the white paper. Derived: what kernels get.
    cache_bytes_per_ns=3600.0,
    memory_bytes_per_ns=2039.0,
)
H100 = Device(
    name="H100 SXM5",
    capability=90,
    processors=132,
    clock_ghz=1.755,
    shared_bytes=228 * 1024,
    cache_bytes=50e6,
    # As A100's: NVIDIA names no other figure.
    cache_bytes_per_ns=4500.0,
    memory_bytes_per_ns=3350.0,
)
DEVICES = {device.capability: device for device in (A100, H100)}


def device_like(capability: int) -> Device:
    """The device whose figures kernels for a compute capability are planned with.

    Args:
        capability: times ten; newer ones take the figures of the newest that is known.

    Raises:
        InputError: it is older than any that kernels are made for.
    """
    known = [own for own in DEVICES if own <= capability]
    if not known:
        raise InputError(
            need=f"a GPU of compute capability {min(DEVICES) / 10} or newer",
            got=str(capability / 10),
            hint="compile with the default back end of torch.compile on this GPU",
        )
    return DEVICES[max(known)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a kernel takes.

    Attributes:
        registers: of each thread.
        shared_bytes: of each block [bytes].
        warps: of each block.
        spilled_bytes: of each thread's registers in memory [bytes].
    """

    registers: int
    shared_bytes: int
    warps: int
    spilled_bytes: int = 0


WARP = 32
REGISTERS_AT_ONCE = 256
"""Registers are given to a warp in so many."""
WARPS_AT_ONCE = 4
"""A processor has four parts, each with its own registers."""
SHARED_AT_ONCE, SHARED_OF_SYSTEM = 128, 1024
"""Shared memory is given in so many bytes; so many of each block are the driver's."""


def blocks_per_processor(usage: Usage, device: Device) -> int:
    """How many blocks of a kernel one processor holds at once.

    Example:
        >>> blocks_per_processor(Usage(registers=64, shared_bytes=0, warps=8), H100)
        4
        >>> blocks_per_processor(Usage(registers=32, shared_bytes=100_000, warps=4), H100)
        2
    """
    of_warp = _up(max(usage.registers, 1) * WARP, REGISTERS_AT_ONCE)
    warps = device.registers // WARPS_AT_ONCE // of_warp * WARPS_AT_ONCE
    shared = _up(usage.shared_bytes + SHARED_OF_SYSTEM, SHARED_AT_ONCE)
    return min(
        device.blocks,
        device.warps // usage.warps,
        warps // usage.warps,
        device.shared_bytes // shared,
    )


def steps_apart(predicted: Usage, compiled: Usage, device: Device) -> int:
    """How many steps of occupancy a kernel is from what was predicted.

    A step is from one number of blocks on a processor to the next that some number of registers
    leads to.

    Example:
        >>> wide = Usage(registers=64, shared_bytes=0, warps=8)
        >>> steps_apart(wide, Usage(registers=80, shared_bytes=0, warps=8), H100)
        1
    """
    ladder = {
        blocks_per_processor(Usage(registers=r, shared_bytes=0, warps=predicted.warps), device)
        for r in range(8, 256, 8)
    }
    low, high = sorted(blocks_per_processor(usage, device) for usage in (predicted, compiled))
    return sum(low < step <= high for step in ladder)


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit
