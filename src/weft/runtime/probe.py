"""Measure this host as a cluster: one process a rank, all at work at once.

Ranks share memory bandwidth, caches and cores, so a figure measured alone would promise too
much. Each rank runs on one thread, as under torchrun, and measures what the runtime executes:
ATen operators, weft's own, and functional collectives. The ranks meet at a barrier before each
item, spend the same time on it and write what they found to a folder; the parent takes the mean
over ranks and fits a machine.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from statistics import fmean, median
from typing import Any, TypeAlias

import torch
import torch.distributed as dist

from weft.capture.operators import attention, attention_backward, uniform
from weft.core.errors import InputError, RunError
from weft.cost.fit import AttentionTime, Measurements, ProductTime, fit_machine
from weft.cost.roofline import TRAFFIC, measured_size_bytes
from weft.machine.model import Machine
from weft.program.graph import Arg, Value
from weft.program.types import DType, TensorType

__all__ = ["probe"]

log = logging.getLogger(__name__)
aten = torch.ops.aten
c10d = torch.ops._c10d_functional

Found: TypeAlias = dict[str, list[float]]
"""Measured items: a key that says what, and numbers that end in seconds."""

_RANK = "import sys; from weft.runtime.probe import measure_rank; measure_rank(sys.argv[1:])"


def probe(num_ranks: int = 2, seconds: float = 20.0) -> Machine:
    """Measure this host as a machine of `num_ranks` ranks.

    On a host with CUDA devices the ranks are those, with NCCL, at most one rank a device;
    elsewhere they are single-threaded CPU processes, with gloo.

    Args:
        num_ranks: how many ranks run at once.
        seconds: time to spend on measuring, without starting up [s].

    Raises:
        InputError: there is no such number of ranks here, or no time.
        RunError: a rank failed or did not end in time; the error holds its last lines.
    """
    cuda = torch.cuda.is_available()
    most = torch.cuda.device_count() if cuda else 64
    if not 1 <= num_ranks <= most or not seconds > 0:
        raise InputError(
            need=f"1 to {most} ranks and a time above 0 s",
            got=f"{num_ranks} ranks, {seconds} s",
            hint="two ranks and 20 s give figures good to a few percent",
        )
    log.info("probe: starting %d ranks", num_ranks)
    with tempfile.TemporaryDirectory(prefix="weft-probe-") as folder:
        _run_ranks(Path(folder), num_ranks, seconds)
        found = [json.loads((Path(folder) / f"{r}.json").read_text()) for r in range(num_ranks)]
    log.info("probe: measured %d items", len(found[0]))
    return fit_machine(_measurements(_mean(found), num_ranks, cuda))


def _run_ranks(folder: Path, num_ranks: int, seconds: float) -> None:
    """Start the ranks, pass on what rank 0 reports, and wait for the last one."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    ranks: list[subprocess.Popen[bytes]] = []
    deadline = time.monotonic() + 120.0 + 4.0 * seconds
    try:
        for rank in range(num_ranks):
            command = [sys.executable, "-c", _RANK, str(folder), str(rank), str(num_ranks)]
            with (folder / f"{rank}.log").open("wb") as output:
                ranks.append(
                    subprocess.Popen(
                        [*command, str(seconds)],
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        stdin=subprocess.DEVNULL,
                        env=environment,
                    )
                )
        _wait(ranks, folder, deadline)
    finally:
        for process in ranks:
            if process.poll() is None:
                process.kill()
            process.wait()


def _wait(ranks: Sequence[subprocess.Popen[bytes]], folder: Path, deadline: float) -> None:
    reported = 0
    while True:
        codes = [process.poll() for process in ranks]
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed or time.monotonic() > deadline:
            rank = failed[0] if failed else codes.index(None)
            lines = (folder / f"{rank}.log").read_text(errors="replace").strip().splitlines()
            raise RunError(
                need="every rank to measure to the end",
                got=f"{'exit code ' + str(codes[rank]) if failed else 'no end in time'}; "
                f"last lines: {' | '.join(lines[-3:]) or 'none'}",
                hint="probe again with fewer ranks, or on a quieter host",
                rank=rank,
            )
        lines = (folder / "0.log").read_text(errors="replace").splitlines()
        for line in lines[reported:]:
            log.info("probe: %s", line)
        reported = len(lines)
        if all(code == 0 for code in codes):
            return
        time.sleep(0.1)


def _mean(found: Sequence[Found]) -> Found:
    """Mean over ranks; what is not a time is the same on all."""
    return {
        key: [fmean(numbers) for numbers in zip(*(f[key] for f in found), strict=True)]
        for key in found[0]
    }


