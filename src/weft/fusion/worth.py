"""Whether a region gains by a kernel of weft's: predicted against what Inductor would take."""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.units import format_seconds
from weft.fusion.cost import STORED, Host, footprint
from weft.fusion.inductor_cost import MASK_WRITTEN, inductor_kernels, inductor_seconds
from weft.fusion.lower import lower
from weft.fusion.plan import FusionPlan
from weft.fusion.points import Points
from weft.fusion.region import Region
from weft.fusion.schedule import LANES
from weft.fusion.stitch import planned
from weft.fusion.surroundings import Surroundings
from weft.fusion.tasks import tasks_of

__all__ = ["LEAST_GAIN", "Worth", "weigh"]

ALONE = Surroundings()
LEAST_GAIN = 0.25
"""Share of Inductor's time that a kernel has to save: what predictions of kernels' times are off by
in the median at most, so that what it is predicted to save beyond that is seldom an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """What a region takes, and what it takes elsewhere; all predicted.

    Attributes:
        inductor_s: of Inductor's kernels [s].
        weft_s: of weft's kernel [s].
        call_s: to call it, and to write for it what Inductor would not [s].
        plan: of weft's kernel.
        is_one_loop: whether Inductor makes one kernel of it that sums up nothing.
    """

    inductor_s: float
    weft_s: float
    call_s: float
    plan: FusionPlan
    is_one_loop: bool = False

    @property
    def gain_s(self) -> float:
        """What the kernel saves [s]; below zero where it costs."""
        return self.inductor_s - self.weft_s - self.call_s

    @property
    def loss(self) -> str:
        """Why the region is better left to Inductor; empty if it is not."""
        if self.gain_s > LEAST_GAIN * self.inductor_s:
            return ""
        weft, call, inductor = map(format_seconds, (self.weft_s, self.call_s, self.inductor_s))
        return f"{weft} and {call} for the call, against {inductor} there"

    @property
    def likeness(self) -> str:
        """Why Inductor does as well with a graph that is this region as a whole; empty if not.

        Nothing but the call tells a pass over tensors in the caches from another.
        """
        is_alike = self.is_one_loop and not self.plan.streams and self.inductor_s <= self.weft_s
        return f"one loop, {format_seconds(self.weft_s)} in either" if is_alike else ""


def weigh(region: Region, host: Host, around: Surroundings = ALONE) -> Worth:
    """Predict what a kernel for a region gains over Inductor, in the midst of Inductor's code.

        gain = Inductor's kernels - (weft's kernel + call + (1 + S) unwritten / bandwidth)

    S is what a store counts beside a load (`weft.fusion.cost.STORED`). Bools are written one by
    one.

    Args:
        region: what to compute.
        host: what it runs on.
        around: what it stands in the midst of.
    """
    points = lower(region)
    plan = planned(region, points, host)
    bytes_ns = (1.0 + STORED) * around.unwritten_bytes / host.bytes_per_ns(footprint(points))
    bools_ns = MASK_WRITTEN * around.unwritten_bools / LANES * host.vector_ns / host.threads
    calling_ns = host.calling_ns(region.num_tensors, is_hot=around.is_hot)
    inductor_s, is_one_loop = _inductor(region, points, host, around)
    return Worth(
        inductor_s=inductor_s,
        weft_s=plan.seconds,
        call_s=(calling_ns + bytes_ns + bools_ns) * 1e-9,
        plan=plan,
        is_one_loop=is_one_loop,
    )


def _inductor(
    region: Region, points: Points, host: Host, around: Surroundings
) -> tuple[float, bool]:
    """What Inductor takes for those outputs that it writes, and whether that is one plain loop."""
    if len(around.computed_again) == len(region.outputs):
        return 0.0, False
    if around.computed_again:
        region = region.without(around.computed_again)
        points = lower(region)
    tasks = tasks_of(points)
    kernels = inductor_kernels(region, tasks, host, around.made_beside, around.computed_there)
    sums_up = any(task.reduce >= 0 for task in tasks.tasks)
    return inductor_seconds(kernels, host), len(kernels) == 1 and not sums_up
