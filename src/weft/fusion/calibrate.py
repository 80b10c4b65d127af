"""What kernels run on, measured in seconds with kernels of the same make, and kept."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from struct import pack

import numpy as np

from weft.core.errors import InputError
from weft.fusion.compile import build, load, put
from weft.fusion.cost import Host, phase_bytes
from weft.fusion.emit.cpp import Source, emit
from weft.fusion.lower import lower
from weft.fusion.region import Region
from weft.fusion.stitch import planned, scheduled
from weft.program.builder import Builder
from weft.program.graph import Role, Value
from weft.program.random import row_major_strides
from weft.program.types import DType, TensorType

__all__ = ["calibrated", "is_disturbed", "measure_host"]

FOOTPRINTS = (1e6, 2e6, 8e6, 16e6, 32e6, 64e6, 128e6)
"""Bytes of the tensors with which memory is measured: within second-level caches, within the last
level, at its edge, beyond it."""
CHAIN = 12
"""Multiplications and additions in a row that show what a vector instruction takes: enough for
memory not to count, and few enough for a processor to work on several vectors at once."""
CROWDED = 1.2
"""What instructions of kernels take over those of the chain. Measured: of twenty random kernels,
those that compute much took 1.2 times as long in the median (AMD EPYC, two threads)."""
PATIENCE_S = 0.15
"""How long a kernel is timed; the shortest run counts, so other processes disturb little [s]."""


SECOND_LEVEL = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
"""Where Linux tells the size of a cache, such as "1024K"."""
FORK_NS = (200.0, 50_000.0)
"""To have threads begin takes microseconds: where it seems to take less or much more, other
processes held one of them up [ns]."""
FASTER = 1.25
"""A further level of memory that seems this much faster than a nearer one was measured in quieter
moments than that."""

_log = logging.getLogger("weft.fusion")


@cache
def calibrated(threads: int, folder: Path) -> Host:
    """The host, as it was measured before, or now.

    Args:
        threads: that share out work.
        folder: where the result is kept, with its date.
    """
    path = folder / f"host_{threads}.json"
    if path.exists():
        return _read(path)
    host = measure_host(threads, folder)
    if is_disturbed(host):
        _log.warning(
            "weft: other processes use this machine's processors: kernels are planned with figures "
            "of another machine until a process finds it quiet"
        )
        return Host(threads=threads)
    measured = datetime.now(UTC).isoformat(timespec="seconds")
    plain = {"weft": "fusion host", "measured": measured, **asdict(host)}
    put(path, json.dumps(plain, indent=1))
    return host


def is_disturbed(host: Host) -> bool:
    """Whether other processes had a hand in what was measured."""
    least, most = FORK_NS
    late = host.threads > 1 and not least <= host.fork_ns <= most
    rates = [rate for _, rate in host.levels]
    return late or any(further > FASTER * nearer for nearer, further in pairwise(rates))


def _read(path: Path) -> Host:
    try:
        plain = json.loads(path.read_text())
        if plain.pop("weft") != "fusion host" or not plain.pop("measured"):
            raise ValueError("not a host")
        levels = tuple((float(limit), float(rate)) for limit, rate in plain.pop("levels"))
        return Host(levels=levels, **plain)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            need="what was measured of this host",
            got=f"{path}: {error}",
            hint="delete the file; it is measured anew in seconds",
        ) from error


def measure_host(threads: int, folder: Path) -> Host:
    """Measure memory, vector instructions and what threads cost to begin.

    Args:
        threads: that share out work.
        folder: where kernels are kept.
    """
    copies = [_copy(int(size)) for size in FOOTPRINTS]
    regions = [*copies, _chain()]
    on = [threads] * len(copies) + [1]
    sources, moved = list[Source](), list[float]()
    for number, (region, own) in enumerate(zip(regions, on, strict=True)):
        points = lower(region)
        plan = replace(planned(region, points, Host(threads=2)), threads=own)
        schedule = scheduled(points, plan)
        sources.append(emit(schedule, f"measure{number}_{threads}"))
        moved.append(sum(phase_bytes(points, phase) for phase in schedule.phases))
    library = build(sources, folder)
    timed = [
        _seconds(_runner(region, source, library, own), PATIENCE_S)
        for region, source, own in zip(regions, sources, on, strict=True)
    ]
    fork = _fork_seconds(threads, folder) if threads > 1 else 0.0
    rates = [size / (took - fork) * 1e-9 for size, took in zip(moved, timed, strict=True)]
    vectors = regions[-1].num_bytes / 8 / 16 * 2 * CHAIN
    alone = _single_rate(copies[2], folder) / rates[2] if threads > 1 else 1.0
    return Host(
        threads=threads,
        vector_ns=CROWDED * timed[-1] / vectors * 1e9,
        barrier_ns=fork * 1e9 / 3,
        fork_ns=fork * 1e9,
        single_share=min(alone, 1.0),
        levels=tuple(zip(FOOTPRINTS, rates[: len(FOOTPRINTS)], strict=True)),
        tile_bytes=_second_level_bytes() / 2,
    )


def _second_level_bytes() -> float:
    """A core's cache of the second level, as Linux tells it; else that of most cores."""
    try:
        told = SECOND_LEVEL.read_text().strip()
        return float(told.removesuffix("K")) * 1024
    except (OSError, ValueError):
        return 2 * Host(threads=1).tile_bytes