def _measurements(found: Found, num_ranks: int, cuda: bool) -> Measurements:
    processor = torch.cuda.get_device_name() if cuda else _processor()
    kind = "cuda" if cuda else "cpu"

    def items(group: str) -> list[tuple[list[str], list[float]]]:
        return [
            (key.split("|")[1:], value)
            for key, value in found.items()
            if key.startswith(f"{group}|")
        ]

    return Measurements(
        name=f"{kind}-ranks-{num_ranks}",
        device_name=processor,
        kind=kind,
        fuses=cuda,
        num_ranks=num_ranks,
        source=f"measured on {processor}, {num_ranks} ranks at once, "
        f"{date.today().isoformat()}, torch {torch.__version__}",
        products=tuple(
            ProductTime(dtype=dtype, rows=int(m), depth=int(k), columns=int(n), seconds=value[0])
            for (dtype, m, k, n, _), value in items("product")
        ),
        attention=tuple(
            AttentionTime(
                size=(int(b), int(h), int(t), int(d)),
                causal=causal == "causal",
                backward=direction == "backward",
                seconds=value[0],
            )
            for (b, h, t, d, causal, direction), value in items("attention")
        ),
        operators=_points(items("operator")),
        launch_s=found["launch"][0],
        stream_bytes_per_s=found["stream"][0] / found["stream"][1],
        memory_bytes=found["memory"][0],
        collectives=_points(items("collective")),
        overlap=found["overlap"][0] if num_ranks > 1 else 0.0,
    )


def _points(
    items: Sequence[tuple[list[str], list[float]]],
) -> dict[str, tuple[tuple[float, float], ...]]:
    points: dict[str, tuple[tuple[float, float], ...]] = {}
    for (name, _), (num_bytes, seconds) in items:
        points[name] = (*points.get(name, ()), (num_bytes, seconds))
    return points


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


# ---------------------------------------------------------------------------- inside a rank


