"""Predicted against published throughput of GPT models on A100s: `weft bench rhino-published`.

For each row of the table the degrees of tensor, pipeline and data parallelism and the batch are
those that were published. What the table leaves open (samples of a micro-batch, stages of each
group of devices) is the fastest that fits in memory, as its authors chose theirs. Nothing is
fitted to the rows: the machine is the preset, as for any plan.

Model FLOPs of a step are the paper's own count, full recomputation included:

    F = 96 B s l h^2 (1 + s / 6h + V / 16 l h)

Source: Narayanan et al., Efficient Large-Scale Language Model Training on GPU Clusters Using
Megatron-LM, arXiv 2104.04473, table 1 and equation 3.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

from benchmarks.job import ROOT
from weft.capture import capture
from weft.core.errors import InputError
from weft.machine.model import Machine
from weft.machine.presets import preset
from weft.parallel.pipeline.expert import pipeline_expert
from weft.parallel.pipeline.plan import PipelinePlan
from weft.program.graph import Program
from weft.report.bench import BenchReport, at_most, exactly
from weft.report.table import Table

__all__ = ["run"]

SEQUENCE, VOCABULARY = 2048, 51_200
MOST_OFF = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the published table; `tflops` is what one GPU reached [TFLOP/s]."""

    name: str
    layers: int
    width: int
    heads: int
    tensor: int
    stages: int
    devices: int
    batch: int
    tflops: float

    @property
    def data(self) -> int:
        """Data-parallel degree."""
        return self.devices // (self.tensor * self.stages)

    @property
    def flops(self) -> float:
        """Model FLOPs of a step [FLOP]."""
        layers, width = self.layers, self.width
        products = 96.0 * self.batch * SEQUENCE * layers * width**2
        return products * (1 + SEQUENCE / (6 * width) + VOCABULARY / (16 * layers * width))


def _row(name: str, *figures: int) -> Row:
    layers, width, heads, tensor, stages, devices, batch, tflops = figures
    return Row(
        name=name,
        layers=layers,
        width=width,
        heads=heads,
        tensor=tensor,
        stages=stages,
        devices=devices,
        batch=batch,
        tflops=tflops,
    )


ROWS = (
    _row("1.7 B", 24, 2304, 24, 1, 1, 32, 512, 137),
    _row("3.6 B", 30, 3072, 32, 2, 1, 64, 512, 138),
    _row("7.5 B", 36, 4096, 32, 4, 1, 128, 512, 142),
    _row("18.4 B", 40, 6144, 48, 8, 1, 256, 1024, 135),
    _row("39.1 B", 48, 8192, 64, 8, 2, 512, 1536, 138),
    _row("76.1 B", 60, 10_240, 80, 8, 4, 1024, 1792, 140),
    _row("145.6 B", 80, 12_288, 96, 8, 8, 1536, 2304, 148),
    _row("310.1 B", 96, 16_384, 128, 8, 16, 1920, 2160, 155),
    _row("529.6 B", 105, 20_480, 128, 8, 35, 2520, 2520, 163),
    _row("1008 B", 128, 25_600, 160, 8, 64, 3072, 3072, 163),
)
QUICK = ("1.7 B", "39.1 B")
MUST_HOLD = ("1.7 B", "7.5 B", "39.1 B", "145.6 B", "529.6 B")
"""Rows whose error is a claim each; the others were not looked at while the model was built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The plan of a row, and how long it took to capture and to write [s]."""

    row: Row
    plan: PipelinePlan
    rows_of_micro_batch: int
    seconds: float

    @property
    def tflops(self) -> float:
        """Predicted for one GPU [TFLOP/s]."""
        return self.row.flops / self.plan.prediction.step_s / self.row.devices / 1e12

    @property
    def error(self) -> float:
        """Relative difference from what was measured."""
        return self.tflops / self.row.tflops - 1

    @property
    def fits(self) -> bool:
        """Whether every group's peak is within the memory of a device."""
        return self.plan.prediction.peak_bytes <= self.plan.memory_limit_bytes


