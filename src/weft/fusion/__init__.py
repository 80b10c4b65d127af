"""How memory-bound operators become kernels.

`torch.compile(model, backend="weft")` finds the regions of a graph that wait for memory, plans
which of their operators share a pass over it, generates the kernels, and leaves the rest to
Inductor.

Names load when they are first used: Inductor is loaded only where it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weft.core.lazy import lazy

if TYPE_CHECKING:
    from weft.fusion.cost import Host as Host
    from weft.fusion.explained import Explanation as Explanation
    from weft.fusion.explanation import explain as explain
    from weft.fusion.kernel import Kernel as Kernel
    from weft.fusion.kernel import compile_region as compile_region
    from weft.fusion.plan import FusionPlan as FusionPlan
    from weft.fusion.region import Region as Region

_HOME = {
    "Explanation": "weft.fusion.explained",
    "FusionPlan": "weft.fusion.plan",
    "Host": "weft.fusion.cost",
    "Kernel": "weft.fusion.kernel",
    "Region": "weft.fusion.region",
    "compile_region": "weft.fusion.kernel",
    "explain": "weft.fusion.explanation",
}

__all__ = [  # sorted, as a test checks
    "Explanation",
    "FusionPlan",
    "Host",
    "Kernel",
    "Region",
    "compile_region",
    "explain",
]


__getattr__ = lazy(__name__, _HOME)
