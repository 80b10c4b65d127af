"""What a search over pipelines finds: configurations with placements, stages and a schedule."""

from __future__ import annotations

from dataclasses import dataclass

from weft.parallel.degrees import Degrees
from weft.parallel.exact.pipelines.configs import Config
from weft.parallel.exact.pipelines.evaluate import Staging
from weft.parallel.pipeline.again import Recompute
from weft.parallel.pipeline.in_pieces import Rows
from weft.parallel.pipeline.plan import PipelinePrediction

__all__ = ["Found", "Placing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """How placements are decided.

    Attributes:
        price_s_per_byte, hidden: of the programme; see `weft.parallel.exact.flow`.
        degrees: of the classical schemes, if they decide and no programme does.
    """

    price_s_per_byte: float = 0.0
    hidden: float = 0.0
    degrees: Degrees | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """A pipeline as far as the pieces tell.

    Attributes:
        config: groups, grids, micro-batches.
        placing: how placements are decided.
        staging: schedule, stages, recomputation.
        prediction: of the simulator, from pieces.
        limit_bytes: limit of one device [bytes].
        rows: the program of one micro-batch along another order than that of execution, if the
            stages are runs of one.
        own: of each stage, its grid and how placements are decided there, where groups differ.
    """

    config: Config
    placing: Placing
    staging: Staging
    prediction: PipelinePrediction
    limit_bytes: float
    rows: Rows | None = None
    own: tuple[tuple[Config, Placing], ...] = ()

    @property
    def shape(self) -> tuple[Config, ...]:
        """Groups, their grids and the micro-batches."""
        return (self.config, *(config for config, _ in self.own))

    @property
    def fits(self) -> bool:
        """True if every group's peak is within the limit."""
        return self.prediction.peak_bytes <= self.limit_bytes

    @property
    def rank(self) -> tuple[bool, float]:
        """Order of preference: what fits by time, then what does not by size."""
        cost = self.prediction.step_s if self.fits else self.prediction.peak_bytes
        return (not self.fits, cost)

    @property
    def again(self) -> tuple[Recompute, ...]:
        """What each stage recomputes."""
        return self.staging.stages.recompute

    @property
    def repeats(self) -> bool:
        """True if some stage runs operators again."""
        return any(again.lesser or again.more for again in self.again)

    @property
    def name(self) -> str:
        """What people call it."""
        if self.own:
            meshes = " and ".join(str(config.mesh) for config, _ in self.own)
            count = self.config.micro_batches
            return f"groups of {meshes}, {count} micro-batches, {self.staging.schedule}"
        chunks = f" of {self.staging.chunks} chunks" if self.staging.chunks > 1 else ""
        degrees = f", {self.placing.degrees.name}" if self.placing.degrees is not None else ""
        branches = ", by branches" if self.rows is not None else ""
        return f"{self.config}, {self.staging.schedule}{chunks}{degrees}{branches}"