def _copy(num_bytes: int) -> Region:
    """A region that reads and writes so many bytes together."""
    shape = (max(num_bytes // 8 // 1024, 1), 1024)
    builder = Builder("copy")
    x = builder.input("in0", Role.BATCH, TensorType(DType.F32, shape))
    return _region(builder, builder.add("mul.Scalar", x, 1.5), shape)


def _chain() -> Region:
    """A region that computes more than it reads."""
    shape = (64, 1024)
    builder = Builder("chain")
    value = builder.input("in0", Role.BATCH, TensorType(DType.F32, shape))
    for _ in range(CHAIN):
        value = builder.add("mul.Scalar", builder.add("add.Scalar", value, 0.5), 0.75)
    return _region(builder, value, shape)


def _region(builder: Builder, last: Value, shape: tuple[int, ...]) -> Region:
    rows = row_major_strides(shape)
    return Region(
        program=builder.build(last),
        outputs=(last,),
        input_strides=(rows,),
        output_strides=(rows,),
    )


def _runner(region: Region, source: Source, library: Path, threads: int) -> Callable[[], None]:
    function = load(library, source.name)
    shape = region.program.nodes[0].outputs[0].shape
    # NumPy's memory: this may run while torch makes fake tensors only.
    x, y = np.ones(shape, np.float32), np.ones(shape, np.float32)
    size = source.shared_bytes + threads * source.thread_bytes
    scratch = np.empty(size + 64, np.uint8)
    pointers = pack("2P", x.ctypes.data, y.ctypes.data)
    start = -(-scratch.ctypes.data // 64) * 64

    def run() -> None:
        function(pointers, start, threads)
        assert x is not None and y is not None and scratch is not None

    return run


def _seconds(run: Callable[[], None], patience_s: float) -> float:
    """The shortest time of a call [s]."""
    run()
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < patience_s:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def _fork_seconds(threads: int, folder: Path) -> float:
    """What it takes to have threads begin and end, over one that does all [s]."""
    region = _copy(64 * 1024)
    found: list[float] = []
    for own in (threads, 1):
        points = lower(region)
        plan = replace(planned(region, points, Host(threads=2)), threads=own)
        source = emit(scheduled(points, plan), f"fork_{own}")
        run = _runner(region, source, build([source], folder), own)
        found.append(_seconds(run, PATIENCE_S))
    return max(found[0] - found[1] / threads, 0.0)


def _single_rate(region: Region, folder: Path) -> float:
    """Bytes that one thread moves in a nanosecond."""
    points = lower(region)
    plan = replace(planned(region, points, Host(threads=2)), threads=1)
    schedule = scheduled(points, plan)
    source = emit(schedule, "single")
    run = _runner(region, source, build([source], folder), 1)
    moved = sum(phase_bytes(points, phase) for phase in schedule.phases)
    return moved / _seconds(run, PATIENCE_S) * 1e-9
