"""What kernels take on a GPU, timed there beside Inductor's own for the same operators.

    kernel = tuned(candidate, device, folder)

First the plans that the search ends with are timed, then tilings of the best of them, in turns and
with cold caches. The one with the shortest run is kept in the folder with all times.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch._inductor import config
from torch._subclasses.fake_tensor import unset_fake_temporarily

from weft.fusion.compile import put
from weft.fusion.cost import host_like
from weft.fusion.device import Device
from weft.fusion.emit.tiles import TILINGS, Tiling
from weft.fusion.emit.triton import emit_triton
from weft.fusion.gpu import (
    TritonDescription,
    TritonKernel,
    described,
    key_of,
    read_triton_kernel,
    require_tensors,
)
from weft.fusion.kernel import layouts
from weft.fusion.lower import lower
from weft.fusion.measure import INDUCTOR, by_inductor, like
from weft.fusion.moments import OF_PROGRAMS
from weft.fusion.partition import Candidate
from weft.fusion.plan import FusionPlan
from weft.fusion.region import Region
from weft.fusion.stitch import planned, ranked, scheduled

__all__ = ["cold_seconds", "tuned", "tuned_key"]

_log = logging.getLogger("weft.fusion")

Timer: TypeAlias = Callable[[Callable[[], object]], float]

MOST_PLANS = 3
"""Plans that are timed, beside the one that fuses nothing."""
RELATIVE = 1e-2
"""What results of two ways may differ by: sums of half precision in another order."""
ROUNDS = 15
"""How often each is timed; the shortest run counts."""
FLUSHES, FLUSH_RATIO = 20, 4
"""How many times a buffer is written before each call, and how often the second level of cache goes
into it: a millisecond and a half on an H200, in which the processor queues what follows. Half of
that was too little for fifteen kernels."""


@cache
def _flushed(device: int) -> torch.Tensor:
    size = FLUSH_RATIO * torch.cuda.get_device_properties(device).L2_cache_size
    return torch.empty(size, dtype=torch.uint8, device=f"cuda:{device}")


def cold_seconds(call: Callable[[], object]) -> float:
    """What a call takes on the current GPU, from cold caches and without what launches cost [s]."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    buffer = _flushed(torch.cuda.current_device())
    for _ in range(FLUSHES):
        buffer.zero_()
    begin.record()
    call()
    end.record()
    end.synchronize()
    return 1e-3 * begin.elapsed_time(end)


def tuned_key(region: Region, device: Device) -> str:
    """Tells timed kernels apart, as `weft.fusion.gpu.key_of` those that were predicted.

    Beside another Inductor, one that tunes its own kernels, another choice may be right.
    """
    tuned_too = config.max_autotune or config.max_autotune_pointwise
    rival = f"{int(tuned_too)}{int(config.coordinate_descent_tuning)}"
    return f"{key_of(region, device)}_measured{rival}"


def tuned(
    candidate: Candidate, device: Device, folder: Path, timer: Timer = cold_seconds
) -> TritonKernel:
    """The kernel of a region that takes least, with what was measured in its description.

    Args:
        candidate: nodes of a graph, and the region that they are.
        device: what it runs on.
        folder: where modules and results are kept.
        timer: how a call is timed [s].

    Raises:
        VerifyError: there is no code for the region.
    """
    kept = folder / f"{tuned_key(candidate.region, device)}.json"
    if kept.exists():
        return read_triton_kernel(kept)
    with unset_fake_temporarily(), torch.no_grad(), torch.cuda.device_of(_anywhere(candidate)):
        found = _Trials(candidate, device, folder, timer).run()
    put(kept, json.dumps(asdict(found)))
    return TritonKernel(found, folder)


def _anywhere(candidate: Candidate) -> torch.Tensor:
    return torch.empty(0, device=candidate.device)


class _Trials:
    def __init__(self, candidate: Candidate, device: Device, folder: Path, timer: Timer) -> None:
        require_tensors(candidate.region)
        self._candidate = candidate
        self._points = lower(candidate.region, OF_PROGRAMS)
        self._inputs = [
            like(given.shape, given.strides, given.dtype, candidate.device)
            for given in layouts(candidate.region)[0]
        ]
        self._device = device
        self._folder = folder
        self._timer = timer
        self._kernels: dict[str, TritonKernel] = {}
        self._refused: list[Exception] = []
        self._wanted: list[torch.Tensor] | None = None

    def run(self) -> TritonDescription:
        region, points = self._candidate.region, self._points
        host = host_like(self._device)
        plans = [*ranked(region, points, host)[:MOST_PLANS], planned(region, points, host, "none")]
        plans = list({plan.phases: plan for plan in plans}.values())
        for number, plan in enumerate(plans):
            self._add(f"plan {number}", plan, TILINGS[0])
        if not self._kernels:
            raise self._refused[0]
        seconds = self._timed()
        best = min(seconds, key=seconds.__getitem__)
        plan = plans[int(best.removeprefix("plan "))]
        for tiling in TILINGS[1:]:
            self._add(f"{best}, {_words(tiling)}", plan, tiling)
        seconds = self._timed(self._rival())
        best = min(self._kernels, key=seconds.__getitem__)
        return replace(self._kernels[best].description, measured=seconds)

    def _rival(self) -> dict[str, Callable[[], object]]:
        """What Inductor makes of the region; nothing where it cannot."""
        try:
            compiled = by_inductor(self._candidate, self._inputs)
            compiled(list(self._inputs))
        except Exception as error:  # of a compiler, of memory: kernels are there without
            _log.debug("weft: Inductor's version of %s: %s", self._candidate.region.digest, error)
            return {}
        return {INDUCTOR: lambda: compiled(list(self._inputs))}

    def _add(self, name: str, plan: FusionPlan, tiling: Tiling) -> None:
        """One more, unless it is like one that is there or does not run."""
        region = self._candidate.region
        try:
            schedule = scheduled(self._points, plan)
            source = emit_triton(schedule, f"region_{region.digest}", self._device, tiling)
            made = described(region, plan, source, self._folder)
            if any(
                (made.module, made.launches) == (own.description.module, own.description.launches)
                for own in self._kernels.values()
            ):
                return
            kernel = TritonKernel(made, self._folder)
            self._compare(kernel(self._inputs))
        except Exception as error:  # the compiler's; others are there
            _log.debug("weft: %s of region %s is left out: %s", name, region.digest, error)
            self._refused.append(error)
            return
        self._kernels[name] = kernel

    def _compare(self, made: Sequence[torch.Tensor]) -> None:
        """All ways have to compute the same, but for the order in which they add up."""
        if self._wanted is None:
            self._wanted = [own.clone() for own in made]
        for own, wanted in zip(made, self._wanted, strict=True):
            torch.testing.assert_close(own, wanted, rtol=RELATIVE, atol=RELATIVE, equal_nan=True)

    def _timed(
        self, more: Mapping[str, Callable[[], object]] = MappingProxyType({})
    ) -> dict[str, float]:
        """The shortest run of each, in turns [s]."""
        own = {
            name: (lambda kernel=kernel: kernel(self._inputs))
            for name, kernel in self._kernels.items()
        }
        calls = {**own, **more}
        found = dict.fromkeys(calls, float("inf"))
        for call in calls.values():
            call()
        for _ in range(ROUNDS):
            for name, call in calls.items():
                found[name] = min(found[name], self._timer(call))
        return found


def _words(tiling: Tiling) -> str:
    shares = f"{tiling.parts} parts, {tiling.stages} stages, warps x {tiling.warps:g}"
    return f"tiles of {tiling.wanted}, {shares}"
