"""How memory-bound operators become kernels.

`torch.compile(model, backend="weft")` finds the regions of a graph that wait for memory, plans
which of their operators share a pass over it, generates the kernels, and leaves the rest to
Inductor.
"""

from weft.fusion.cost import Host
from weft.fusion.explain import Explanation, explain
from weft.fusion.kernel import Kernel, compile_region
from weft.fusion.plan import FusionPlan
from weft.fusion.region import Region

__all__ = [
    "Explanation",
    "FusionPlan",
    "Host",
    "Kernel",
    "Region",
    "compile_region",
    "explain",
]
