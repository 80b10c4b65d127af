"""Every policy that can work on a kind of pipeline, each as a case of the matrix."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from torch import nn

from benchmarks.denoise_matrix.pipelines import Built, Kind, noise
from weft.diffusion import (
    Calibrated,
    DenoisePlan,
    Disagreement,
    MixCache,
    Mixed,
    Mode,
    Model,
    Placed,
    Predictor,
    Sketch,
    StepPlan,
    Weights,
    calibrate,
    disagreement,
)
from weft.diffusion.costs import Costs
from weft.diffusion.learning import Learning
from weft.diffusion.policy import Policy

__all__ = ["ROWS", "SPEEDUP", "Case", "cases", "in_turns"]

FULL, SMALL = StepPlan(), StepPlan(model=Model.SMALL)
WEIGHTS = Weights(outputs=(-0.9, 1.8), offsets=(0.1, -0.6, 1.4), blocks=(0.3, 0.7))
"""Of no model: any will do to count."""
WARM_UP = 3
"""Full steps before the first shortcut: the highest predictor takes as many values."""
NOTHING = 0.01
"""Share of a full step that one takes which computes nothing: of a profile it is above 0."""
ROWS = 2
"""Of a batch whose rows are decided each by itself."""
SPEEDUP = 1.5
"""That plans are learnt for: chosen so that every pipeline has one, with some steps in full."""
TAU = 0.02
"""How far MDD's directions may turn: random weights turn further than trained ones. Chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A policy and what it needs.

    Attributes:
        policy: who decides.
        planned: what each step has to be, where that is known beforehand.
        small: the small model beside the pipeline's own.
        by_rows: whether a batch of `ROWS` is decided row by row.
        learns: whether the first run is in full, to learn from.
    """

    policy: Policy | DenoisePlan
    planned: tuple[StepPlan, ...] | None = None
    small: nn.Module | None = None
    by_rows: bool = False
    learns: bool = False


def cases(
    kind: Kind, built: Built, steps: int, *, quick: bool, calibrated: bool
) -> Iterator[tuple[str, Case]]:
    """All of a pipeline.

    Args:
        kind, built: the pipeline.
        steps: of a run.
        quick: whether single shortcuts are predicted by straight lines alone.
        calibrated: whether it is calibrated, too.
    """
    small = kind.relative()
    yield "full", _fixed((FULL,) * steps)
    predictors = (Predictor.LINEAR,) if quick else tuple(Predictor)
    for name, own in _shortcuts(kind, predictors).items():
        yield name, _fixed(_every_third(FULL, own, n, steps) for n in range(steps))
    yield "all in turns", _fixed(in_turns(kind, steps).steps)
    yield "all in turns, half small", _fixed(_half_small(kind, steps), small)
    yield "mixed in turns", _fixed(_mixed_in_turns(steps), small)
    yield "MixCache", Case(policy=MixCache())
    yield "SRDiffusion", Case(policy=Sketch(), small=small)
    yield "SRDiffusion, MixCache", Case(policy=Sketch(then=MixCache()), small=small)
    yield "MDD", Case(policy=Mixed(tau=TAU), small=small)
    yield from _measured(built, small)
    if kind.batches:
        own = Sketch(then=MixCache(), earliest=0.5, latest=0.5)
        yield "MixCache by rows", Case(policy=MixCache(), by_rows=True)
        yield "SRDiffusion, MixCache by rows", Case(policy=own, small=small, by_rows=True)
    yield "learnt", Case(policy=Learning(target_speedup=SPEEDUP), learns=True)
    yield "learnt, small", Case(policy=Learning(target_speedup=SPEEDUP), small=small, learns=True)
    if calibrated:
        yield "calibrated", _calibrated(kind, built)


def in_turns(kind: Kind, steps: int) -> DenoisePlan:
    """Every shortcut of a pipeline by every predictor, with full steps between them."""
    return DenoisePlan(steps=_turns(list(_shortcuts(kind, tuple(Predictor)).values()), steps))


def _fixed(
    steps: Iterator[StepPlan] | tuple[StepPlan, ...], small: nn.Module | None = None
) -> Case:
    plan = DenoisePlan(steps=tuple(steps), policy="by hand")
    return Case(policy=plan, planned=plan.steps, small=small)


def _shortcuts(kind: Kind, predictors: tuple[Predictor, ...]) -> Mapping[str, StepPlan]:
    modes = (Mode.STEP, Mode.BLOCK, *([Mode.CFG] if kind.guided else []))
    return {
        f"{mode.value} {predictor.value}": StepPlan(
            mode=mode,
            predictor=predictor,
            blocks=(1, kind.blocks - 1) if mode is Mode.BLOCK else None,
            weights=WEIGHTS if predictor is Predictor.FITTED else None,
        )
        for mode in modes
        for predictor in predictors
    }


def _every_third(full: StepPlan, own: StepPlan, step: int, steps: int) -> StepPlan:
    return own if step >= WARM_UP and step % 3 and step < steps - 1 else full


def _turns(shortcuts: list[StepPlan], steps: int) -> tuple[StepPlan, ...]:
    every = itertools.cycle(shortcuts)
    return tuple(next(every) if n >= WARM_UP and n % 2 else FULL for n in range(steps))


def _half_small(kind: Kind, steps: int) -> tuple[StepPlan, ...]:
    """The large model's turns, then the small one's, which begin with a full step."""
    inner = (1, kind.small_blocks - 1)
    own = [
        replace(own, model=Model.SMALL, blocks=None if own.blocks is None else inner)
        for own in _shortcuts(kind, tuple(Predictor)).values()
    ]
    large, every = in_turns(kind, steps).steps, itertools.cycle(own)
    half = steps // 2
    return (*large[:half], *(next(every) if n % 2 else SMALL for n in range(steps - half)))


def _mixed_in_turns(steps: int) -> tuple[StepPlan, ...]:
    predictors = (Predictor.REUSE, Predictor.LINEAR, Predictor.TAYLOR)
    return _turns(
        [StepPlan(mode=Mode.MIXED, predictor=own, model=Model.SMALL) for own in predictors], steps
    )


def _measured(built: Built, small: nn.Module) -> Iterator[tuple[str, Case]]:
    """Steps that are placed where the two models were found to agree best."""
    prompt = {**built.inputs, "generator": noise(0)}
    found: Disagreement = disagreement(built.pipe, small, [prompt])
    half = Placed(disagreement=found, share=0.5)
    yield "placed", Case(policy=half, small=small)
    yield "placed, MixCache", Case(policy=replace(half, then=MixCache()), small=small)


def _calibrated(kind: Kind, built: Built) -> Case:
    """By one prompt, two probes and one speed: any profile has plans to follow.

    What steps take is counted instead of timed, so that the plan is the pipeline's and not the
    moment's.
    """
    prompt = {**built.inputs, "generator": noise(0)}
    found = calibrate(built.pipe, [prompt], probes=2, speedups=(SPEEDUP,))
    computed = 1.0 - (kind.blocks - 2) / kind.blocks
    share = {Mode.FULL: 1.0, Mode.CFG: 0.5, Mode.BLOCK: computed, Mode.STEP: NOTHING}
    profile = replace(found, costs=Costs(full_s=1.0, share=share))
    plan = profile.plan(target_speedup=SPEEDUP)
    return Case(policy=Calibrated(profile=profile, target_speedup=SPEEDUP), planned=plan.steps)
