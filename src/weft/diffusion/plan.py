"""The denoise plan, as data: which model does a step, what it computes, how the rest is predicted.

A step is one call of the denoiser and, with classifier-free guidance, two: with the prompt and
without. What is not computed is predicted from what was computed in earlier steps:

    full    everything is computed
    cfg     the call with the prompt is computed; what the other one differs by is predicted
    block   the blocks of a range are left out; what they add is predicted
    step    nothing is computed; both outputs are predicted
    mixed   the small model computes the output with the prompt, of which the magnitudes are taken;
            directions of the large model's, and what the other output differs by, are predicted

Policies produce plans (`weft.diffusion.policies`); a run records the one that it took, and a plan
that was recorded can be run again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

from weft.core.errors import InputError
from weft.core.files import parsed, read_as, write_whole

__all__ = [
    "DenoisePlan",
    "Mode",
    "Model",
    "Predictor",
    "StepPlan",
    "Weights",
    "load_plan",
    "save_plan",
]

VERSION = 1


class Mode(Enum):
    """What of a step is computed."""

    FULL = "full"
    CFG = "cfg"
    BLOCK = "block"
    STEP = "step"
    MIXED = "mixed"


class Model(Enum):
    """Which model does a step: the one of the pipeline, or its small relative."""

    LARGE = "large"
    SMALL = "small"


class Predictor(Enum):
    """How what is not computed is predicted from what was.

    By a polynomial through the last values; or, fitted, with weights that calibration found.
    """

    REUSE = "reuse"
    LINEAR = "linear"
    TAYLOR = "taylor"
    FITTED = "fitted"

    @property
    def order(self) -> int:
        """Degree of the polynomial, which takes one value more."""
        return min(list(Predictor).index(self), 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How much each of the last values counts in a fitted prediction, the oldest first.

    Attributes:
        outputs: with the prompt.
        offsets: of those without it.
        blocks: what a range of blocks adds.
    """

    outputs: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    blocks: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """What is done in one step.

    Attributes:
        mode: what is computed.
        predictor: of the rest; means nothing in a full step.
        model: which model computes.
        blocks: first and one past the last of the blocks that a block step leaves out, counted
            over all of the denoiser's lists of blocks.
        weights: of a fitted prediction.

    Raises:
        InputError: a block step without a range, a range elsewhere, weights of a prediction
            that is not fitted, or a mixed step of the large model or with a fitted prediction.
    """

    mode: Mode = Mode.FULL
    predictor: Predictor = Predictor.REUSE
    model: Model = Model.LARGE
    blocks: tuple[int, int] | None = None
    weights: Weights | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and self.predictor is not Predictor.FITTED:
            raise InputError(
                need="weights for a prediction that is fitted, and for no other",
                got=f"weights for {self.predictor.value}",
                hint="StepPlan(mode=..., predictor=Predictor.FITTED, weights=Weights(...))",
            )
        is_plain = self.model is Model.SMALL and self.predictor is not Predictor.FITTED
        if self.mode is Mode.MIXED and not is_plain:
            raise InputError(
                need="the small model, and a predictor without weights, for a mixed step",
                got=f"the {self.model.value} model, predictor {self.predictor.value}",
                hint="StepPlan(mode=Mode.MIXED, model=Model.SMALL)",
            )
        is_range = self.blocks is not None and 0 <= self.blocks[0] < self.blocks[1]
        if (self.mode is Mode.BLOCK) != (self.blocks is not None) or (self.blocks and not is_range):
            raise InputError(
                need="a range of blocks for a step of mode block, and for no other",
                got=f"mode {self.mode.value}, blocks {self.blocks}",
                hint="StepPlan(mode=Mode.BLOCK, blocks=(1, 29)) leaves out blocks 1 to 28",
            )

    def __str__(self) -> str:
        parts = [self.mode.value]
        if self.blocks is not None:
            parts.append(f"{self.blocks[0]}-{self.blocks[1] - 1}")
        if self.mode is not Mode.FULL:
            parts.append(self.predictor.value)
        if self.model is Model.SMALL:
            parts.append("small")
        return " ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoisePlan:
    """A decision how to denoise.

    Attributes:
        steps: one for each step of the scheduler.
        policy: who decided, in words.
        speedup: predicted: work of all steps in full, by the large model, over the plan's.
        psnr_db: predicted likeness to the result of all steps in full [dB].

    Raises:
        InputError: there is no step.

    Example:
        >>> full, again = StepPlan(), StepPlan(mode=Mode.STEP)
        >>> plan = DenoisePlan(steps=(full, full, again, full), policy="by hand")
        >>> print(plan)
        4 steps by hand: 3 full, 1 step
        >>> DenoisePlan.from_json(plan.to_json()) == plan
        True
    """

    steps: tuple[StepPlan, ...]
    policy: str = ""
    speedup: float | None = None
    psnr_db: float | None = None

    def __post_init__(self) -> None:
        if not self.steps:
            raise InputError(
                need="a plan of at least one step",
                got="no steps",
                hint="give one StepPlan for each step of the scheduler",
            )

    def __str__(self) -> str:
        modes = Counter(step.mode.value for step in self.steps)
        small = sum(step.model is Model.SMALL for step in self.steps)
        parts = [f"{count} {mode}" for mode, count in modes.items()]
        parts += [f"{small} by the small model"] if small else []
        by = f" {self.policy}" if self.policy else ""
        return f"{len(self.steps)} steps{by}: {', '.join(parts)}"

    @property
    def uses_blocks(self) -> bool:
        """Whether any step leaves out blocks."""
        return any(step.mode is Mode.BLOCK for step in self.steps)

    def to_json(self) -> str:
        """The plan as one line of JSON; inverse of `from_json`."""
        return json.dumps({"weft": "denoise plan", "version": VERSION, **_plain(self)})

    @staticmethod
    def from_json(text: str) -> DenoisePlan:
        """Inverse of `to_json`.

        Raises:
            FileError: the text is no denoise plan of this version.
        """
        hint = "write one with weft.diffusion.save_plan, or calibrate again"
        return parsed(text, "denoise plan", VERSION, _plan, hint=hint)


