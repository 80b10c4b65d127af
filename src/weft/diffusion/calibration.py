"""Learn what shortcuts do to a model, by running it on some prompts.

    1. a full run of each prompt: what is computed at every step, in sketches, and what it takes
    2. runs in which one step is predicted: what its error does to the result
    3. runs of some plans that follow from these: what becomes of predictions

The last are kept as corrections. A plan does better on what it was made from than on anything else;
of three prompts or more, half are kept for the runs that correct.
"""

from __future__ import annotations

import datetime
import inspect
import logging
import math
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weft.core.errors import InfeasibleError, InputError
from weft.diffusion.accelerating import accelerate, controller_of, report, restore
from weft.diffusion.compat import blocks_of
from weft.diffusion.costs import USUAL, Costs, fitted_costs
from weft.diffusion.dynamics import Responses
from weft.diffusion.families import family_of
from weft.diffusion.likeness import Check
from weft.diffusion.plan import DenoisePlan, Mode, Predictor, StepPlan
from weft.diffusion.policies.fixed import Fixed
from weft.diffusion.policy import Decider, Policy, RunFacts, inner_blocks
from weft.diffusion.profile import FewerSteps, Profile
from weft.diffusion.record import Run
from weft.diffusion.recording import Recording
from weft.diffusion.search import STYLES, Style
from weft.diffusion.sketching import Sketcher
from weft.diffusion.surrogate import Surrogate
from weft.diffusion.watching import Watched

__all__ = ["calibrate"]

FULL = StepPlan()
LEAST_STEPS = 4
"""Of a run that can be calibrated: two that are computed, one that is predicted, a last one."""
_log = logging.getLogger("weft.diffusion")

BUSY = 1.15
"""How many times as long as another full run of the same prompt one may take. Chosen: more than
what caches do, less than what another program on the same cores does."""
SPEEDUPS = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
"""Of plans that are run to see what becomes of predictions. Measured: a style of search that is
best at 4 times the speed can be 10 dB behind at 6."""
SHOWN_RANGE = 1.0
"""Of the values of videos that diffusers' pipelines give as numbers: from 0 to 1."""


