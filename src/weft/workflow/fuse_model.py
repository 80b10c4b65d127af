"""What the fusion back end makes of a recipe's model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weft.workflow.progress import Progress, silent
from weft.workflow.recipe import load_workload

if TYPE_CHECKING:
    from weft.fusion.explain import Explanation

__all__ = ["Fused", "FusedPhase", "FusedRegion", "fuse_recipe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedPhase:
    """A phase in words, with its predicted time [s] and the bytes that it moves."""

    shared_out: str
    nests: tuple[str, ...]
    seconds: float
    num_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedRegion:
    """A region of the model's graphs.

    Attributes:
        operators: what computes in it, in order.
        phases: how it is computed.
        seconds, bound_s: predicted, and of reading and writing all once [s].
        num_bytes, unfused_bytes: moved, and if every operator was a kernel [bytes].
        plan: the fusion plan, as JSON.
        source: generated C++.
        left: why it is left to Inductor; empty if it is not.
    """

    operators: tuple[str, ...]
    phases: tuple[FusedPhase, ...]
    seconds: float
    bound_s: float
    num_bytes: float
    unfused_bytes: float
    plan: str
    source: str
    left: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """All regions of a model's forward and backward pass.

    Attributes:
        name: of the model.
        words: everything in words.
        regions: in order.
        graphs: of each graph, operators that stay with Inductor and numbers of regions.
    """

    name: str
    words: str
    regions: tuple[FusedRegion, ...]
    graphs: tuple[tuple[str | int, ...], ...]

    @property
    def num_bytes(self) -> float:
        """Moved by all regions [bytes]."""
        return sum(region.num_bytes for region in self.regions)

    @property
    def unfused_bytes(self) -> float:
        """Moved if every operator was a kernel [bytes]."""
        return sum(region.unfused_bytes for region in self.regions)


def fuse_recipe(recipe: str, *, progress: Progress = silent) -> Fused:
    """Compile a recipe's loss and its gradients, and say what became of their operators.

    Args:
        recipe: FILE.py:FUNCTION.
        progress: told how far it is.

    Raises:
        InputError: the recipe cannot be loaded.
        FileError: its file, or a package that it needs, is missing.
    """
    from weft.capture.workload import build_model
    from weft.fusion.explain import explain

    workload = load_workload(recipe)
    progress("compile", None)
    model, batch = build_model(workload), workload.batch(0)
    found = explain(lambda: workload.loss(model, batch))
    progress("compile", 1.0)
    return _plain(workload.name, found)


def _plain(name: str, found: Explanation) -> Fused:
    return Fused(
        name=name,
        words=str(found),
        regions=tuple(
            FusedRegion(
                operators=region.operators,
                phases=tuple(
                    FusedPhase(
                        shared_out=phase.shared_out,
                        nests=phase.nests,
                        seconds=phase.seconds,
                        num_bytes=phase.num_bytes,
                    )
                    for phase in region.phases
                ),
                seconds=region.plan.seconds,
                bound_s=region.plan.bound_s,
                num_bytes=region.plan.num_bytes,
                unfused_bytes=region.plan.unfused_bytes,
                plan=region.plan.to_json(),
                source=region.source,
                left=region.left,
            )
            for region in found.regions
        ),
        graphs=found.graphs,
    )