def _plan(plain: Mapping[str, Any]) -> DenoisePlan:
    numbers = {key: _number(plain[key]) for key in ("speedup", "psnr_db")}
    steps = tuple(map(_step, plain["steps"]))
    return DenoisePlan(steps=steps, policy=str(plain["policy"]), **numbers)


def _plain(plan: DenoisePlan) -> dict[str, object]:
    steps = [
        {key: value.value if isinstance(value, Enum) else value for key, value in own.items()}
        for own in map(asdict, plan.steps)
    ]
    return {
        "policy": plan.policy,
        "speedup": plan.speedup,
        "psnr_db": plan.psnr_db,
        "steps": steps,
    }


def _step(plain: Mapping[str, object]) -> StepPlan:
    return StepPlan(
        mode=Mode(plain["mode"]),
        predictor=Predictor(plain["predictor"]),
        model=Model(plain["model"]),
        blocks=_pair(plain["blocks"]),
        weights=_weights(plain.get("weights")),
    )


def _weights(value: object) -> Weights | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != {f.name for f in fields(Weights)}:
        raise TypeError(f"weights of outputs, offsets and blocks, not {value!r}")
    return Weights(**{name: tuple(float(w) for w in own) for name, own in value.items()})


def _pair(value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    pair = list(value) if isinstance(value, Sequence) else []
    if len(pair) != 2 or not all(type(number) is int for number in pair):
        raise ValueError(f"a range of blocks is two whole numbers, not {value}")
    return pair[0], pair[1]


def _number(value: object) -> float | None:
    if value is not None and not isinstance(value, int | float):
        raise TypeError(f"a number or null, not {value!r}")
    return value


def save_plan(plan: DenoisePlan, path: str | Path) -> None:
    """Write a plan to a file.

    Raises:
        FileError: the file cannot be written.
    """
    write_whole(path, plan.to_json() + "\n", "a denoise plan")


def load_plan(path: str | Path) -> DenoisePlan:
    """Read a plan from a file.

    Raises:
        FileError: the file is missing or holds no denoise plan of this version.
    """
    return read_as(
        path, DenoisePlan.from_json, "a denoise plan", "write one with weft.diffusion.save_plan"
    )
