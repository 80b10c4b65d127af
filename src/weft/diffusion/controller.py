"""What happens when a pipeline calls its denoiser: the plan of the step is asked for and followed.

    call of the denoiser
      -> which run, which step?           by session and context; by the noise level where the
                                          pipeline does not count
      -> what to do in it?                the policy's decider, once a step
      -> compute or predict, keep, compare

A prediction is made of the output with the prompt and of what the other one differs by, so that
a step in which only the former was computed makes both better. What a step made with predicted
parts is never kept to predict from: neither the outputs of block steps, nor offsets of steps that
did not compute both outputs.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from weft.core.errors import MismatchError
from weft.diffusion.agreement import Agreement
from weft.diffusion.calls import (
    answer_of,
    configuration_of,
    distance,
    is_guided,
    levels_of,
    output_of,
    position_of,
    with_prompt,
)
from weft.diffusion.compat import BlockCall, Call
from weft.diffusion.current import SESSION
from weft.diffusion.denoiser import Denoiser
from weft.diffusion.families import Family
from weft.diffusion.history import History, Keep
from weft.diffusion.idle import Idle
from weft.diffusion.mixing import mixed_step, residual
from weft.diffusion.plan import Mode, Model, Predictor, StepPlan
from weft.diffusion.policies.fixed import without_guidance
from weft.diffusion.policy import CHANGE, Moment, Policy, RunFacts
from weft.diffusion.record import Run
from weft.diffusion.request import Request, Row, Streams
from weft.diffusion.validity import Validity

__all__ = ["BOTH", "Controller"]

COND, UNCOND, BOTH = "cond", "uncond", "cond_uncond"
"""Names of diffusers' contexts."""


@dataclass(slots=True, kw_only=True)
class _Forward:
    """A denoiser at work, as its blocks see it."""

    request: Request
    denoiser: Denoiser
    branch: str
    weight: int
    ranges: frozenset[tuple[int, int]]
    left_out: tuple[int, int] | None = None
    sums: dict[tuple[int, int], Streams] = field(default_factory=dict[tuple[int, int], Streams])


_FORWARD: ContextVar[_Forward | None] = ContextVar("weft_forward", default=None)
"""What computes right now."""


