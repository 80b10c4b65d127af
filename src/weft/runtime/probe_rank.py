"""What one rank of a probe measures, and how.

Each rank runs on one thread, as under torchrun, and measures what the runtime executes: ATen
operators, weft's own, and functional collectives. The ranks meet at a barrier before each item,
so that they are at work on the same thing at the same time.

An item is a key and numbers: "product|f32|512|512|512|nn" -> [seconds]. The keys are read by
`weft.runtime.probe`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from statistics import mean, median
from typing import TypeAlias

import torch
import torch.distributed as dist

from weft.capture.operators import attention, attention_backward
from weft.cost.fit import Call
from weft.machine.model import COLLECTIVES
from weft.parallel.placement import Mesh
from weft.program.types import DType
from weft.runtime.allocator import keep_freed_memory
from weft.runtime.place import Place
from weft.runtime.probe_calls import CALLS, CALLS_AT_ONCE, call_run
from weft.runtime.probe_collectives import PAYLOADS, collective_run
from weft.runtime.probe_operators import OPERATOR_ITEMS, operator_run
from weft.runtime.probe_ways import circle_items, measured_share, way_items

__all__ = ["main"]

aten = torch.ops.aten
c10d = torch.ops._c10d_functional

_Item: TypeAlias = tuple[str, Callable[[], list[float]]]
_Size4: TypeAlias = tuple[int, int, int, int]


def main(arguments: Sequence[str]) -> None:
    """Body of a rank process: folder, rank, number of ranks, seconds, and circles of ranks.

    Circles are what an uneven cluster is asked for, as JSON: lists of ranks whose collectives are
    to be measured. Without them all ranks are alike.
    """
    folder, rank, num_ranks = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    seconds = float(arguments[3])
    circles: list[list[int]] = json.loads(arguments[4]) if len(arguments) > 4 else []
    cuda = torch.cuda.is_available()
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    keep_freed_memory()
    if cuda:
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=num_ranks,
        timeout=timedelta(seconds=60 + 2 * seconds if not circles else _PATIENCE_S),
    )
    try:
        bench = _Bench(device=torch.device("cuda" if cuda else "cpu"))
        found = _measure(bench, rank, num_ranks, seconds, circles)
        (folder / f"{rank}.json").write_text(json.dumps(found))
        dist.barrier()
    finally:
        dist.destroy_process_group()


_PATIENCE_S = 1800.0
"""How long quick ranks of an uneven cluster wait for one with a hundredth of a core to start."""


def _measure(
    bench: _Bench, rank: int, num_ranks: int, seconds: float, circles: list[list[int]]
) -> dict[str, list[float]]:
    items = _items(bench, num_ranks, circles)
    bench.budget_s = seconds / len(items)
    _touch_memory(bench)
    found: dict[str, list[float]] = {}
    if circles:
        dist.barrier()
        bench.share = measured_share()
        found["share"] = [bench.share]
    for number, (key, item) in enumerate(items):
        if rank == 0 and number % max(1, len(items) // 10) == 0:
            sys.stdout.write(f"item {number} of {len(items)}: {key.replace('|', ' ')}\n")
            sys.stdout.flush()
        dist.barrier()
        found[key] = item()
    return found


def _items(bench: _Bench, num_ranks: int, circles: list[list[int]]) -> list[_Item]:
    items: list[_Item] = [
        ("memory", lambda: [_available_bytes(bench, num_ranks)]),
        ("launch", lambda: [_launch_s(bench)]),
        ("stream", lambda: _stream(bench)),
        *_product_items(bench),
    ]
    if bench.device.type == "cpu":
        # Devices that fuse never run these alone, and flash attention takes no f32.
        items += _large_product_items(bench)
        items += _attention_items(bench)
        items += _call_items(bench)
        items += [(key, lambda k=key: _operator(bench, k)) for key in OPERATOR_ITEMS]
    if circles:
        items += way_items(num_ranks)
        items += circle_items(circles, lambda: bench.budget_s)
    elif num_ranks > 1:
        items += _collective_items(bench, num_ranks)
    if num_ranks > 1:
        items.append(("overlap", lambda: [_overlap(bench)]))
    return items


@dataclass(slots=True)
class _Bench:
    """Times functions on a device.

    Attributes:
        budget_s: time for one item [s].
        share: of a core that this rank gets, where it gets no whole one.
    """

    device: torch.device
    budget_s: float = 0.0
    share: float | None = None

    def seconds(self, run: Callable[[], object]) -> float:
        """Median time of one call, over as many as the budget allows, five at least.

        On a CPU it is the time that the thread worked, so that other processes do not count; over
        the share of a core that it gets, if that is not all of one. Then it is nine at least:
        the budget allows few, and memory that a slow rank has not used for long may be slow.
        """
        clock = time.thread_time if self.device.type == "cpu" else time.perf_counter
        self._once(run, clock)
        times: list[float] = []
        end = time.perf_counter() + self.budget_s
        least = 5 if self.share is None else 9
        while len(times) < least or time.perf_counter() < end:
            times.append(self._once(run, clock))
        return median(times) / (self.share or 1.0)

    def joint_seconds(self, run: Callable[[], object]) -> float:
        """Time of one call of what needs all ranks, as a clock on the wall sees it.

        The lowest tenth: a call for which a rank had to wait for a core tells of the system. With
        a share of a core waiting is what is to be measured, so it is the mean.
        """
        self._once(run, time.perf_counter)
        once_s = self.largest(self._once(run, time.perf_counter))
        count = int(max(5, min(200, self.budget_s / once_s)))
        times = sorted(self._once(run, time.perf_counter) for _ in range(count))
        return mean(times) if self.share else times[count // 10]

    def among_work_seconds(self, run: Callable[[], object], work: Callable[[], object]) -> float:
        """Time of one call of what needs all ranks, in a step: after work of each rank.

        Ranks do not come at the same instant, and their helper threads have to be woken on cores
        that are busy: for a small tensor that is most of the time. The mean of the middle nine
        tenths, since in a step such times add up.
        """
        times: list[float] = []
        for _ in range(_CALLS_AMONG_WORK):
            work()
            times.append(self._once(run, time.perf_counter))
        times.sort()
        margin = max(1, len(times) // 20)
        return mean(times[margin:-margin])

    def largest(self, number: float) -> float:
        """Maximum over ranks."""
        everyone = torch.tensor(number, dtype=torch.float64, device=self.device)
        dist.all_reduce(everyone, op=dist.ReduceOp.MAX)
        return float(everyone)

    def _once(self, run: Callable[[], object], clock: Callable[[], float]) -> float:
        self._finish()
        start = clock()
        run()
        self._finish()
        return clock() - start

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def normal(self, *size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Random numbers on the device."""
        return torch.randn(size, device=self.device).to(dtype)


