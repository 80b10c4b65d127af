"""Whether a region gains by a kernel of weft's: predicted against what Inductor would take."""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.units import format_seconds
from weft.fusion.cost import STORED, Host, footprint
from weft.fusion.inductor_cost import inductor_kernels, inductor_seconds
from weft.fusion.lower import lower
from weft.fusion.plan import FusionPlan
from weft.fusion.region import Region
from weft.fusion.stitch import planned
from weft.fusion.tasks import tasks_of

__all__ = ["LEAST_GAIN", "Worth", "weigh"]

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
    """

    inductor_s: float
    weft_s: float
    call_s: float
    plan: FusionPlan

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


def weigh(
    region: Region,
    host: Host,
    *,
    unwritten_bytes: float = 0.0,
    made_beside: frozenset[int] = frozenset(),
    is_hot: bool = False,
) -> Worth:
    """Predict what a kernel for a region gains over Inductor, in the midst of Inductor's code.

        gain = Inductor's kernels - (weft's kernel + call + (1 + S) unwritten / bandwidth)

    S is what a store counts beside a load (`weft.fusion.cost.STORED`).

    Args:
        region: what to compute.
        host: what it runs on.
        unwritten_bytes: of inputs that Inductor would compute where they are read, and that have to
            be written to memory for a kernel of weft's [bytes].
        made_beside: numbers of inputs that Inductor computes, and may write where it likes.
        is_hot: whether little else is computed between two calls.
    """
    points = lower(region)
    kernels = inductor_kernels(region, tasks_of(points), host, made_beside)
    plan = planned(region, points, host)
    written_ns = (1.0 + STORED) * unwritten_bytes / host.bytes_per_ns(footprint(points))
    return Worth(
        inductor_s=inductor_seconds(kernels, host),
        weft_s=plan.seconds,
        call_s=(host.calling_ns(region.num_tensors, is_hot=is_hot) + written_ns) * 1e-9,
        plan=plan,
    )
