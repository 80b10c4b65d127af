"""Learn what shortcuts do to a model, by running it on some prompts.

    1. a full run of each prompt: what is computed at every step, in sketches, and what it takes
    2. runs in which one step is predicted: what its error does to the result
    3. runs of some plans that follow from these: what becomes of predictions

The last are kept as corrections.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weft.core.errors import InfeasibleError, InputError
from weft.diffusion.accelerating import accelerate, controller_of, report, restore
from weft.diffusion.compat import blocks_of
from weft.diffusion.families import family_of
from weft.diffusion.plan import DenoisePlan, Mode, Predictor, StepPlan
from weft.diffusion.policies.fixed import Fixed
from weft.diffusion.policy import Decider, Policy, RunFacts
from weft.diffusion.profile import Check, Profile
from weft.diffusion.record import Run
from weft.diffusion.request import Streams
from weft.diffusion.search import Costs
from weft.diffusion.sketching import Sketcher
from weft.diffusion.surrogate import Recording, Surrogate, with_end

__all__ = ["calibrate"]

FULL = StepPlan()
SPEEDUPS = (1.5, 2.0, 3.0)
"""Of plans that are run to see what becomes of predictions."""


def calibrate(
    pipe: Any,
    prompts: Sequence[Mapping[str, Any]],
    *,
    blocks: Sequence[tuple[int, int]] | None = None,
    probes: int = 6,
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> Profile:
    """Run a pipeline on some prompts, and say what was learnt.

    Args:
        pipe: a pipeline that weft knows, not accelerated.
        prompts: what it is called with, for each of some runs; each should have a generator, or
            latents, so that runs can be repeated.
        blocks: ranges that block steps may leave out; None for all but the first and the last.
        probes: steps in which an error is injected.
        progress: told what is being done, and how much of it is done.

    Raises:
        InputError: there is no prompt, or the pipeline is unknown.
    """
    if not prompts or probes < 1:
        raise InputError(
            need="at least one prompt and one probe",
            got=f"{len(prompts)} prompts, {probes} probes",
            hint="two or three prompts tell enough",
        )
    return _Calibration(pipe, prompts, blocks, probes, progress).run()


@dataclass(frozen=True, kw_only=True)
class _Full(Policy):
    """Everything, with sums of blocks kept."""

    kept: frozenset[tuple[int, int]]
    seen: list[RunFacts]

    @property
    def name(self) -> str:
        return "everything"

    def ranges(self, num_blocks: int) -> frozenset[tuple[int, int]]:
        return self.kept

    def begin(self, facts: RunFacts) -> Decider:
        self.seen.append(facts)
        return Fixed(plan=DenoisePlan(steps=(FULL,) * facts.num_steps)).begin(facts)


class _Watched:
    """Sketches what a run computes."""

    def __init__(
        self, sketcher: Sketcher, ranges: Sequence[tuple[int, int]], guidance: float
    ) -> None:
        self.ranges = ranges
        self._sketcher, self._guidance = sketcher, guidance
        self.found: dict[str, dict[int, NDArray[np.float64]]] = defaultdict(dict)

    def computed(self, step: int, kind: str, value: Streams) -> None:
        if kind.startswith("without"):
            name, branch = kind.rsplit(" ", 1)
            self._add(name, step, self._guided(branch, value[0]))
        else:
            self.found[kind][step] = self._sketcher(value[0])

    def _guided(self, branch: str, error: Tensor) -> Tensor:
        """What an error of a branch is of the guided output."""
        if branch == "cond_uncond":
            without, own = error.chunk(2) if self._guidance != 1.0 else (error, error)
            return without + self._guidance * (own - without)
        return error * (self._guidance if branch == "cond" else 1.0 - self._guidance)

    def _add(self, name: str, step: int, value: Tensor) -> None:
        own = self._sketcher(value)
        before = self.found[name].get(step)
        self.found[name][step] = own if before is None else before + own

    def stacked(self, name: str, steps: int) -> NDArray[np.float64]:
        """All steps; zeros where nothing was found."""
        found = self.found[name]
        like = np.zeros_like(next(iter(found.values())))
        return np.stack([found.get(step, like) for step in range(steps)])


class _Calibration:
    def __init__(
        self,
        pipe: Any,
        prompts: Sequence[Mapping[str, Any]],
        blocks: Sequence[tuple[int, int]] | None,
        probes: int,
        progress: Callable[[str, float], None],
    ) -> None:
        count = len(blocks_of(getattr(pipe, family_of(pipe).denoisers[0])))
        whole = [(1, count - 1)] if count > 2 else []
        self._pipe, self._prompts, self._probes = pipe, list(prompts), probes
        self._ranges = list(whole if blocks is None else blocks)
        self._progress = progress
        self._sketcher = Sketcher()
        self._results: list[Tensor] = []
        self._states = [_noise_of(prompt) for prompt in prompts]

    def run(self) -> Profile:
        recordings, facts = self._record()
        recordings = self._probe(recordings)
        costs = self._costs(recordings[0])
        span = max(float(r.max() - r.min()) for r in self._results)
        profile = Profile(
            holds_for=facts.validity,
            recordings=tuple(recordings),
            costs=costs,
            value_range=span,
        )
        return self._checked(profile)

    # ------------------------------------------------------------------------------- runs

    def _called(self, number: int, policy: Policy | DenoisePlan) -> tuple[Tensor, Run, float]:
        """The result of a run of a prompt, what it did, and what it took."""
        accelerate(self._pipe, policy=policy)
        try:
            with report(self._pipe) as found:
                result, seconds = self._timed(number)
        finally:
            restore(self._pipe)
        return result, found.runs[0], seconds

    def _timed(self, number: int) -> tuple[Tensor, float]:
        prompt = {**self._prompts[number], **self._states[number]()}
        prompt.setdefault("output_type", "latent")
        begun = time.perf_counter()
        with torch.no_grad():
            result = self._pipe(**prompt).frames
        return torch.as_tensor(result), time.perf_counter() - begun

    def _record(self) -> tuple[list[Recording], RunFacts]:
        recordings: list[Recording] = []
        seen: list[RunFacts] = []
        for number, prompt in enumerate(self._prompts):
            self._progress("full runs", number / len(self._prompts))
            accelerate(self._pipe, policy=_Full(kept=frozenset(self._ranges), seen=seen))
            guidance = float(prompt.get("true_cfg_scale", prompt.get("guidance_scale", 1.0)))
            watched = _Watched(self._sketcher, self._ranges, guidance)
            try:
                controller_of(self._pipe).watcher = watched
                result, _ = self._timed(number)
            finally:
                restore(self._pipe)
            self._results.append(result)
            recordings.append(self._recording(watched, seen[-1], guidance, result))
        return recordings, seen[-1]

    def _recording(
        self, watched: _Watched, facts: RunFacts, guidance: float, result: Tensor
    ) -> Recording:
        steps = facts.num_steps
        names = {r: f"{r[0]}-{r[1]}" for r in self._ranges}
        return Recording(
            positions=with_end(facts.positions),
            outputs=watched.stacked("output", steps),
            offsets=watched.stacked("offset", steps) if "offset" in watched.found else None,
            blocks={
                r: -watched.stacked(f"without {name}", steps).cumsum(0) for r, name in names.items()
            },
            guidance=guidance,
            gains=np.ones(steps),
            elements=result.numel(),
        )

    def _probe(self, recordings: list[Recording]) -> list[Recording]:
        """Gains: what an error in a step does to the result."""
        steps = recordings[0].num_steps
        chosen = sorted({round(n) for n in np.linspace(2, steps - 1, self._probes)})
        found: list[Recording] = []
        for number, recording in enumerate(recordings):
            alone = Surrogate([recording])
            gains: list[float] = []
            for at, step in enumerate(chosen):
                done = number + at / len(chosen)
                self._progress("probes", done / len(recordings))
                own = StepPlan(mode=Mode.STEP, predictor=Predictor.REUSE)
                plan = DenoisePlan(steps=tuple(own if n == step else FULL for n in range(steps)))
                result, _, _ = self._called(number, plan)
                error = float((result - self._results[number]).double().square().mean())
                expected = alone.mean_square(plan.steps)
                gains.append((error / expected) ** 0.5 if expected > 0 else 1.0)
            logs = np.log(np.maximum(gains, 1e-9))
            everywhere = np.exp(np.interp(np.arange(steps), chosen, logs))
            found.append(replace(recording, gains=everywhere))
        return found

    def _costs(self, recording: Recording) -> Costs:
        """What steps of each mode take, from a run in which they take turns."""
        steps = recording.num_steps
        modes = [Mode.STEP, *([] if recording.offsets is None else [Mode.CFG])]
        modes += [Mode.BLOCK] if self._ranges else []
        plans = {
            mode: StepPlan(
                mode=mode,
                predictor=Predictor.LINEAR,
                blocks=self._ranges[0] if mode is Mode.BLOCK else None,
            )
            for mode in modes
        }
        plan = DenoisePlan(
            steps=tuple(
                plans[modes[n // 2 % len(modes)]] if n > 1 and n % 2 else FULL for n in range(steps)
            )
        )
        taken: dict[Mode, list[float]] = defaultdict(list)
        around: list[float] = []
        for number in range(len(self._prompts)):
            _, run, seconds = self._called(number, plan)
            for step in run.steps[1:]:
                taken[step.done.mode].append(step.seconds)
            around.append((seconds - sum(step.seconds for step in run.steps)) / steps)
        whole = median(taken[Mode.FULL])
        shares = {mode: min(1.0, median(own) / whole) for mode, own in taken.items()}
        return Costs(
            full_s=whole, share={**shares, Mode.FULL: 1.0}, around_s=max(0.0, median(around))
        )

    def _checked(self, profile: Profile) -> Profile:
        """The profile with what became of some plans."""
        checks: list[Check] = []
        for at, speedup in enumerate(SPEEDUPS):
            self._progress("checks", at / len(SPEEDUPS))
            try:
                plan = profile.plan(target_speedup=speedup)
            except InfeasibleError:
                break
            squares, ratios = [], []
            for number in range(len(self._prompts)):
                _, _, full_s = self._called(number, DenoisePlan(steps=(FULL,) * len(plan.steps)))
                result, _, seconds = self._called(number, plan)
                error = (result - self._results[number]).double().square().mean()
                squares.append(float(error))
                ratios.append(full_s / seconds)
            assert plan.speedup is not None and plan.psnr_db is not None
            got = profile.plain_db(float(np.mean(squares)))
            checks.append(
                Check(
                    speedup=plan.speedup,
                    psnr_db=plan.psnr_db,
                    got_speedup=median(ratios),
                    got_psnr_db=got,
                )
            )
        self._progress("checks", 1.0)
        return replace(profile, checks=tuple(checks))


def _noise_of(prompt: Mapping[str, Any]) -> Callable[[], dict[str, Any]]:
    """What gives each run of a prompt the same noise."""
    generator = prompt.get("generator")
    if generator is None and prompt.get("latents") is None:
        raise InputError(
            need="prompts whose runs can be repeated",
            got="a prompt without generator and latents",
            hint="add generator=torch.Generator().manual_seed(0)",
        )
    if generator is None:
        return dict
    state = generator.get_state()

    def again() -> dict[str, Any]:
        own = torch.Generator(generator.device)
        own.set_state(state)
        return {"generator": own}

    return again