_CALLS_AMONG_WORK = 24
_TOUCHED_BYTES = 2**29


def _touch_memory(bench: _Bench) -> None:
    """Make the system hand out pages before anything is timed; freed ones are reused."""
    if bench.device.type == "cpu":
        torch.zeros(_TOUCHED_BYTES // 4).add_(1.0)


def _available_bytes(bench: _Bench, num_ranks: int) -> float:
    """What a rank can allocate now that all ranks are loaded."""
    if bench.device.type == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    lines = Path("/proc/meminfo").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return float(kibibytes) * 1024.0 / num_ranks


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
    x = torch.ones(size, device=bench.device)
    y, out = torch.ones_like(x), torch.zeros_like(x)
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
    # Few rows, little depth, few columns: a batch of pixels, classes, small heads.
    (8, 2048, 256),
    (2048, 8, 256),
    (2048, 256, 8),
    (2048, 256, 16),
    (8192, 32, 32),
)
"""Rows, depth and columns of products in f32; the first also in the other element types."""

_LARGE_PRODUCTS = (
    (1024, 16, 8192),
    (1024, 64, 8192),
    (8192, 1024, 64),
    (2048, 1024, 1024),
    (16384, 256, 128),
)
"""Those that make or read more than inner caches hold; of a device that fuses their traffic hides
behind arithmetic, and they are not measured."""

_LAYOUTS = ("nn", "nt", "tn")
"""Operands as they lie in memory: plain, of a linear layer, of a weight gradient."""


def _product_items(bench: _Bench) -> list[_Item]:
    scale = 8 if bench.device.type == "cuda" else 1
    cases = [("f32", size, layout) for size in _PRODUCTS for layout in _LAYOUTS]
    cases += [(dtype, _PRODUCTS[0], layout) for dtype in ("f64", "bf16") for layout in _LAYOUTS]
    return [
        _product_item(bench, "product", dtype, (m * scale, k * scale, n * scale), layout)
        for dtype, (m, k, n), layout in cases
    ]


