"""Graphs of the suite under Triton's interpreter, in a process of their own.

    TRITON_INTERPRET=1 python -m benchmarks.fusion_triton.interpret softmax_mask rope --processors 4

prints one line of JSON for each graph: how far its results are from double precision, and how far
torch's own are. Triton decides when it is imported whether it interprets, so the process that
starts this one sets its variable.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.fusion.accuracy import distance, in_double
from benchmarks.fusion.cases import GRAPHS, SIZES, inputs_of
from benchmarks.fusion_triton.traced import traced
from benchmarks.job import python_path
from weft.core.errors import RunError
from weft.fusion.device import H100, Device
from weft.fusion.gpu import compile_for

__all__ = ["Interpreted", "interpret"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreted:
    """A graph under the interpreter.

    Attributes:
        graph: which.
        error, eager_error: of weft and of torch, against double precision [relative].
        launches: of kernels.
        left: operators that torch computed.
    """

    graph: str
    error: float
    eager_error: float
    launches: int
    left: tuple[str, ...]


def interpret(
    graphs: Sequence[str], *, processors: int = H100.processors, size: str = SIZES[0]
) -> list[Interpreted]:
    """Run graphs in a new process.

    Args:
        graphs: names.
        processors: of the GPU that kernels are planned for; with few, programs do several blocks.
        size: of the graphs.

    Raises:
        RunError: the process failed.
    """
    command = [sys.executable, "-m", "benchmarks.fusion_triton.interpret", *graphs]
    command += ["--processors", str(processors), "--size", size]
    settings = {**os.environ, **python_path(), "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
    if done.returncode:
        raise RunError(
            need=f"{', '.join(graphs)} under Triton's interpreter",
            got=done.stderr[-2000:],
            hint="run the command by itself: " + " ".join(command[1:]),
        )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [Interpreted(**{**own, "left": tuple(own["left"])}) for own in found]


def _interpret_here(name: str, size: str, device: Device, folder: Path) -> Interpreted:
    graph = GRAPHS[name]
    inputs = inputs_of(graph, size)
    own = traced(graph, inputs)
    kernels = [compile_for(candidate.region, device, folder) for candidate in own.regions]
    wanted = in_double(graph, inputs)
    return Interpreted(
        graph=name,
        error=distance(own.run(kernels, inputs), wanted),
        eager_error=distance(graph.compute(*inputs), wanted),
        launches=sum(len(kernel.description.launches) for kernel in kernels),
        left=own.left,
    )


def main(arguments: Sequence[str]) -> None:
    """Life of the process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fusion_triton.interpret")
    parser.add_argument("graphs", nargs="+", choices=list(GRAPHS))
    parser.add_argument("--processors", type=int, default=H100.processors)
    parser.add_argument("--size", choices=SIZES, default=SIZES[0])
    given = parser.parse_args(arguments)
    device = replace(H100, processors=given.processors)
    with tempfile.TemporaryDirectory(prefix="weft-bench-") as folder:
        for number, name in enumerate(given.graphs):
            made = _interpret_here(name, given.size, device, Path(folder) / str(number))
            print(json.dumps(asdict(made)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
