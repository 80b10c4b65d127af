"""How fast fused graphs run on a GPU: `weft bench fusion --device cuda`.

The sixteen graphs are computed by torch as it is, by torch.compile in its default mode and in
max-autotune, both of which Inductor does, and by weft, in turns. Each call begins with cold
caches: before it, a buffer several times as large as the second level is written, which also gives
the processor time to queue what follows, so that what is timed on the device is the work of the
device. max-autotune runs without CUDA graphs: they change who waits for launches, not kernels.

Bandwidth is what a graph's inputs and outputs, each once, come to, over that of a copy measured in
the same way.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from benchmarks.fusion.accuracy import distance, in_double
from benchmarks.fusion.cases import GRAPHS, SIZES, Graph, Result, inputs_of, tensors
from benchmarks.fusion.contestants import EAGER, WEFT, own_copy
from benchmarks.fusion.point import ERROR_FLOOR, ERROR_RATIO, geometric_mean
from benchmarks.fusion.timing import Times
from weft.core.errors import InputError
from weft.fusion.tune import cold_seconds
from weft.report.bench import BenchReport, Claim, at_least, at_most, print_report
from weft.report.table import Table

__all__ = ["FIRST", "Cuda", "Gpu", "GpuPoint", "claims_on", "measure_on", "run_on", "table_on"]

Compiler: TypeAlias = Callable[[Graph, str], Mapping[str, Callable[..., Result]]]

DEFAULT, TUNED = "Inductor", "Inductor, max-autotune"
SPEEDUP, LEAST_SPEEDUP = 1.10, 0.95
HARD_SPEEDUP, HARD_COUNT = 1.5, 3
HARD = (
    *("softmax_outer", "row_col_stats", "cast_transpose_amax", "groupnorm_silu"),
    *("cross_entropy_fb", "dien_like"),
)
"""Graphs of which Inductor's kernels are known to read or write more than they have to."""
ROUNDS, QUICK_ROUNDS, WARM_UP = 50, 10, 3
FIRST = SIZES[::-1]
"""Sizes in the order in which they are measured: what large tensors take is memory's alone."""
COPY_BYTES = 512 * 2**20