class Controller:
    """Follows a policy on a pipeline.

    Args:
        pipeline: whose denoisers the hooks are on; weakly, since it holds them.
        family: of the pipeline.
        policy: who decides.
        denoisers: of the pipeline, by name; "small" among them if there is a small relative.
        keep: how values are kept.
        group: of ranks that share a run, which have to decide alike; None for one.
        small_share: work of a small model's block over that of a large one's.
    """

    def __init__(
        self,
        *,
        pipeline: weakref.ref[object],
        family: Family,
        policy: Policy,
        denoisers: Sequence[Denoiser],
        keep: Keep,
        group: Any = None,
        small_share: float = 1.0,
    ) -> None:
        self.family, self.policy = family, policy
        self._pipeline = pipeline
        self.denoisers = {denoiser.name: denoiser for denoiser in denoisers}
        self.listeners: list[Callable[[Run], None]] = []
        self.idle: Idle | None = None
        self._keep, self._small_share = keep, small_share
        self._agreement = Agreement(group)
        self.clock: Callable[[], float] = time.perf_counter
        self._requests: dict[object, Request] = {}

    # ------------------------------------------------------------------ what the hooks call

    def call(self, denoiser: Denoiser, call: Call) -> Any:
        """Answer a call of a denoiser by its pipeline."""
        if call.branch not in (COND, UNCOND, BOTH):
            return call.run(*call.args, **call.kwargs)
        key, pipeline = self._session()
        begun_s = self.clock()
        try:
            request = self._advance(key, pipeline, denoiser, call)
            answer = self._answer(request, self._chosen(request, denoiser), call)
        except BaseException:
            self._over(key)  # the next one starts afresh
            raise
        request.seconds += self.clock() - begun_s
        return answer

    def block(self, denoiser: Denoiser, number: int, call: BlockCall) -> Any:
        """Answer a call of a block."""
        forward = _FORWARD.get()
        if forward is None or forward.denoiser is not denoiser:
            return call.run()
        out = forward.left_out
        if out is not None and out[0] <= number < out[1]:
            return call.answer(self._passed(forward, number, out, call))
        forward.request.blocks += forward.weight
        ranges = [r for r in forward.ranges if r[0] <= number < r[1]]
        given = call.given if ranges else ()
        made = call.run()
        if ranges:
            added = tuple(a - b for a, b in zip(call.streams(made), given, strict=True))
            for own in ranges:
                before = forward.sums.get(own)
                forward.sums[own] = (
                    added
                    if before is None
                    else tuple(a + b for a, b in zip(before, added, strict=True))
                )
        return made

    def finish(self) -> None:
        """The pipeline has come to its end."""
        key, pipeline = self._session()
        request = self._over(key)
        if request is None:
            return
        self._end_step(request)
        run = Run(
            pipeline=type(pipeline).__name__,
            policy=self.policy.name,
            steps=tuple(request.steps),
            has_guidance=bool(request.has_guidance),
            num_blocks=next(iter(self.denoisers.values())).num_blocks,
            small_share=self._small_share,
            kept_bytes=request.most_bytes,
            row=key.row if isinstance(key, Row) else None,
        )
        request.decider.end(run.steps)
        for listener in self.listeners:
            listener(run)

    # --------------------------------------------------------------------- which run and step

    def _session(self) -> tuple[object, object]:
        session = SESSION.get()
        return (threading.get_ident(), self._pipeline()) if session is None else session

    def _over(self, key: object) -> Request | None:
        """A run is over, if there is one; without another one, models are put back."""
        request = self._requests.pop(key, None)
        if self.idle is not None:
            self.idle.rest(lambda: not self._requests)
        return request

    def _advance(self, key: object, pipeline: object, denoiser: Denoiser, call: Call) -> Request:
        """The run that a call belongs to, in the step that it belongs to."""
        position, levels = position_of(call.kwargs), levels_of(pipeline)
        request = self._requests.get(key)
        if request is not None and levels is not request.levels:
            if self._goes_on(request, call, position):
                raise MismatchError(
                    need="one scheduler, with the same timesteps, for all steps of a run",
                    got=f"other timesteps after step {request.step}",
                    hint="change the scheduler between runs",
                )
            request = None
        if request is None:
            self._over(key)
            request = self._requests[key] = self._begun(pipeline, levels, denoiser, call)
        step = self._step_of(request, call, position)
        if step != request.step:
            if request.step >= 0:
                self._end_step(request)
            request.begin_step(step, position)
            self._decide(request, denoiser)
        request.seen.add(call.branch)
        return request

    @staticmethod
    def _goes_on(request: Request, call: Call, position: float) -> bool:
        """Whether a call is the next of a run, rather than the first of another."""
        if request.step + 1 >= len(request.levels):
            return False
        if call.step is not None:
            return call.step == request.step + 1
        before = request.steps[0].position if request.steps else request.position
        return (position - request.position) * (request.position - before) > 0

    @staticmethod
    def _step_of(request: Request, call: Call, position: float) -> int:
        """Number of the step that a call belongs to."""
        if call.step is not None:
            return call.step
        # The same branch again is a solver that asks twice at a level.
        is_same = position == request.position and call.branch not in request.seen
        return request.step if request.step >= 0 and is_same else request.step + 1

    def _begun(self, pipeline: object, levels: Tensor, denoiser: Denoiser, call: Call) -> Request:
        guided = is_guided(pipeline, self.family)
        facts = RunFacts(
            pipeline=type(pipeline).__name__,
            num_steps=len(levels),
            num_blocks=denoiser.num_blocks,
            has_small="small" in self.denoisers,
            small_share=self._small_step(denoiser),
            has_guidance=guided,
            positions=tuple(float(level) for level in levels),
            validity=Validity(
                pipeline=type(pipeline).__name__,
                denoiser=configuration_of(denoiser.module),
                scheduler=configuration_of(getattr(pipeline, "scheduler", None)),
                guidance=float(getattr(pipeline, "guidance_scale", 1.0)),
                shape=tuple(call.kwargs["hidden_states"].shape[1:]),
            ),
        )
        return Request(
            keep=self._keep,
            levels=levels,
            decider=self._agreement.each(lambda: self.policy.begin(facts)),
            clock=self.clock,
            has_guidance=guided,
        )

    def _small_step(self, denoiser: Denoiser) -> float:
        small = self.denoisers.get("small", denoiser)
        return self._small_share * small.num_blocks / denoiser.num_blocks

    # ------------------------------------------------------------------------------ deciding

    def _decide(self, request: Request, denoiser: Denoiser) -> None:
        guided = bool(request.has_guidance)
        possible = request.denoising(denoiser.name).possible(has_guidance=guided)
        moment = Moment(
            step=request.step,
            position=request.position,
            possible=possible,
            has_guidance=request.has_guidance,
        )
        plan = self._agreement.first(lambda: request.decider.decide(moment))
        if plan.mode is Mode.CFG and request.step > 0 and not guided:
            raise without_guidance(type(self._pipeline()).__name__)
        request.plan = plan
        chosen = self._chosen(request, denoiser)
        if plan.blocks is not None and chosen is not denoiser:
            plan = self._in_small(plan, chosen.num_blocks)
        own = request.denoising(chosen.name).possible(has_guidance=guided, blocks=plan.blocks)
        request.plan = request.settled(plan, own)
        if self.idle is not None and request.plan.mode is not Mode.STEP:
            is_small = request.plan.model is Model.SMALL
            self.idle.turn(self.denoisers["small"] if is_small else denoiser, self._is_needed)

    def _is_needed(self, model: Model) -> bool:
        """Whether any run computes with a model in its step, or may in a later one."""
        return any(
            own.plan.model is model or own.decider.needs(model, own.step + 1)
            for own in self._requests.values()
        )

    def _in_small(self, plan: StepPlan, num_blocks: int) -> StepPlan:
        """A block step of the small model, which may have other ranges."""
        ranges = sorted(self.policy.ranges(num_blocks))
        if plan.blocks in ranges or not ranges:
            return plan
        return replace(plan, blocks=ranges[0])

    def _chosen(self, request: Request, denoiser: Denoiser) -> Denoiser:
        """Who does the step; a mixed one is predicted from what the large one did."""
        is_small = request.plan.model is Model.SMALL and request.plan.mode is not Mode.MIXED
        return self.denoisers["small"] if is_small else denoiser

    def _end_step(self, request: Request) -> None:
        if request.has_guidance is None:
            request.has_guidance = UNCOND in request.seen
        distances = self._agreement.mean(request.measured())
        request.end_step(distances)
        if distances:
            request.decider.observe(request.step, request.plan, distances)

    # ------------------------------------------------------------- computing and predicting

    def _answer(self, request: Request, denoiser: Denoiser, call: Call) -> Any:
        """The output of a call, as the denoiser would return it."""
        mode = request.plan.mode
        if mode is Mode.STEP:
            return answer_of(self._predicted(request, denoiser, call.branch), call.kwargs)
        if mode in (Mode.CFG, Mode.MIXED) and call.branch == UNCOND:
            output = self._without_prompt(request, denoiser)
            return answer_of(output, call.kwargs)
        is_doubled = call.branch == BOTH and bool(request.has_guidance)
        if mode is Mode.MIXED or (mode is Mode.CFG and is_doubled):
            output = self._with_prompt(request, denoiser, call, is_doubled)
            if is_doubled:
                output = torch.cat([self._without_prompt(request, denoiser), output])
            return answer_of(output, call.kwargs)
        without = self._without_blocks(request, denoiser, call)
        answer = self._computed(request, denoiser, call, weight=2 if is_doubled else 1)
        for blocks, output in without.items():
            error = output - output_of(answer)
            self._tell(request, f"without {blocks[0]}-{blocks[1]} {call.branch}", (error,))
        if mode is not Mode.BLOCK:
            self._keep_answer(request, denoiser, call.branch, output_of(answer), is_doubled)
            self._keep_residual(request, denoiser, call)
            self._tell(request, "state", (call.kwargs["hidden_states"],))
        if request.decider.asks_small and self.idle is None:
            asked = output_of(self._computed(request, self.denoisers["small"], call, weight=0))
            self._tell(request, f"small {call.branch}", (asked,))
        return answer

    def _with_prompt(
        self, request: Request, denoiser: Denoiser, call: Call, is_doubled: bool
    ) -> Tensor:
        """The output with the prompt, the only one that is computed."""
        if is_doubled:
            call = replace(call, kwargs=with_prompt(call.kwargs, self.family.batched))
        if request.plan.mode is Mode.MIXED:
            request.output = self._mixed(request, denoiser, call)
            return request.output
        output = output_of(self._computed(request, denoiser, call, weight=1))
        self._keep_output(request, denoiser, output)
        self._keep_residual(request, denoiser, call)
        return output

    def _mixed(self, request: Request, denoiser: Denoiser, call: Call) -> Tensor:
        """Magnitudes of the small model, directions of the large one's last residual."""
        small, latents = self.denoisers["small"], call.kwargs["hidden_states"]
        found = output_of(self._computed(request, small, call, weight=1))
        return mixed_step(request, found, latents, denoiser.name, self.family.channels)

    def _computed(self, request: Request, denoiser: Denoiser, call: Call, *, weight: int) -> Any:
        """Let a denoiser compute."""
        plan = request.plan
        forward = _Forward(
            request=request,
            denoiser=denoiser,
            branch=call.branch,
            weight=weight,
            ranges=self.policy.ranges(denoiser.num_blocks)
            if plan.mode is Mode.FULL
            else frozenset(),
            left_out=plan.blocks,
        )
        back: Callable[[Tensor], Tensor] | None = None
        run = call.run
        if denoiser.name == "small":
            run = denoiser.module
            if denoiser.translate is not None:
                call, back = denoiser.translate(call)
        token = _FORWARD.set(forward)
        try:
            answer = run(*call.args, **call.kwargs)
        finally:
            _FORWARD.reset(token)
        request.outputs += weight
        for own, added in forward.sums.items():
            history = request.denoising(denoiser.name).sum_of(own, call.branch)
            self._compare(request, Mode.BLOCK.value, history, added)
            history.push(request.position, added)
        return answer if back is None else answer_of(back(output_of(answer)), call.kwargs)

    def _without_blocks(
        self, request: Request, denoiser: Denoiser, call: Call
    ) -> dict[tuple[int, int], Tensor]:
        """What a call would answer without each range that is watched."""
        found: dict[tuple[int, int], Tensor] = {}
        watcher = request.decider.watcher
        ranges = () if watcher is None else watcher.ranges
        for blocks in ranges:
            if not len(request.denoising(denoiser.name).sum_of(blocks, call.branch)):
                continue
            own, done = request.plan, (request.outputs, request.blocks)
            request.plan = StepPlan(mode=Mode.BLOCK, blocks=blocks)
            try:
                found[blocks] = output_of(self._computed(request, denoiser, call, weight=0))
            finally:
                request.plan, (request.outputs, request.blocks) = own, done
        return found

    @staticmethod
    def _tell(request: Request, kind: str, value: Streams) -> None:
        if request.decider.watcher is not None:
            request.decider.watcher.computed(request.step, kind, value)

    def _passed(
        self, forward: _Forward, number: int, out: tuple[int, int], call: BlockCall
    ) -> Streams:
        """What a block that is left out answers: the first adds what all of them would."""
        if number != out[0]:
            return call.given
        request = forward.request
        history = request.denoising(forward.denoiser.name).sum_of(out, forward.branch)
        weights = request.weights.blocks
        added = history.predict(request.position, request.plan.predictor, weights)
        return tuple(a + b for a, b in zip(call.given, added, strict=True))

    def _predicted(self, request: Request, denoiser: Denoiser, branch: str) -> Tensor:
        if branch == UNCOND:
            return self._without_prompt(request, denoiser)
        histories = request.denoising(denoiser.name)
        if request.output is None:
            (request.output,) = histories.outputs.predict(
                request.position, request.plan.predictor, request.weights.outputs
            )
        if branch == COND or not request.has_guidance:
            return request.output
        return torch.cat([self._without_prompt(request, denoiser), request.output])

    def _without_prompt(self, request: Request, denoiser: Denoiser) -> Tensor:
        """The output without the prompt, from the one with it."""
        assert request.output is not None, "the output with the prompt comes first"
        offsets = request.denoising(denoiser.name).offsets
        (offset,) = offsets.predict(
            request.position, request.plan.predictor, request.weights.offsets
        )
        return request.output + offset

    def _keep_answer(
        self, request: Request, denoiser: Denoiser, branch: str, output: Tensor, is_doubled: bool
    ) -> None:
        if is_doubled:
            without, output = output.chunk(2)
            self._keep_output(request, denoiser, output)
            self._keep_offset(request, denoiser, without - output)
        elif branch != UNCOND:
            self._keep_output(request, denoiser, output)
        else:
            assert request.output is not None, "the output with the prompt comes first"
            self._keep_offset(request, denoiser, output - request.output)

    def _keep_output(self, request: Request, denoiser: Denoiser, output: Tensor) -> None:
        history = request.denoising(denoiser.name).outputs
        self._compare(request, Mode.STEP.value, history, (output,))
        if self.policy.judged is not None and len(history):
            last = history.predict(request.position, Predictor.REUSE)
            request.distances.setdefault(CHANGE, []).append(distance(last, (output,)))
        history.push(request.position, (output,))
        request.output = output
        self._tell(request, "output", (output,))

    def _keep_residual(self, request: Request, denoiser: Denoiser, call: Call) -> None:
        if not self.policy.mixes or denoiser.name == "small" or call.branch == UNCOND:
            return
        assert request.output is not None, "the output with the prompt is kept first"
        latents = call.kwargs["hidden_states"][-len(request.output) :]  # those with the prompt
        added = residual(request.output, latents, self.family.channels)
        request.denoising(denoiser.name).residuals.push(request.position, (added,))

    def _keep_offset(self, request: Request, denoiser: Denoiser, offset: Tensor) -> None:
        history = request.denoising(denoiser.name).offsets
        self._compare(request, Mode.CFG.value, history, (offset,))
        history.push(request.position, (offset,))
        self._tell(request, "offset", (offset,))

    def _compare(self, request: Request, name: str, history: History, found: Streams) -> None:
        """Note how far a prediction would have been from what was computed."""
        judged = self.policy.judged
        if judged is not None and len(history):
            predicted = history.predict(request.position, judged)
            request.distances.setdefault(name, []).append(distance(predicted, found))
