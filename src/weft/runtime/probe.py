"""Measure this host as a cluster: one process a rank, all at work at once.

Ranks share memory bandwidth, caches and cores, so a figure measured alone would promise too
much. The parent starts the ranks, passes on what rank 0 reports, takes the mean of what they
found and fits a machine. What a rank measures is in `weft.runtime.probe_rank`.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import TypeAlias

import torch

from weft.core.errors import InputError, RunError
from weft.cost.fit import Measurements, Points, ProductTime, fit_machine
from weft.cost.fit_attention import AttentionTime
from weft.machine.model import Machine
from weft.runtime.probe_calls import CALLS

__all__ = ["Found", "items_of", "mean_of", "measurements_of", "points_of", "probe", "processor"]

log = logging.getLogger(__name__)

Found: TypeAlias = dict[str, list[float]]
"""Measured items as `weft.runtime.probe_rank` writes them: a key that says what, and numbers."""

_RANK = "import sys; from weft.runtime.probe_rank import main; main(sys.argv[1:])"
_MOST_CPU_RANKS = 64


def probe(num_ranks: int = 2, seconds: float = 20.0) -> Machine:
    """Measure this host as a machine of `num_ranks` ranks.

    On a host with CUDA devices the ranks are those, with NCCL, at most one rank a device;
    elsewhere they are single-threaded CPU processes, with gloo.

    Args:
        num_ranks: how many ranks run at once.
        seconds: time to spend on measuring, without starting up [s].

    Returns:
        A machine of one node whose figures name this processor, the date and torch's version.

    Raises:
        InputError: there is no such number of ranks here, or no time.
        RunError: a rank failed or did not end in time; the error holds its last lines.
    """
    cuda = torch.cuda.is_available()
    most = torch.cuda.device_count() if cuda else _MOST_CPU_RANKS
    if not 1 <= num_ranks <= most or not seconds > 0:
        raise InputError(
            need=f"1 to {most} ranks and a time above 0 s",
            got=f"{num_ranks} ranks, {seconds} s",
            hint="two ranks and 20 s give figures good to a few percent",
        )
    log.info("probe: starting %d ranks", num_ranks)
    with tempfile.TemporaryDirectory(prefix="weft-probe-") as name:
        folder = Path(name)
        _run_ranks(folder, num_ranks, seconds)
        found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(num_ranks)]
    log.info("probe: measured %d items", len(found[0]))
    return fit_machine(measurements_of(mean_of(found), num_ranks, cuda=cuda))


def _run_ranks(folder: Path, num_ranks: int, seconds: float) -> None:
    """Start the ranks and wait for the last one; none outlives this call."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    # All ranks are on this host, whose name need not resolve.
    environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(num_ranks):
            with (folder / f"{rank}.log").open("wb") as output:
                ranks.append(
                    subprocess.Popen(
                        [
                            sys.executable,
                            "-c",
                            _RANK,
                            *map(str, (folder, rank, num_ranks, seconds)),
                        ],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=environment,
                    )
                )
        _wait(ranks, folder, time.monotonic() + 120.0 + 6.0 * seconds)
    finally:
        for process in ranks:
            if process.poll() is None:
                process.kill()
            process.wait()


def _wait(ranks: Sequence[subprocess.Popen[bytes]], folder: Path, deadline: float) -> None:
    """Wait for all ranks, logging what rank 0 says.

    Raises:
        RunError: a rank failed, or the deadline passed.
    """
    reported = 0
    while True:
        codes = [process.poll() for process in ranks]
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed or (None in codes and time.monotonic() > deadline):
            rank = failed[0] if failed else codes.index(None)
            lines = (folder / f"{rank}.log").read_text(errors="replace").strip().splitlines()
            how = f"exit code {codes[rank]}" if failed else "no end in time"
            raise RunError(
                need="every rank to measure to the end",
                got=f"{how}; last lines: {' | '.join(lines[-3:]) or 'none'}",
                hint="probe again with fewer ranks, or on a quieter host",
                rank=rank,
            )
        lines = (folder / "0.log").read_text(errors="replace").splitlines()
        for line in lines[reported:]:
            log.info("probe: %s", line)
        reported = len(lines)
        if None not in codes:
            return
        time.sleep(0.1)


def mean_of(found: Sequence[Found]) -> Found:
    """Mean over ranks, number by number."""
    return {
        key: [fmean(numbers) for numbers in zip(*(f[key] for f in found), strict=True)]
        for key in found[0]
    }


def measurements_of(found: Found, num_ranks: int, *, cuda: bool = False) -> Measurements:
    """What a fit reads of measured items, with names and sources as of alike ranks on one host."""
    name = torch.cuda.get_device_name() if cuda else processor()
    kind = "cuda" if cuda else "cpu"
    return Measurements(
        name=f"{kind}-ranks-{num_ranks}",
        device_name=name,
        kind=kind,
        fuses=cuda,
        num_ranks=num_ranks,
        source=f"measured on {name}, {num_ranks} ranks at once, "
        f"{date.today().isoformat()}, torch {torch.__version__}",
        products=_products_of(found, "product"),
        large_products=_products_of(found, "large"),
        attention=tuple(
            AttentionTime(
                size=(int(b), int(h), int(t), int(d)),
                causal=mask == "causal",
                backward=direction == "backward",
                seconds=value[0],
            )
            for (b, h, t, d, mask, direction), value in items_of(found, "attention")
        ),
        operators=points_of(found, "operator"),
        launch_s=found["launch"][0],
        calls=tuple((CALLS[int(n)], value[0]) for (n, _), value in items_of(found, "call")),
        stream_bytes_per_s=found["stream"][0] / found["stream"][1],
        memory_bytes=found["memory"][0],
        collectives=points_of(found, "collective"),
        overlap=found["overlap"][0] if num_ranks > 1 else 0.0,
    )


def _products_of(found: Found, group: str) -> tuple[ProductTime, ...]:
    return tuple(
        ProductTime(dtype=dtype, rows=int(m), depth=int(k), columns=int(n), seconds=value[0])
        for (dtype, m, k, n, _), value in items_of(found, group)
    )


def items_of(found: Found, group: str) -> list[tuple[list[str], list[float]]]:
    """Items of a kind: the rest of the key in parts, and the numbers."""
    return [
        (key.split("|")[1:], value) for key, value in found.items() if key.startswith(f"{group}|")
    ]


def points_of(found: Found, group: str) -> dict[str, Points]:
    """Items of a kind as (bytes, seconds) by name."""
    points: dict[str, Points] = {}
    for (name, _), (num_bytes, seconds) in items_of(found, group):
        points[name] = (*points.get(name, ()), (num_bytes, seconds))
    return points


def processor() -> str:
    """Name of this host's processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