class Gpu(Protocol):
    """What is measured on; the only place that knows CUDA."""

    @property
    def name(self) -> str:
        """As its maker calls it."""
        ...

    def put(self, inputs: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """Tensors on the GPU."""
        ...

    def cold_us(self, call: Callable[[], object]) -> float:
        """What a call takes on the device, from cold caches [us]."""
        ...


class Cuda:
    """The current CUDA device.

    Raises:
        InputError: there is none.
    """

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise InputError(
                need="a CUDA device",
                got="none that torch sees",
                hint="leave out --device; `weft bench fusion-triton` checks kernels without one",
            )
        self.name = torch.cuda.get_device_properties(torch.cuda.current_device()).name

    def put(self, inputs: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """Tensors on the GPU."""
        return tuple(given.cuda() for given in inputs)

    def cold_us(self, call: Callable[[], object]) -> float:
        """What a call takes on the device, from cold caches [us]."""
        return 1e6 * cold_seconds(call)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPoint:
    """A graph of one size on a GPU.

    Attributes:
        graph, size: which.
        num_bytes: of its inputs and outputs, each once [bytes].
        times: of every contestant that could run.
        copy_bytes_per_us: of a copy on the same GPU, read and written bytes.
        errors: distance from double precision, by contestant [relative].
        failure: why there is no result of weft, if there is none.
    """

    graph: str
    size: str
    num_bytes: int
    times: Times
    copy_bytes_per_us: float
    errors: Mapping[str, float] = field(default_factory=dict[str, float])
    failure: str = ""

    @property
    def speedup(self) -> float:
        """The better of Inductor's two over weft; 0 if weft failed."""
        if self.failure:
            return 0.0
        rivals = [self.times.least_us[name] for name in (DEFAULT, TUNED)]
        return min(rivals) / self.times.least_us[WEFT]

    @property
    def bandwidth_share(self) -> float:
        """Bytes that weft moves in the time in which a copy would move one; 0 if weft failed."""
        if self.failure:
            return 0.0
        return self.num_bytes / self.times.least_us[WEFT] / self.copy_bytes_per_us

    @property
    def error_share(self) -> float:
        """Weft's error over what it may be."""
        allowed = max(ERROR_RATIO * self.errors[DEFAULT], ERROR_FLOOR)
        return self.errors[WEFT] / allowed


def copy_rate(gpu: Gpu, rounds: int) -> float:
    """Bytes that a copy reads and writes in a microsecond."""
    (source,) = gpu.put([torch.zeros(COPY_BYTES // 4)])
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / min(gpu.cold_us(lambda: target.copy_(source)) for _ in range(rounds))


def compiled_for_gpu(graph: Graph, size: str) -> dict[str, Callable[..., Result]]:
    """The graph by each contestant that compiles, with code objects of their own."""
    label = f"{graph.name}_{size}"
    kinds: dict[str, dict[str, Any]] = {
        DEFAULT: {},
        TUNED: {"mode": "max-autotune-no-cudagraphs"},
        # What is left to Inductor is tuned as the second contestant is.
        WEFT: {
            "backend": "weft",
            "options": {"strict": True, "max_autotune": True, "coordinate_descent_tuning": True},
        },
    }
    return {
        name: torch.compile(own_copy(graph.compute, f"{label}_{number}"), dynamic=False, **options)
        for number, (name, options) in enumerate(kinds.items())
    }


def run_on(
    gpu: Gpu,
    *,
    quick: bool,
    compiled: Compiler = compiled_for_gpu,
    seconds: float = math.inf,
) -> BenchReport:
    """Measure every graph; `quick` takes every second one in its smallest size.

    Args:
        gpu: what is measured on.
        quick: less of everything.
        compiled: makes a graph's contestants.
        seconds: after which no graph is begun [s]; those that are left out are facts.
    """
    begun = time.monotonic()
    names, sizes = (tuple(GRAPHS)[::2], SIZES[:1]) if quick else (tuple(GRAPHS), FIRST)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    rate = copy_rate(gpu, rounds)
    with torch.no_grad():
        points, left_out = list[GpuPoint](), list[str]()
        for size, name in itertools.product(sizes, names):
            if time.monotonic() - begun > seconds:
                left_out.append(f"{name} {size}")
                continue
            points.append(measure_on(gpu, GRAPHS[name], size, rate, rounds, compiled))
            _tell(points[-1])
    return BenchReport(
        bench="fusion",
        claims=claims_on(points),
        table=table_on(points),
        facts={
            "device": gpu.name,
            "copy_GB_per_s": rate / 1e3,
            "ratios": "of the least times over interleaved rounds, caches cold",
            "left_out": left_out,
            "failed": [f"{p.graph} {p.size}: {p.failure}" for p in points if p.failure],
            "points": [asdict(point) for point in points],
        },
    )


def _tell(point: GpuPoint) -> None:
    """A point at once, so that a run that is cut off has told what it saw."""
    print(json.dumps(asdict(point) | {"speedup": point.speedup}), file=sys.stderr, flush=True)


def measure_on(
    gpu: Gpu,
    graph: Graph,
    size: str,
    rate: float,
    rounds: int,
    compiled: Compiler,
) -> GpuPoint:
    """One graph in one size."""
    torch.compiler.reset()
    inputs = gpu.put(inputs_of(graph, size))
    wanted, failure = in_double(graph, inputs), ""
    calls: dict[str, Callable[[], Result]] = {EAGER: lambda: graph.compute(*inputs)}
    errors: dict[str, float] = {EAGER: distance(calls[EAGER](), wanted)}
    for name, function in compiled(graph, size).items():
        try:
            errors[name] = distance(function(*inputs), wanted)
        except Exception as error:
            if name != WEFT:
                raise
            failure = f"{type(error).__name__}: {error}"
            continue
        calls[name] = lambda function=function: function(*inputs)
    made = tensors(graph.compute(*inputs))
    return GpuPoint(
        graph=graph.name,
        size=size,
        num_bytes=sum(t.nbytes for t in (*inputs, *made)),
        times=in_rounds(gpu, calls, rounds),
        copy_bytes_per_us=rate,
        errors=errors,
        failure=failure,
    )


def in_rounds(gpu: Gpu, calls: Mapping[str, Callable[[], object]], rounds: int) -> Times:
    """Time calls in turns, in another order each round."""
    for call in [*calls.values()] * WARM_UP:
        call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    order, chance = list(calls), random.Random(0)
    for _ in range(rounds):
        chance.shuffle(order)
        for name in order:
            taken[name].append(gpu.cold_us(calls[name]))
    return Times(
        least_us={name: min(own) for name, own in taken.items()},
        median_us={name: median(own) for name, own in taken.items()},
        rounds=rounds,
    )


def claims_on(points: Sequence[GpuPoint]) -> tuple[Claim, ...]:
    """What has to hold. A point where weft failed has a speed-up of 0."""
    hard = [
        geometric_mean(p.speedup for p in points if p.graph == name)
        for name in HARD
        if any(p.graph == name for p in points)
    ]
    errors = [p.error_share for p in points if not p.failure]
    return (
        at_least(
            f"the better Inductor over weft, {len(points)} points [geometric mean]",
            geometric_mean(p.speedup for p in points),
            SPEEDUP,
        ),
        at_least(
            "the better Inductor over weft, smallest",
            min(p.speedup for p in points),
            LEAST_SPEEDUP,
        ),
        at_least(
            f"hard graphs with {HARD_SPEEDUP:g} times Inductor's speed, of {len(hard)}",
            sum(speedup >= HARD_SPEEDUP for speedup in hard),
            HARD_COUNT,
        ),
        at_most(
            "weft's error over what Inductor's allows, largest",
            max(errors, key=lambda e: (e != e, e), default=float("nan")),
            1.0,
        ),
    )


def table_on(points: Sequence[GpuPoint]) -> Table:
    """One row for each graph and size."""
    names = (EAGER, DEFAULT, TUNED, WEFT)
    return Table(
        columns=(
            *("graph", "size", "MB", *(f"{name} [us]" for name in names)),
            *("better Inductor / weft", "bandwidth / copy"),
        ),
        rows=tuple(
            (
                p.graph,
                p.size,
                f"{p.num_bytes / 1e6:.1f}",
                *(
                    f"{p.times.least_us[name]:,.1f}" if name in p.times.least_us else ""
                    for name in names
                ),
                *(
                    ("failed", "")
                    if p.failure
                    else (f"{p.speedup:.2f}", f"{p.bandwidth_share:.0%}")
                ),
            )
            for p in points
        ),
    )


if __name__ == "__main__":  # where time on a GPU is short: so many seconds of it
    print_report(run_on(Cuda(), quick=False, seconds=float(sys.argv[1])))
