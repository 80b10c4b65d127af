"""Compile what `weft bench fusion --device cuda` will time: `python -m benchmarks.fusion.warm`.

Compiling takes processors, and a GPU waits for them. Several processes compile all contestants of
all graphs; what they measured on the way, one beside the other, is thrown away, so that the run
that follows finds code, and measures itself.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch._inductor.runtime.cache_dir_utils import cache_dir

from benchmarks.fusion.cases import GRAPHS, inputs_of
from benchmarks.fusion.gpu import FIRST, Cuda, compiled_for_gpu

__all__ = ["main"]

MEASURED = ("*_measured*.json", "*.best_config")
"""Files in which weft and Inductor keep what they measured."""
DECIDED = ("fxgraph", "aotautograd")
"""Folders of whole graphs, with what was decided for them."""


def main(arguments: Sequence[str]) -> None:
    """Compile, in so many processes, for so long at most."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fusion.warm")
    parser.add_argument("--processes", type=int, default=max((os.cpu_count() or 2) - 2, 1))
    parser.add_argument("--seconds", type=float, default=600.0, help="no graph is begun after that")
    parser.add_argument("--share", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.share is not None:
        number, of = map(int, given.share.split("/"))
        _compile(number, of, given.seconds)
        return
    begun = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.fusion.warm", f"--seconds={given.seconds}"]
    settings = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    running = [
        subprocess.Popen([*command, f"--share={n}/{given.processes}"], env=settings)
        for n in range(given.processes)
    ]
    failed = sum(process.wait() != 0 for process in running)
    _forget(Path(cache_dir()))
    print(f"{time.monotonic() - begun:.0f} s, {failed} processes failed", file=sys.stderr)


def _compile(number: int, of: int, seconds: float) -> None:
    """Every so many-th graph, by all contestants."""
    begun, gpu = time.monotonic(), Cuda()
    for size, name in [(size, name) for size in FIRST for name in GRAPHS][number::of]:
        if time.monotonic() - begun > seconds:
            print(f"{name} {size} is left out", file=sys.stderr, flush=True)
            continue
        torch.compiler.reset()
        inputs = gpu.put(inputs_of(GRAPHS[name], size))
        with torch.no_grad():
            for contestant, function in compiled_for_gpu(GRAPHS[name], size).items():
                try:
                    function(*inputs)
                except Exception as error:  # the timed run tells the same
                    print(f"{name} {size} {contestant}: {error}", file=sys.stderr, flush=True)
        torch.cuda.empty_cache()


def _forget(folder: Path) -> None:
    for pattern in MEASURED:
        for path in folder.rglob(pattern):
            path.unlink()
    for name in DECIDED:
        shutil.rmtree(folder / name, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