def measure_rank(arguments: Sequence[str]) -> None:
    """Body of a rank process: folder, rank, number of ranks, seconds."""
    folder, rank, num_ranks, seconds = (
        Path(arguments[0]),
        int(arguments[1]),
        int(arguments[2]),
        float(arguments[3]),
    )
    cuda = torch.cuda.is_available()
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    if cuda:
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=num_ranks,
        timeout=timedelta(seconds=60 + 2 * seconds),
    )
    try:
        bench = _Bench(device=torch.device("cuda" if cuda else "cpu"), budget_s=0.0)
        plan = _items(bench, num_ranks)
        bench.budget_s = seconds / len(plan)
        found: Found = {}
        for number, (key, item) in enumerate(plan):
            if rank == 0 and number % max(1, len(plan) // 10) == 0:
                print(f"item {number} of {len(plan)}: {key.replace('|', ' ')}", flush=True)
            dist.barrier()
            found[key] = item()
        (folder / f"{rank}.json").write_text(json.dumps(found))
        dist.barrier()
    finally:
        dist.destroy_process_group()


_Item: TypeAlias = Callable[[], list[float]]


def _items(bench: _Bench, num_ranks: int) -> list[tuple[str, _Item]]:
    items: list[tuple[str, _Item]] = [
        ("memory", lambda: [_available_bytes(bench, num_ranks)]),
        ("launch", lambda: [_launch_s(bench)]),
        ("stream", lambda: _stream(bench)),
        *_product_items(bench),
        *_attention_items(bench),
    ]
    if bench.device.type == "cpu":
        items += _operator_items(bench)
    if num_ranks > 1:
        items += _collective_items(bench, num_ranks)
        items.append(("overlap", lambda: [_overlap(bench)]))
    return items


@dataclass(slots=True)
class _Bench:
    """Times functions on a device."""

    device: torch.device
    budget_s: float

    def seconds(self, run: Callable[[], object]) -> float:
        """Median time of one call, over as many calls as the budget allows, three at least."""
        run()
        times: list[float] = []
        end = time.perf_counter() + self.budget_s
        while len(times) < 3 or time.perf_counter() < end:
            times.append(self._once(run))
        return median(times)

    def joint_seconds(self, run: Callable[[], object]) -> float:
        """As `seconds`, for what needs all ranks: they agree on the number of calls first."""
        run()
        first = torch.tensor(self._once(run), device=self.device)
        dist.all_reduce(first, op=dist.ReduceOp.MAX)
        count = int(max(3, min(200, self.budget_s / float(first))))
        return median(self._once(run) for _ in range(count))

    def _once(self, run: Callable[[], object]) -> float:
        self._finish()
        start = time.perf_counter()
        run()
        self._finish()
        return time.perf_counter() - start

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def normal(self, *size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Random numbers on the device."""
        return torch.randn(size, device=self.device).to(dtype)


def _available_bytes(bench: _Bench, num_ranks: int) -> float:
    """What a rank can allocate now that all ranks are loaded."""
    if bench.device.type == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
    return float(fields["MemAvailable"].split()[0]) * 1024.0 / num_ranks


_CALLS = 100


def _launch_s(bench: _Bench) -> float:
    x = bench.normal(8)

    def many() -> None:
        for _ in range(_CALLS):
            aten.neg.default(x)

    return bench.seconds(many) / _CALLS


def _stream(bench: _Bench) -> list[float]:
    """Bytes and seconds of adding tensors that no cache holds, into memory that is there."""
    size = 2**28 if bench.device.type == "cuda" else 2**24
    x, y, out = (bench.normal(size) for _ in range(3))
    return [3.0 * 4.0 * size, bench.seconds(lambda: torch.add(x, y, out=out))]


_PRODUCTS = (
    (512, 512, 512),
    (128, 128, 128),
    (1024, 256, 256),
    (1024, 256, 1024),
    (1024, 1024, 256),
    (256, 2048, 256),
    (1024, 64, 256),
    (1024, 256, 64),
    (64, 1024, 64),
    (32, 256, 256),
)
"""Rows, depth and columns of products in f32; the first also in the other element types."""

_LAYOUTS = ("nn", "nt", "tn")
"""Operands as they lie in memory: plain, of a linear layer, of a weight gradient."""


def _product_items(bench: _Bench) -> list[tuple[str, _Item]]:
    scale = 8 if bench.device.type == "cuda" else 1
    cases = [("f32", size, layout) for size in _PRODUCTS for layout in _LAYOUTS]
    cases += [(dtype, _PRODUCTS[0], layout) for dtype in ("f64", "bf16") for layout in _LAYOUTS]
    return [
        (
            f"product|{dtype}|{m * scale}|{k * scale}|{n * scale}|{layout}",
            lambda t=dtype, s=(m * scale, k * scale, n * scale), o=layout: _product(bench, t, s, o),
        )
        for dtype, (m, k, n), layout in cases
    ]


def _product(bench: _Bench, dtype: str, size: tuple[int, int, int], layout: str) -> list[float]:
    m, k, n = size
    kind = _TORCH[DType(dtype)]
    a = bench.normal(*((k, m) if layout[0] == "t" else (m, k)), dtype=kind)
    b = bench.normal(*((n, k) if layout[1] == "t" else (k, n)), dtype=kind)
    a = a.t() if layout[0] == "t" else a
    b = b.t() if layout[1] == "t" else b
    return [bench.seconds(lambda: aten.mm.default(a, b))]


_TORCH = {DType.F32: torch.float32, DType.F64: torch.float64, DType.BF16: torch.bfloat16}

_ATTENTION = ((4, 4, 128, 32), (4, 4, 128, 64), (2, 4, 512, 64), (1, 2, 1024, 64))


def _attention_items(bench: _Bench) -> list[tuple[str, _Item]]:
    if bench.device.type == "cuda":
        # Flash attention takes no f32; its share is a figure of the presets, not of a probe.
        return []
    return [
        (
            f"attention|{'|'.join(map(str, size))}|{'causal' if causal else 'full'}|{direction}",
            lambda s=size, c=causal, d=direction: _attention(bench, s, c, d),
        )
        for size in _ATTENTION
        for causal in (True, False)
        for direction in ("forward", "backward")
    ]


def _attention(
    bench: _Bench, size: tuple[int, int, int, int], causal: bool, direction: str
) -> list[float]:
    # As models make them: [batch, position, head, width] in memory.
    b, h, t, d = size
    q, k, v, grad = (bench.normal(b, t, h, d).transpose(1, 2) for _ in range(4))
    scale = d**-0.5
    if direction == "forward":
        return [bench.seconds(lambda: attention(q, k, v, causal, scale))]
    out, logsumexp = attention(q, k, v, causal, scale)
    return [bench.seconds(lambda: attention_backward(grad, q, k, v, out, logsumexp, causal, scale))]


_WIDTH = 256
_OPERATOR_ELEMENTS = (2**10, 2**14, 2**18, 2**21)
_TRAFFIC_ELEMENTS = (2**8, 2**10, 2**12, 2**14, 2**16, 2**18, 2**20, 2**21, 2**22, 2**24)


@dataclass(frozen=True, slots=True)
class _Case:
    """An operator on tensors of n elements in rows of `_WIDTH`.

    `args` are its arguments in schema order, in which a letter stands for a tensor: x, y [r, w]
    normal, p [r, w] positive, m [r, w] mask, w [w], s [r, 1] normal, i [r] and j [r, 1] indices
    below w, t [w, w] a table.
    """

    op: str
    args: tuple[Arg, ...]
    run: Callable[..., object] | None = None
    """What runs it, where it has no ATen name or takes a type."""


def _cat(tensors: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
    return aten.cat.default(list(tensors), dim)


_CASES = (
    *(
        _Case(f"{name}.default", ("x",))
        for name in ("neg", "exp", "tanh", "erf", "sigmoid", "relu", "gelu", "silu", "cos", "abs")
    ),
    *(_Case(f"{name}.default", ("p",)) for name in ("sqrt", "rsqrt", "reciprocal", "log")),
    *(_Case(f"{name}.Scalar", ("x", 0.5)) for name in ("add", "mul", "div", "gt")),
    *(_Case(f"{name}.Tensor", ("x", "y")) for name in ("mul", "sub")),
    _Case("div.Tensor", ("x", "p")),
    _Case("maximum.default", ("x", "y")),
    _Case("pow.Tensor_Scalar", ("x", 3.0)),
    _Case("clamp_min.default", ("x", 0.0)),
    _Case("tanh_backward.default", ("x", "y")),
    _Case("sigmoid_backward.default", ("x", "y")),
    _Case("gelu_backward.default", ("x", "y")),
    _Case("silu_backward.default", ("x", "y")),
    _Case("threshold_backward.default", ("x", "y", 0.0)),
    _Case("where.self", ("m", "x", "y")),
    _Case("masked_fill.Scalar", ("x", "m", 0.0)),
    _Case("cast", ("x", "bf16"), lambda x, _: aten.to.dtype(x, torch.bfloat16)),
    _Case("sum", ("x", (1,), True), aten.sum.dim_IntList),
    _Case("amax", ("x", (1,), True), aten.amax.default),
    _Case("cumsum", ("x", 1), aten.cumsum.default),
    _Case("cat", (("x", "y"), 1), _cat),
    _Case("_softmax.default", ("x", 1, False)),
    _Case(
        "_softmax_backward_data.default",
        ("x", "y", 1, "f32"),
        lambda x, y, dim, _: aten._softmax_backward_data.default(x, y, dim, torch.float32),
    ),
    _Case("native_layer_norm.default", ("x", (_WIDTH,), "w", "w", 1e-5)),
    _Case(
        "native_layer_norm_backward.default",
        ("x", "y", (_WIDTH,), "s", "s", "w", "w", (True, True, True)),
    ),
    _Case("embedding.default", ("t", "i")),
    _Case("embedding_dense_backward.default", ("x", "i", _WIDTH, -1, False)),
    _Case("gather.default", ("x", 1, "j")),
    _Case("scatter_add.default", ("x", 1, "j", "s")),
)


def _operator_items(bench: _Bench) -> list[tuple[str, _Item]]:
    cases = [(case, case.op, n) for case in _CASES for n in _OPERATOR_ELEMENTS]
    plain = _Case("add.Tensor", ("x", "y"))
    cases += [(plain, TRAFFIC, n) for n in _TRAFFIC_ELEMENTS]
    items: list[tuple[str, _Item]] = [
        (f"operator|{name}|{n}", lambda c=case, n=n: _operator(bench, c, n))
        for case, name, n in cases
    ]
    items += [(f"operator|uniform|{n}", lambda n=n: _uniform(bench, n)) for n in _OPERATOR_ELEMENTS]
    return items


def _operator(bench: _Bench, case: _Case, num_elements: int) -> list[float]:
    """Bytes moved, by weft's own count, and seconds."""
    tensors = _tensors(bench, num_elements)
    operands: list[TensorType] = []

    def fill(arg: Arg, *, typed: bool) -> Any:
        if isinstance(arg, str) and arg in tensors:
            if typed:
                operands.append(_type(tensors[arg]))
            return Value(len(operands)) if typed else tensors[arg]
        return tuple(fill(item, typed=typed) for item in arg) if isinstance(arg, tuple) else arg

    given = tuple(fill(arg, typed=False) for arg in case.args)
    run = case.run or _overload(case.op)
    made = run(*given)
    outputs = made if isinstance(made, tuple) else (made,)
    num_bytes = measured_size_bytes(
        case.op,
        tuple(fill(arg, typed=True) for arg in case.args),
        tuple(operands),
        tuple(_type(x) for x in outputs if isinstance(x, torch.Tensor)),
    )
    return [num_bytes, bench.seconds(lambda: run(*given))]


def _overload(op: str) -> Callable[..., object]:
    packet, _, overload = op.partition(".")
    return getattr(getattr(aten, packet), overload)


def _tensors(bench: _Bench, num_elements: int) -> Mapping[str, torch.Tensor]:
    rows = max(1, num_elements // _WIDTH)
    x = bench.normal(rows, _WIDTH)
    index = torch.randint(0, _WIDTH, (rows,), device=bench.device)
    return {
        "x": x,
        "y": bench.normal(rows, _WIDTH),
        "p": x.abs() + 0.1,
        # Masks of models come in runs; a random one would measure branch prediction.
        "m": (torch.arange(_WIDTH, device=bench.device) < _WIDTH // 2).expand(rows, -1).clone(),
        "w": bench.normal(_WIDTH),
        "s": bench.normal(rows, 1).abs() + 0.1,
        "i": index,
        "j": index[:, None],
        "t": bench.normal(_WIDTH, _WIDTH),
    }


def _type(x: torch.Tensor) -> TensorType:
    return TensorType(_DTYPES[x.dtype], tuple(x.shape))


_DTYPES = {
    torch.float32: DType.F32,
    torch.bfloat16: DType.BF16,
    torch.int64: DType.I64,
    torch.bool: DType.BOOL,
}


def _uniform(bench: _Bench, num_elements: int) -> list[float]:
    seed = torch.tensor(7, device=bench.device)
    return [
        4.0 * num_elements,
        bench.seconds(lambda: uniform(seed, 0, (num_elements // _WIDTH, _WIDTH))),
    ]


_PAYLOADS = tuple(4**power for power in range(5, 13))
"""Bytes of the whole tensor: 1 KiB to 16 MiB."""


def _collective_items(bench: _Bench, num_ranks: int) -> list[tuple[str, _Item]]:
    return [
        (
            f"collective|{kind}|{num_bytes}",
            lambda k=kind, b=num_bytes: _collective(bench, num_ranks, k, b),
        )
        for kind in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
        for num_bytes in _PAYLOADS
    ]


def _collective(bench: _Bench, num_ranks: int, kind: str, payload_bytes: int) -> list[float]:
    group = _group_name()
    part = max(1, payload_bytes // 4 // num_ranks)
    whole, own = bench.normal(num_ranks, part), bench.normal(part)
    parts = bench.normal(num_ranks, max(1, part // num_ranks))
    ones = [1] * num_ranks
    starts: Mapping[str, Callable[[], torch.Tensor]] = {
        "all-reduce": lambda: c10d.all_reduce.default(whole, "sum", group),
        "all-gather": lambda: c10d.all_gather_into_tensor.default(own, num_ranks, group),
        "reduce-scatter": lambda: c10d.reduce_scatter_tensor.default(
            whole, "sum", num_ranks, group
        ),
        "all-to-all": lambda: c10d.all_to_all_single.default(parts, ones, ones, group),
    }
    start = starts[kind]
    seconds = bench.joint_seconds(lambda: c10d.wait_tensor.default(start()))
    size = parts.numel() * num_ranks if kind == "all-to-all" else whole.numel()
    return [4.0 * size, seconds]


def _group_name() -> str:
    group = dist.group.WORLD
    assert group is not None
    return group.group_name


_OVERLAP_BYTES = 2**22
_OVERLAP_SIZE = 512


def _overlap(bench: _Bench) -> float:
    """Share of an all-reduce that products hide: what is saved by running both at once."""
    group = _group_name()
    x = bench.normal(_OVERLAP_BYTES // 4)
    a = bench.normal(_OVERLAP_SIZE, _OVERLAP_SIZE)

    def communicate() -> torch.Tensor:
        return c10d.all_reduce.default(x, "sum", group)

    sent_s = bench.joint_seconds(lambda: c10d.wait_tensor.default(communicate()))
    one_s = torch.tensor(bench.seconds(lambda: aten.mm.default(a, a)), device=bench.device)
    dist.all_reduce(one_s, op=dist.ReduceOp.MAX)
    count = max(1, round(sent_s / float(one_s)))

    def compute() -> None:
        for _ in range(count):
            aten.mm.default(a, a)

    def both() -> None:
        pending = communicate()
        compute()
        c10d.wait_tensor.default(pending)

    compute_s, both_s = bench.joint_seconds(compute), bench.joint_seconds(both)
    return min(1.0, max(0.0, (sent_s + compute_s - both_s) / min(sent_s, compute_s)))