def calibrate(
    pipe: Any,
    prompts: Sequence[Mapping[str, Any]],
    *,
    blocks: Sequence[tuple[int, int]] | None = None,
    probes: int = 6,
    speedups: Sequence[float] = SPEEDUPS,
    value_range: float | None = None,
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> Profile:
    """Run a pipeline on some prompts, and say what was learnt.

    Args:
        pipe: a pipeline that weft knows, not accelerated.
        prompts: what it is called with, for each of some runs; each should have a generator, or
            latents, so that runs can be repeated. Of three or more, the last half is not learnt
            from, but only tells what becomes of predictions. Likeness is that of what they ask for:
            of videos where their `output_type` is "np" or "pt", or else of latents.
        blocks: ranges that block steps may leave out; None for all but the first and the last.
        probes: steps in which an error is injected.
        speedups: of plans that are run to see what becomes of predictions; a quality is asked for
            in vain beyond the highest.
        value_range: from the least to the greatest value that results have, to which likeness is
            relative; None for 1 of videos, and for what the full runs' latents span.
        progress: told what is being done, and how much of it is done.

    Raises:
        InputError: there is no prompt, the pipeline is unknown, or a figure makes no sense.
    """
    if not prompts or probes < 1:
        raise InputError(
            need="at least one prompt and one probe",
            got=f"{len(prompts)} prompts, {probes} probes",
            hint="four prompts tell enough",
        )
    if value_range is not None and not 0.0 < value_range < math.inf:
        raise InputError(
            need="a value_range above 0",
            got=f"{value_range}",
            hint="leave it out for videos; 2.0 for latents that are videos from -1 to 1",
        )
    if not speedups or not all(1.0 < own < math.inf for own in speedups):
        raise InputError(
            need="speedups above 1 to check",
            got=f"{tuple(speedups)}",
            hint="leave them out, or give (1.5, 2.0, 3.0), for example",
        )
    asked = _Asked(
        blocks=blocks, probes=probes, speedups=tuple(sorted(set(speedups))), value_range=value_range
    )
    return _Calibration(pipe, prompts, asked, progress).run()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """How a pipeline is calibrated, as `calibrate` takes it."""

    blocks: Sequence[tuple[int, int]] | None
    probes: int
    speedups: tuple[float, ...]
    value_range: float | None


@dataclass(frozen=True, kw_only=True)
class _Seen(Policy):
    """A plan that is followed while somebody watches."""

    plan: DenoisePlan | None = None
    watcher: Watched
    kept: frozenset[tuple[int, int]] = frozenset()
    facts: list[RunFacts] = field(default_factory=list[RunFacts])

    @property
    def name(self) -> str:
        return "watched"

    def ranges(self, num_blocks: int) -> frozenset[tuple[int, int]]:
        return self.kept

    def begin(self, facts: RunFacts) -> Decider:
        self.facts.append(facts)
        plan = self.plan or DenoisePlan(steps=(FULL,) * facts.num_steps)
        made = Fixed(plan=plan).begin(facts)
        made.watcher = self.watcher
        return made


def _now() -> float:
    """Seconds, when all that was queued on a GPU is done.

    Of one thread on a processor, those that it had: other programs do not make a step longer then.
    """
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def _probed(steps: int, count: int) -> list[int]:
    """Steps in which an error is injected: more of the early ones, which decide what there is."""
    shares = np.linspace(0.0, 1.0, count) ** 1.7
    return sorted({max(1, min(round(1 + share * (steps - 3)), steps - 1)) for share in shares})


def _one_step(own: StepPlan, at: int, steps: int) -> DenoisePlan:
    return DenoisePlan(steps=tuple(own if n == at else FULL for n in range(steps)))


class _Calibration:
    def __init__(
        self,
        pipe: Any,
        prompts: Sequence[Mapping[str, Any]],
        asked: _Asked,
        progress: Callable[[str, float], None],
    ) -> None:
        count = len(blocks_of(getattr(pipe, family_of(pipe).denoisers[0])))
        inner = inner_blocks(count)
        whole = [] if inner is None else [inner]
        self._pipe, self._prompts, self._asked = pipe, list(prompts), asked
        self._ranges = list(whole if asked.blocks is None else asked.blocks)
        self._progress = progress
        apart = len(prompts) // 2 if len(prompts) > 2 else 0
        self._learnt = range(len(prompts) - apart)
        self._checked_on = range(len(prompts) - apart, len(prompts)) if apart else self._learnt
        self._sketcher = Sketcher()
        self._results: list[Tensor] = []
        self._whole_s: list[list[float]] = [[] for _ in prompts]
        self._states = [_noise_of(prompt) for prompt in prompts]

    def run(self) -> Profile:
        recordings, facts = self._record()
        recordings = self._probe(recordings)
        costs = self._costs(recordings[0])
        profile = Profile(
            holds_for=facts.validity,
            recordings=tuple(recordings),
            costs=costs,
            value_range=self._asked.value_range or self._span(),
            provenance=_provenance(self._pipe),
        )
        return self._checked(profile)

    def _span(self) -> float:
        """From the least to the greatest value of what is asked for."""
        if any(prompt.get("output_type", "latent") != "latent" for prompt in self._prompts):
            return SHOWN_RANGE
        return max(float(r.max() - r.min()) for r in self._results)

    # ------------------------------------------------------------------------------- runs

    def _called(
        self, number: int, policy: Policy | DenoisePlan, **changed: Any
    ) -> tuple[Tensor, Run, float]:
        """The result of a run of a prompt, what it did, and what it took."""
        accelerate(self._pipe, policy=policy)
        try:
            controller_of(self._pipe).clock = _now
            with report(self._pipe) as found:
                result, seconds = self._timed(number, **changed)
        finally:
            restore(self._pipe)
        return result, found.runs[0], seconds

    def _timed(self, number: int, **changed: Any) -> tuple[Tensor, float]:
        prompt = {**self._prompts[number], **self._states[number](), **changed}
        prompt.setdefault("output_type", "latent")
        begun = _now()
        with torch.no_grad():
            result = self._pipe(**prompt).frames
        return torch.as_tensor(result), _now() - begun

    def _record(self) -> tuple[list[Recording], RunFacts]:
        recordings: list[Recording] = []
        seen: list[RunFacts] = []
        for number, prompt in enumerate(self._prompts):
            self._progress("full runs", number / len(self._prompts))
            guidance = _guidance_of(self._pipe, prompt)
            ranges = self._ranges if number in self._learnt else []
            watched = Watched(self._sketcher, ranges, guidance)
            policy = _Seen(kept=frozenset(ranges), facts=seen, watcher=watched)
            result, _, _ = self._called(number, policy, output_type="latent")
            self._require_alike(seen[0], seen[-1])
            self._results.append(result)
            if number in self._learnt:
                recordings.append(watched.recording(seen[-1].positions, result))
        return recordings, seen[-1]

    @staticmethod
    def _require_alike(first: RunFacts, other: RunFacts) -> None:
        """One profile is of one kind of run."""
        first.validity.require(other.validity)
        if first.positions != other.positions or first.num_steps < LEAST_STEPS:
            raise InputError(
                need=f"prompts of the same steps, at least {LEAST_STEPS} of them",
                got=f"{first.num_steps} and {other.num_steps} steps",
                hint="give all prompts the same num_inference_steps",
            )

    def _probe(self, recordings: list[Recording]) -> list[Recording]:
        """What the model makes of errors: runs in which one step is predicted are recorded."""
        steps = recordings[0].num_steps
        chosen = _probed(steps, self._asked.probes)
        responses = Responses(steps)
        own = StepPlan(mode=Mode.STEP, predictor=Predictor.REUSE)
        plans = {step: _one_step(own, step, steps) for step in chosen}
        errors: dict[int, list[float]] = defaultdict(list)
        for number, recording in enumerate(recordings):
            for at, step in enumerate(chosen):
                self._progress("probes", (number + at / len(chosen)) / len(recordings))
                watched = Watched(self._sketcher, (), recording.guidance)
                seen = _Seen(plan=plans[step], watcher=watched)
                result, _, _ = self._called(number, seen, output_type="latent")
                errors[step].append(float((result - self._results[number]).square().mean()))
                disturbed = watched.recording(recording.positions[:-1].tolist())
                responses.add(disturbed, recording, step)
        found = [replace(own, responses=responses.found()) for own in recordings]
        surrogate = Surrogate(found)
        expected = [surrogate.mean_square(plans[step].steps) for step in chosen]
        logs = [
            0.5 * math.log(max(mean(errors[step]), 1e-18) / max(wanted, 1e-18))
            for step, wanted in zip(chosen, expected, strict=True)
        ]
        gains = np.exp(np.interp(np.arange(steps), chosen, logs))
        return [replace(own, gains=gains) for own in found]

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
        for number in self._learnt:
            _, run, seconds = self._called(number, plan)
            for step in run.steps[1:]:
                taken[step.done.mode].append(step.seconds)
            around.append((seconds - sum(step.seconds for step in run.steps)) / steps)
        whole = median(taken[Mode.FULL])
        shares = {mode: min(1.0, median(own) / whole) for mode, own in taken.items()}
        shares = {**{mode: USUAL.get(mode, 1.0) for mode in modes}, **shares}
        return Costs(
            full_s=whole, share={**shares, Mode.FULL: 1.0}, around_s=max(0.0, median(around))
        )

    def _checked(self, profile: Profile) -> Profile:
        """The profile with what became of some plans, and of fewer steps in their place.

        For each speed a plan of every style is run. What steps take is fitted to all of these runs.
        """
        steps, tried, fewer = profile.recordings[0].num_steps, list[_Tried](), list[_Tried]()
        followed = _Tried(DenoisePlan(steps=(FULL,) * steps))  # what it takes that nothing is saved
        self._run_all(profile, [followed])
        speedups = self._asked.speedups
        for at, speedup in enumerate(speedups):
            self._progress("checks", at / len(speedups))
            styles = {style: _plan_for(profile, speedup, style) for style in STYLES}
            own = [_Tried(p, style) for style, p in styles.items() if p is not None]
            count = self._fewer(steps, speedup)
            # Of few steps, several speeds ask for as many.
            if count is not None and all(len(known.plan.steps) != count for known in fewer):
                fewer.append(_Tried(DenoisePlan(steps=(FULL,) * count)))
                own.append(fewer[-1])
            self._run_all(profile, own)
            tried += [one for one in own if one.style is not None]
        self._progress("checks", 1.0)
        _warn_if_busy([self._whole_s[number] for number in self._checked_on])
        runs = [(t.plan.steps, ratio) for t in (*tried, followed) for ratio in t.ratios]
        costs = fitted_costs(profile.costs, runs)
        return replace(
            profile,
            costs=costs,
            checks=tuple(t.check(costs, profile.predicted_db(t.plan.steps)) for t in tried),
            fewer_steps=tuple(
                FewerSteps(steps=len(t.plan.steps), speedup=t.speedup(), psnr_db=t.mean_db())
                for t in fewer
            ),
        )

    def _fewer(self, steps: int, speedup: float) -> int | None:
        """So few steps that all of them are as fast; None where prompts list their steps."""
        listed = any(
            prompt.get(name) is not None
            for prompt in self._prompts
            for name in ("timesteps", "sigmas")
        )
        count = max(1, round(steps / speedup))
        return None if listed or count == steps else count

    def _run_all(self, profile: Profile, plans: Sequence[_Tried]) -> None:
        """Run some plans for each prompt, and a full run, not accelerated, just before."""
        steps = profile.recordings[0].num_steps
        for number in self._checked_on:
            whole, full_s = self._timed(number)
            self._whole_s[number].append(full_s)
            for own in plans:
                count = len(own.plan.steps)
                changed = {} if count == steps else {"num_inference_steps": count}
                result, _, seconds = self._called(number, own.plan, **changed)
                error = (result - whole).double().square()
                squares = error.flatten(1).mean(1).tolist()
                own.ratios.append(seconds / full_s)
                own.videos_db += [profile.plain_db(square) for square in squares]


@dataclass(slots=True)
class _Tried:
    """A plan that is run to see what becomes of predictions.

    Attributes:
        plan: what is run.
        style: of the search; None for fewer steps in full.
        ratios: what its runs took over all steps in full just before, not accelerated, by prompt:
            next to each other, both have what else a machine does.
        videos_db: likeness of each video of each prompt to the full run's [dB].
    """

    plan: DenoisePlan
    style: Style | None = None
    ratios: list[float] = field(default_factory=list[float])
    videos_db: list[float] = field(default_factory=list[float])

    def mean_db(self) -> float:
        """Likeness, the mean over videos [dB]."""
        return mean(self.videos_db)

    def speedup(self) -> float:
        """Over all steps in full."""
        return 1.0 / median(self.ratios)

    def check(self, costs: Costs, predicted_db: float) -> Check:
        """What was predicted, and what came of it."""
        assert self.style is not None, "plans of profiles have one"
        count = len(self.videos_db)
        return Check(
            speedup=costs.speedup(self.plan.steps),
            psnr_db=predicted_db,
            got_speedup=self.speedup(),
            got_psnr_db=self.mean_db(),
            doubt_db=stdev(self.videos_db) / math.sqrt(count) if count > 1 else 0.0,
            videos=count,
            style=self.style,
        )


def _warn_if_busy(whole_s: Sequence[Sequence[float]]) -> None:
    """Say so where full runs of a prompt took so different times that nothing else is sure."""
    worst = max(whole_s, key=lambda own: max(own) / max(min(own), 1e-9))
    if max(worst) > BUSY * min(worst):
        _log.warning(
            "the machine was busy: one and the same run took from %.3g to %.3g s, and predicted"
            " speeds may be off by as much; calibrate again when it is not",
            min(worst),
            max(worst),
        )


def _plan_for(profile: Profile, speedup: float, style: Style) -> DenoisePlan | None:
    try:
        return profile.plan(target_speedup=speedup, style=style)
    except InfeasibleError:
        return None


def _guidance_of(pipe: Any, prompt: Mapping[str, Any]) -> float:
    """What a prompt asks for, or what the pipeline takes where it asks for nothing."""
    names = ("true_cfg_scale", "guidance_scale")
    taken = inspect.signature(type(pipe).__call__).parameters
    asked = [prompt[name] for name in names if name in prompt]
    usual = [taken[name].default for name in names if name in taken]
    return float(next(iter([*asked, *usual]), 1.0))


def _provenance(pipe: Any) -> str:
    """Machine, versions and date."""
    device = torch.device(getattr(pipe, "device", "cpu"))
    is_gpu = device.type == "cuda"
    hardware = torch.cuda.get_device_name(device) if is_gpu else f"{platform.machine()} CPU"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"{hardware}, torch {torch.__version__}, {today}"


def _noise_of(prompt: Mapping[str, Any]) -> Callable[[], dict[str, Any]]:
    """What gives each run of a prompt the same noise."""
    generator = prompt.get("generator")
    if prompt.get("output_type", "latent") not in ("latent", "np", "pt") or not prompt.get(
        "return_dict", True
    ):
        raise InputError(
            need="prompts that give latents or numbers, to be compared",
            got="output_type or return_dict that give something else",
            hint="leave both out",
        )
    if isinstance(generator, list):
        raise InputError(
            need="one generator for each prompt",
            got="a list of generators",
            hint="generator=torch.Generator().manual_seed(0) serves a batch as well",
        )
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