def _large_product_items(bench: _Bench) -> list[_Item]:
    return [
        _product_item(bench, "large", "f32", size, layout)
        for size, layout in zip(_LARGE_PRODUCTS, cycle(_LAYOUTS), strict=False)
    ]


def _product_item(
    bench: _Bench, group: str, dtype: str, size: tuple[int, int, int], layout: str
) -> _Item:
    m, k, n = size
    key = f"{group}|{dtype}|{m}|{k}|{n}|{layout}"
    return key, lambda: _product(bench, dtype, size, layout)


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
_SHORT_ATTENTION = (
    (256, 4, 16, 8),
    (64, 4, 32, 8),
    (64, 4, 32, 32),
    (64, 4, 64, 16),
    (2, 4, 512, 8),
)
"""Short sequences and narrow heads, where rows and scores take the time; never causal, since
tiles are longer than that."""


def _attention_items(bench: _Bench) -> list[_Item]:
    return [
        (
            f"attention|{'|'.join(map(str, size))}|{'causal' if causal else 'full'}|{direction}",
            lambda s=size, c=causal, d=direction: _attention(bench, s, c, d),
        )
        for sizes, masks in ((_ATTENTION, (True, False)), (_SHORT_ATTENTION, (False,)))
        for size in sizes
        for causal in masks
        for direction in ("forward", "backward")
    ]


def _attention(bench: _Bench, size: _Size4, causal: bool, direction: str) -> list[float]:
    # As models make them: [batch, position, head, width] in memory.
    b, h, t, d = size
    q, k, v, grad = (bench.normal(b, t, h, d).transpose(1, 2) for _ in range(4))
    scale = d**-0.5
    if direction == "forward":
        return [bench.seconds(lambda: attention(q, k, v, causal, scale))]
    out, logsumexp = attention(q, k, v, causal, scale)
    return [bench.seconds(lambda: attention_backward(grad, q, k, v, out, logsumexp, causal, scale))]


def _call_items(bench: _Bench) -> list[_Item]:
    def seconds(call: Call) -> list[float]:
        return [bench.seconds(call_run(call, bench.device)) / CALLS_AT_ONCE]

    return [
        (f"call|{number}|{call.op}", lambda c=call: seconds(c)) for number, call in enumerate(CALLS)
    ]


def _operator(bench: _Bench, key: str) -> list[float]:
    """Bytes moved, by weft's own count, and seconds."""
    num_bytes, run = operator_run(key, bench.device)
    return [num_bytes, bench.seconds(run)]


def _collective_items(bench: _Bench, num_ranks: int) -> list[_Item]:
    place = Place(
        mesh=Mesh((num_ranks,)),
        coordinate=(dist.get_rank(),),
        device=bench.device,
        groups=(_group_name(),),
    )
    return [
        (f"collective|{kind}|{size}", lambda k=kind, b=size: _collective(bench, place, k, b))
        for kind in COLLECTIVES
        for size in PAYLOADS
    ]


def _collective(bench: _Bench, place: Place, kind: str, payload_bytes: int) -> list[float]:
    """Bytes of the tensor whole along the axis, and seconds, copies included."""
    num_bytes, run = collective_run(kind, payload_bytes, place)
    if bench.device.type == "cuda":
        return [num_bytes, bench.joint_seconds(run)]
    return [num_bytes, bench.among_work_seconds(run, _work(bench))]


def _work(bench: _Bench) -> Callable[[], object]:
    """A few milliseconds of what a step does: products, and a pass over memory."""
    a, x = bench.normal(_OVERLAP_SIZE, _OVERLAP_SIZE), bench.normal(2**21)

    def work() -> None:
        for _ in range(2):
            aten.mm.default(a, a)
        x.add_(x, alpha=0.5)

    return work


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
    one_s = bench.seconds(lambda: aten.mm.default(a, a))
    count = max(1, round(sent_s / one_s))
    if bench.share is None:
        count = int(bench.largest(count))

    def compute() -> None:
        for _ in range(count):
            aten.mm.default(a, a)

    def both() -> None:
        pending = communicate()
        compute()
        c10d.wait_tensor.default(pending)

    compute_s, both_s = bench.joint_seconds(compute), bench.joint_seconds(both)
    return min(1.0, max(0.0, (sent_s + compute_s - both_s) / min(sent_s, compute_s)))
