"""Triton kernels of the fusion suite, without a GPU: `weft bench fusion-triton`.

Every graph is planned for an A100 and an H100 in all sizes, and every kernel compiled for both by
Triton: registers, spills and shared memory are read from the machine code, and the occupancy that
follows stands beside the one that the planner predicted. Then the kernels of the smallest size run
in Triton's interpreter, planned for an H100 and for a GPU of four processors, whose programs do
several blocks each, and are compared with torch in double precision.

It says nothing about speed.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.fusion.cases import GRAPHS, SIZES, inputs_of
from benchmarks.fusion.point import ERROR_FLOOR, ERROR_RATIO
from benchmarks.fusion_triton.interpret import Interpreted, interpret
from benchmarks.fusion_triton.traced import traced
from weft.fusion.cubin import compiled_usage
from weft.fusion.device import DEVICES, Device, Usage, blocks_per_processor, steps_apart
from weft.fusion.gpu import emitted
from weft.report.bench import BenchReport, Claim, at_most, print_report
from weft.report.table import Table

__all__ = ["claims_of", "run", "table_of"]

FEW = 4
"""Processors of the GPU on which programs do several blocks each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A kernel for one GPU.

    Attributes:
        graph, size, kernel: which; kernels of a graph are numbered.
        device: what it was planned and compiled for.
        programs: how many there are.
        predicted, compiled: what each takes.
    """

    graph: str
    size: str
    kernel: int
    device: Device
    programs: int
    predicted: Usage
    compiled: Usage

    @property
    def steps(self) -> int:
        """Steps of occupancy between prediction and machine code."""
        return steps_apart(self.predicted, self.compiled, self.device)


def run(quick: bool = False) -> BenchReport:
    """Compile and interpret; `quick` takes every second graph in its smallest size."""
    names, sizes = (tuple(GRAPHS)[::2], SIZES[:1]) if quick else (tuple(GRAPHS), SIZES)
    kernels = [own for name in names for size in sizes for own in _compiled(name, size)]
    interpreted = interpret(names)
    few = interpret(names, processors=FEW)
    return BenchReport(
        bench="fusion-triton",
        claims=claims_of(kernels, [*interpreted, *few]),
        table=table_of(kernels, interpreted),
        facts={
            "kernels": len(kernels),
            "occupancy_as_predicted": sum(own.steps == 0 for own in kernels) / len(kernels),
            "errors": {own.graph: [own.error, own.eager_error] for own in interpreted},
            "errors_on_few_processors": {own.graph: own.error for own in few},
            "launches": {own.graph: own.launches for own in interpreted},
            "left_to_torch": {own.graph: own.left for own in interpreted if own.left},
            "compiled": [_fact(own) for own in kernels],
        },
    )


def claims_of(kernels: Sequence[Compiled], interpreted: Sequence[Interpreted]) -> tuple[Claim, ...]:
    """What has to hold."""
    shares = [own.error / max(ERROR_RATIO * own.eager_error, ERROR_FLOOR) for own in interpreted]
    return (
        at_most(
            f"error under the interpreter over what torch's allows, {len(shares)} runs, largest",
            math.nan if any(map(math.isnan, shares)) else max(shares),
            1.0,
        ),
        at_most(
            f"spilled registers of {len(kernels)} kernels, most [bytes of a thread]",
            max(own.compiled.spilled_bytes for own in kernels),
            0,
        ),
        at_most(
            "predicted from compiled occupancy, farthest [steps]",
            max(own.steps for own in kernels),
            1,
        ),
    )


def table_of(kernels: Sequence[Compiled], interpreted: Sequence[Interpreted]) -> Table:
    """One row for each kernel that the GPUs have in common, or one of them has."""
    errors = {(own.graph, SIZES[0]): f"{own.error:.1e}" for own in interpreted}
    rows: dict[tuple[str, str, int], dict[int, Compiled]] = {}
    for own in kernels:
        key = (own.graph, own.size, own.kernel)
        rows.setdefault(key, {})[own.device.capability] = own
    columns = ["graph", "size", "kernel"]
    for capability in DEVICES:
        columns += [f"sm_{capability}: programs x warps", "registers", "spilled", "shared [B]"]
        columns += ["blocks, predicted / compiled"]
    return Table(
        columns=(*columns, "error"),
        rows=tuple(
            (*key[:2], str(key[2]), *_cells(of), errors.get(key[:2], "") if key[2] == 0 else "")
            for key, of in rows.items()
        ),
    )


def _cells(of: Mapping[int, Compiled]) -> tuple[str, ...]:
    cells: list[str] = []
    for capability, device in DEVICES.items():
        own = of.get(capability)
        if own is None:  # another plan, of fewer kernels
            cells += [""] * 5
            continue
        made = own.compiled
        blocks = [blocks_per_processor(usage, device) for usage in (own.predicted, made)]
        cells += [f"{own.programs} x {made.warps}", str(made.registers), str(made.spilled_bytes)]
        cells += [str(made.shared_bytes), f"{blocks[0]} / {blocks[1]}"]
    return tuple(cells)


def _compiled(name: str, size: str) -> list[Compiled]:
    """All kernels of a graph, for all GPUs."""
    print(f"{name} {size}", file=sys.stderr, flush=True)
    with FakeTensorMode():
        inputs = inputs_of(GRAPHS[name], size)
        own = traced(GRAPHS[name], inputs)
    found: list[Compiled] = []
    with tempfile.TemporaryDirectory(prefix="weft-bench-") as folder:
        for device in DEVICES.values():
            number = 0
            for candidate in own.regions:
                source, _, _ = emitted(candidate.region, device)
                made = compiled_usage(source, device, Path(folder))
                for launch, usage in zip(source.launches, made, strict=True):
                    found.append(
                        Compiled(
                            graph=name,
                            size=size,
                            kernel=number,
                            device=device,
                            programs=launch.programs,
                            predicted=launch.usage,
                            compiled=usage,
                        )
                    )
                    number += 1
    return found


def _fact(own: Compiled) -> dict[str, object]:
    return {
        "kernel": f"{own.graph} {own.size} {own.kernel}",
        "sm": own.device.capability,
        "registers": [own.predicted.registers, own.compiled.registers],
        "shared_bytes": [own.predicted.shared_bytes, own.compiled.shared_bytes],
        "warps": own.compiled.warps,
        "steps": own.steps,
    }


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
