"""One graph in a process of its own, in one or more sizes.

    python -m benchmarks.fusion.case softmax_mask M
    python -m benchmarks.fusion.case rope S M L --quick

prints one line of JSON for each size, and one for people on the standard error stream.

The process has two threads, and takes memory in a way that keeps page faults out of the times:
with what glibc does by default, every large tensor is mapped anew and given back at once, so that
the kernel's clearing of its pages takes longer than most of these graphs. Here, large blocks come
from a heap that does not shrink, as they do under an allocator that pools; `--default-allocator`
leaves glibc as it is. Both have to be settled before a process starts, so this one starts itself
again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from benchmarks.fusion import xla
from benchmarks.fusion.accuracy import distance, in_double
from benchmarks.fusion.cases import GRAPHS, SIZES, Graph, Result, inputs_of, tensors
from benchmarks.fusion.contestants import (
    CONTROL,
    EAGER,
    INDUCTOR,
    PROBE,
    WEFT,
    XLA,
    compiled,
    warm_up,
)
from benchmarks.fusion.point import Point
from benchmarks.fusion.probe import streaming
from benchmarks.fusion.quiet import Watch
from benchmarks.fusion.timing import Times, take_turns
from benchmarks.job import python_path

__all__ = ["CONTROL_RANGE", "THREADS", "Effort", "measure", "run_process", "settled", "timed"]

THREADS = 2
CONTROL_RANGE = 0.03
TRIES = 3
POOLED = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
SETTINGS = {
    "OMP_NUM_THREADS": str(THREADS),
    "NPROC": str(THREADS),  # XLA's
    # What was compiled before would make compiling look cheap, and the control no second one.
    "TORCHINDUCTOR_FX_GRAPH_CACHE": "0",
    "TORCHINDUCTOR_AUTOGRAD_CACHE": "0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long to measure.

    Attributes:
        seconds: at least so long for each contestant, on average [s].
        rounds: at least so often.
        patience_s: longest wait of the process for a quiet machine [s].
    """

    seconds: float
    rounds: int
    patience_s: float


FULL = Effort(seconds=1.5, rounds=20, patience_s=60.0)
QUICK = Effort(seconds=0.2, rounds=10, patience_s=5.0)


def measure(
    graph: str, sizes: Sequence[str], *, quick: bool, pooled: bool = True, timeout_s: float
) -> Iterator[Point]:
    """Run a graph in new processes; one point for each size, whatever happens.

    If a process dies, its size has failed, and another one goes on with the next.
    """
    left = list(sizes)
    while left:
        command = [sys.executable, "-m", __spec__.name, graph, *left]
        command += ["--quick"] * quick + ["--default-allocator"] * (not pooled)
        out, failure = run_process(command, timeout_s)
        for line in out.splitlines():
            if line.startswith("{"):
                yield Point.from_json(line)
                left = left[1:]
        if left:
            yield Point(graph=graph, size=left[0], failure=failure)
            left = left[1:]


def run_process(command: Sequence[str], timeout_s: float) -> tuple[str, str]:
    """What a process printed, and why there is no more of it."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env={**os.environ, **python_path()},
        )
    except subprocess.TimeoutExpired as late:
        out = late.stdout or ""  # bytes on some systems, although the call asked for text
        text = out if isinstance(out, str) else out.decode()
        return text, f"no end within {timeout_s:g} s"
    said = done.stderr.strip()
    last = said.rpartition("\n")[2]
    return done.stdout, f"exit code {done.returncode}: {last}\n{said[-2000:]}"


def measure_here(graph: Graph, size: str, effort: Effort, watch: Watch) -> Point:
    """Compile, compare and time one size, in this process."""
    inputs = inputs_of(graph, size)
    ready = compiled(graph, size, inputs)
    wanted = in_double(graph, inputs)
    layouts = [t.to("meta") for t in tensors(graph.compute(*inputs))]
    calls: dict[str, Callable[[], Result]] = {EAGER: lambda: graph.compute(*inputs)}
    for name, entry in ready.entries.items():
        calls[name] = lambda run=entry.function: run(*inputs)
    errors = {name: distance(call(), wanted) for name, call in calls.items()}
    others: dict[str, Callable[[], object]] = {PROBE: streaming(inputs, layouts)}
    if xla.is_there:
        others[XLA] = xla.in_xla(graph, inputs)
        errors[XLA] = distance(xla.to_torch(others[XLA]()), wanted)
    del wanted
    quiet = watch.wait()
    times, controls = timed({**calls, **others}, effort, watch)
    weft = ready.entries.get(WEFT)
    return Point(
        graph=graph.name,
        size=size,
        num_bytes=sum(t.nbytes for t in (*inputs, *layouts)),
        times=times,
        controls=controls,
        errors=errors,
        compile_s={name: entry.compile_s for name, entry in ready.entries.items()},
        kernels={name: entry.kernels for name, entry in ready.entries.items()},
        quiet=quiet,
        notes=weft.notes if weft else (),
        failure=ready.failure,
    )


def timed(
    calls: Mapping[str, Callable[[], object]], effort: Effort, watch: Watch
) -> tuple[Times, tuple[float, ...]]:
    """Times of the try with the best control; each try that is needed is longer than the last."""
    tries: list[tuple[float, Times]] = []
    for number in range(1, TRIES + 1):
        if tries:
            watch.wait()
        times = take_turns(calls, seconds=number * effort.seconds, rounds=number * effort.rounds)
        tries.append((times.ratio(INDUCTOR, CONTROL), times))
        if abs(tries[-1][0] - 1) <= CONTROL_RANGE:
            break
    _, best = min(tries, key=lambda found: abs(found[0] - 1))
    return best, tuple(control for control, _ in tries)


def settled(module: str, arguments: Sequence[str], *, pooled: bool = True) -> None:
    """Have this process run with what has to be settled before it starts; it may start again.

    Args:
        module: that the process runs.
        arguments: that it was given.
        pooled: whether memory is pooled.
    """
    wanted = {**SETTINGS, **POOLED} if pooled else SETTINGS
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        command = [sys.executable, "-m", module, *arguments]
        os.execve(sys.executable, command, {**os.environ, **wanted})
    torch.set_num_threads(THREADS)


def main(arguments: Sequence[str]) -> None:
    """Life of the process."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}")
    parser.add_argument("graph", choices=list(GRAPHS))
    parser.add_argument("sizes", nargs="+", choices=SIZES)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--default-allocator", action="store_true", help="glibc as it is")
    given = parser.parse_args(arguments)
    settled(__spec__.name, arguments, pooled=not given.default_allocator)
    with torch.no_grad():
        warm_up()
        effort = QUICK if given.quick else FULL
        watch = Watch(THREADS, effort.patience_s)
        for size in given.sizes:
            torch.compiler.reset()
            point = measure_here(GRAPHS[given.graph], size, effort, watch)
            print(point.to_json(), flush=True)
            print(point.line(), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
