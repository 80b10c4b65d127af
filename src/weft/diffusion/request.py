"""A run in progress: where it is, what it keeps, what it did so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from weft.core.errors import InfeasibleError
from weft.core.units import format_bytes
from weft.diffusion.history import History, Keep
from weft.diffusion.plan import Mode, Model, StepPlan, Weights
from weft.diffusion.policy import Decider
from weft.diffusion.record import StepRecord

__all__ = ["Denoising", "Request", "Row"]

Streams = tuple[Tensor, ...]
UNFITTED = Weights()


class Row(NamedTuple):
    """Tells the run of a row from those of others of its batch.

    Attributes:
        session: that the batch belongs to.
        row: its number.
    """

    session: object
    row: int


@dataclass(slots=True, kw_only=True)
class Denoising:
    """What one denoiser computed in a run.

    Attributes:
        outputs: with the prompt.
        offsets: of the output without the prompt from the one with it.
        residuals: what the output with the prompt adds to the latents, kept for mixed steps.
        sums: what the blocks of a range add, by range and branch.
    """

    keep: Keep
    outputs: History = field(init=False)
    offsets: History = field(init=False)
    residuals: History = field(init=False)
    sums: dict[tuple[tuple[int, int], str], History] = field(
        default_factory=dict[tuple[tuple[int, int], str], History]
    )

    def __post_init__(self) -> None:
        self.outputs, self.offsets = History(self.keep), History(self.keep)
        self.residuals = History(self.keep)

    def sum_of(self, blocks: tuple[int, int], branch: str) -> History:
        """What a range adds, in a branch."""
        return self.sums.setdefault((blocks, branch), History(self.keep))

    def histories(self) -> Iterator[History]:
        """All of them."""
        yield from (self.outputs, self.offsets, self.residuals, *self.sums.values())

    def possible(
        self, *, has_guidance: bool, blocks: tuple[int, int] | None = None
    ) -> frozenset[Mode]:
        """Modes for which what has to be predicted was computed before.

        Args:
            has_guidance: whether there are two outputs.
            blocks: range of a block step; None for any.
        """
        found = {Mode.FULL}
        if len(self.outputs) and (len(self.offsets) or not has_guidance):
            found.add(Mode.STEP)
        if len(self.offsets) and has_guidance:
            found.add(Mode.CFG)
        if len(self.residuals) and (len(self.offsets) or not has_guidance):
            found.add(Mode.MIXED)
        if any(len(h) for (own, _), h in self.sums.items() if blocks in (None, own)):
            found.add(Mode.BLOCK)
        return frozenset(found)


@dataclass(slots=True, kw_only=True)
class Request:
    """State of one run.

    Attributes:
        keep: how values are kept.
        levels: the scheduler's timesteps.
        decider: of the policy.
        clock: tells seconds.
        has_guidance: whether there are two outputs a step; None until that has shown.
        step: number of the step that is under way; -1 before the first.
        position: its noise level.
        plan: what is done in it.
        why: why not what the policy wanted.
        seen: branches that were asked for in it.
        output: with the prompt, if it was computed in it.
        outputs, blocks: computed in it.
        distances: found in it, as tensors of one number.
        seconds: that its calls took [s].
        denoisings: by denoiser.
        steps: that are done.
        most_bytes: kept at a time [bytes].
    """

    keep: Keep
    levels: Tensor
    decider: Decider
    clock: Callable[[], float] = time.perf_counter
    has_guidance: bool | None
    step: int = -1
    position: float = 0.0
    plan: StepPlan = field(default_factory=StepPlan)
    why: str = ""
    seen: set[str] = field(default_factory=set[str])
    output: Tensor | None = None
    outputs: int = 0
    blocks: int = 0
    distances: dict[str, list[Tensor]] = field(default_factory=dict[str, list[Tensor]])
    seconds: float = 0.0
    denoisings: dict[str, Denoising] = field(default_factory=dict[str, Denoising])
    steps: list[StepRecord] = field(default_factory=list[StepRecord])
    most_bytes: int = 0

    @property
    def weights(self) -> Weights:
        """Of fitted predictions in the step that is under way."""
        return self.plan.weights or UNFITTED

    def denoising(self, name: str) -> Denoising:
        """What a denoiser computed."""
        if name not in self.denoisings:
            self.denoisings[name] = Denoising(keep=self.keep)
        return self.denoisings[name]

    def begin_step(self, step: int, position: float) -> None:
        """Forget what belongs to the step before."""
        self.step, self.position, self.why, self.output = step, position, "", None
        self.outputs = self.blocks = 0
        self.seen, self.distances = set(), {}
        self.seconds = 0.0

    def measured(self) -> dict[str, torch.Tensor]:
        """Distances of the step, the mean over its branches."""
        return {name: torch.stack(found).mean() for name, found in self.distances.items()}

    def end_step(self, distances: dict[str, float]) -> StepRecord:
        """What the step did."""
        record = StepRecord(
            step=self.step,
            position=self.position,
            done=self.plan,
            why=self.why,
            outputs=self.outputs,
            blocks=self.blocks,
            distances=distances,
            seconds=self.seconds,
        )
        self.steps.append(record)
        self._account()
        return record

    def _account(self) -> None:
        kept = sum(h.num_bytes for d in self.denoisings.values() for h in d.histories())
        self.most_bytes = max(self.most_bytes, kept)
        limit = self.keep.limit_bytes
        if limit is not None and kept > limit:
            raise InfeasibleError(
                need=f"at most {format_bytes(limit)} kept between steps",
                got=format_bytes(kept),
                options=(
                    "Keep(dtype=torch.bfloat16)",
                    'Keep(device="cpu")',
                    "a policy without mode block, which keeps what is largest",
                ),
            )

    def settled(self, plan: StepPlan, possible: frozenset[Mode]) -> StepPlan:
        """The plan, or a full step where what it predicts from was not computed.

        It is the large model's where the plan's was mixed, whose directions are.
        """
        if plan.mode in possible:
            return plan
        self.why = f"{plan.mode.value} was planned, of which nothing was computed before"
        model = Model.LARGE if plan.mode is Mode.MIXED else plan.model
        return replace(plan, mode=Mode.FULL, model=model, blocks=None)