def run(quick: bool = False) -> BenchReport:
    """Predict every row; `quick` predicts two."""
    found = [_predicted(row) for row in ROWS if not quick or row.name in QUICK]
    claims = [
        at_most(f"{f.row.name}: predicted over published, distance from 1", abs(f.error), MOST_OFF)
        for f in found
        if f.row.name in MUST_HOLD
    ]
    others = [abs(f.error) for f in found if f.row.name not in MUST_HOLD]
    if others:
        claims.append(at_most("farthest of the other rows", max(others), MOST_OFF))
    claims.append(exactly("plans that fit", sum(f.fits for f in found), len(found)))
    return BenchReport(
        bench="rhino-published",
        claims=tuple(claims),
        table=_table(found),
        facts={
            "rows": [
                {
                    "row": f.row.name,
                    "tflops": f.tflops,
                    "published": f.row.tflops,
                    "micro_batch": f.rows_of_micro_batch,
                    "schedule": f.plan.schedule,
                    "stages": f.plan.num_stages,
                    "bubble": f.plan.prediction.bubble,
                    "peak_bytes": f.plan.prediction.peak_bytes,
                    "seconds": f.seconds,
                }
                for f in found
            ]
        },
    )


def _predicted(row: Row) -> Found:
    start = time.perf_counter()
    program, machine = _program(row), preset(f"dgx-a100x{row.devices // 8}")
    tried = [
        (size, plan)
        for size in (1, 2, 4)
        if row.batch % (row.data * size) == 0
        for plan in _plans(row, size, program, machine)
    ]
    size, plan = min(tried, key=lambda t: _rank(t[1]))
    seconds = time.perf_counter() - start
    return Found(row=row, plan=plan, rows_of_micro_batch=size, seconds=seconds)


def _rank(plan: PipelinePlan) -> tuple[bool, float]:
    fits = plan.prediction.peak_bytes <= plan.memory_limit_bytes
    return (not fits, plan.prediction.step_s if fits else plan.prediction.peak_bytes)


def _plans(row: Row, size: int, program: Program, machine: Machine) -> Iterator[PipelinePlan]:
    for schedule, chunks in (("1f1b", 1), ("interleaved", 2)):
        if row.stages * chunks > row.layers or (row.stages == 1 and chunks > 1):
            continue
        try:
            yield pipeline_expert(
                program,
                machine,
                pp=row.stages,
                chunks=chunks,
                micro_batches=row.batch // (row.data * size),
                schedule=schedule,
                dp=row.data,
                tp=row.tensor,
                recompute="full",
            )
        except InputError:
            # Interleaving wants micro-batches in a multiple of the groups.
            continue


def _program(row: Row) -> Program:
    sys.path.insert(0, str(ROOT / "recipes"))
    gpt3 = import_module("gpt3")
    config = gpt3.Config(num_layers=row.layers, width=row.width, num_heads=row.heads)
    return capture(gpt3.gpt3(f"gpt {row.name}", config, batch=row.batch))


def _table(found: list[Found]) -> Table:
    return Table(
        columns=(
            "model",
            "GPUs",
            "tensor, stages, data",
            "micro-batch",
            "schedule",
            "bubble",
            "peak",
            "predicted",
            "published",
            "error",
        ),
        rows=tuple(
            (
                f.row.name,
                str(f.row.devices),
                f"{f.row.tensor}, {f.row.stages}, {f.row.data}",
                str(f.rows_of_micro_batch),
                f"{f.plan.schedule} x {f.plan.num_stages // f.plan.num_groups}",
                f"{f.plan.prediction.bubble:.0%}",
                f"{f.plan.prediction.peak_bytes / 2**30:.0f} GiB" + ("" if f.fits else " (!)"),
                f"{f.tflops:.0f}",
                f"{f.row.tflops:.0f}",
                f"{f.error:+.0%}",
            )
            for f in found
        ),
    )
