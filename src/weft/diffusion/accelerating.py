"""One line for users: put a policy on a pipeline, watch it, take it off again."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from weft.core.errors import InputError
from weft.diffusion.calls import configuration_of
from weft.diffusion.compat import attach, blocks_of, detach, is_attached, is_offloaded, owner_of
from weft.diffusion.controller import Controller
from weft.diffusion.current import within
from weft.diffusion.denoiser import Denoiser
from weft.diffusion.families import Family, family_of
from weft.diffusion.handover import handover
from weft.diffusion.history import Keep
from weft.diffusion.idle import Idle
from weft.diffusion.learning import Learning
from weft.diffusion.page import run_table, save_run
from weft.diffusion.pair import Disagreement
from weft.diffusion.plan import DenoisePlan
from weft.diffusion.policies.calibrated import Calibrated
from weft.diffusion.policies.fixed import Fixed
from weft.diffusion.policies.mixcache import MixCache
from weft.diffusion.policies.sketch import Sketch
from weft.diffusion.policy import Policy
from weft.diffusion.profile import Profile, load_profile
from weft.diffusion.record import Run
from weft.diffusion.rows import ByRows

__all__ = ["Report", "accelerate", "controller_of", "report", "restore", "session"]

_LOG = logging.getLogger("weft.diffusion")
AS_IT_IS = Keep()
NO_FRAMES: Mapping[str, Any] = MappingProxyType({})
Compiler = Callable[[Callable[..., Any]], Callable[..., Any]]


def accelerate(
    pipe: Any,
    *,
    policy: Policy | DenoisePlan | None = None,
    profile: Profile | str | Path | None = None,
    target_speedup: float | None = None,
    min_psnr: float | None = None,
    sketch_to: Any = None,
    disagreement: Disagreement | None = None,
    idle: str | None = None,
    compile_blocks: bool | str = False,
    keep: Keep = AS_IT_IS,
    family: Family | None = None,
    group: Any = None,
    by_rows: bool = False,
) -> None:
    """Have a pipeline leave out what it can, from its next run on.

    Args:
        pipe: a video pipeline of diffusers'.
        policy: who decides, or a plan that was made before. None for MixCache, after SRDiffusion
            if there is a small relative.
        profile: what calibration learnt of the model, or the file that it was written to.
        target_speedup: over all steps in full; by a profile, or else by what the first run, which
            is in full, shows of the model.
        min_psnr: by a profile: least likeness to the result of all steps in full [dB].
        sketch_to: a pipeline, or its denoiser, of the same family and latent space, which does
            the last steps, or those that the policy gives it.
        disagreement: of the two; a warning says if the last steps are not those to give away.
        idle: device of the one that does not compute, such as "cpu": of the small one until its
            first step, of the large one after its last; None to leave both where they are.
        compile_blocks: whether torch.compile compiles blocks, or by which of its back ends, such
            as "weft". A denoiser that is compiled as a whole cannot leave anything out.
        keep: how values are kept between steps.
        family: what the pipeline is like, if weft does not know it.
        group: of ranks that share a run (context parallel), which then decide alike.
        by_rows: whether each video of a batch is decided by itself, and computed by itself.

    Raises:
        InputError: the pipeline is unknown, has a cache already, or cannot do what is wanted.
        MismatchError: the disagreement is that of another pair.
    """
    asked = {"target_speedup": target_speedup, "min_psnr": min_psnr}
    known = _known(family or family_of(pipe), by_rows=by_rows)
    denoisers = _free(_denoisers(pipe, known), pipe)
    small = None if sketch_to is None else _small(denoisers[0].module, pipe, sketch_to)
    chosen = _policy(policy, profile, asked, has_small=small is not None)
    _require_pair(denoisers, small, disagreement, chosen)
    place = _place(denoisers, small, idle)
    controller = (ByRows if by_rows else Controller)(
        pipeline=weakref.ref(pipe),
        family=known,
        policy=chosen,
        denoisers=[*denoisers, *([] if small is None else [small])],
        keep=keep,
        group=group,
        small_share=1.0 if small is None else _work(small) / _work(denoisers[0]),
    )
    _attach(controller, _compiler(compile_blocks))
    controller.idle = None if place is None or not small else Idle(denoisers, small, place)


def _known(family: Family, *, by_rows: bool) -> Family:
    """The family, of which the rows are known if they have to be."""
    if by_rows and "hidden_states" not in family.batched:
        raise InputError(
            need="the names of arguments that have an entry for each row, for by_rows",
            got=f"Family(batched={family.batched!r})",
            hint='batched=("hidden_states", "encoder_hidden_states", "timestep"), for example',
        )
    return family


def _free(denoisers: list[Denoiser], pipe: object) -> list[Denoiser]:
    """The denoisers of a pipeline, if none of them has hooks."""
    if any(is_attached(denoiser.module) for denoiser in denoisers):
        raise InputError(
            need="a pipeline that is not accelerated yet",
            got=f"{type(pipe).__name__}, which is",
            hint="call weft.diffusion.restore(pipe) first; for another pipeline with the same"
            " denoiser, use weft.diffusion.session(pipe)",
        )
    return denoisers


def _attach(controller: Controller, compiler: Compiler | None) -> None:
    """Put a controller's hooks on its denoisers: on all or on none."""
    done: list[nn.Module] = []
    try:
        for denoiser in controller.denoisers.values():
            attach(
                denoiser.module,
                call=None if denoiser.name == "small" else partial(controller.call, denoiser),
                block=partial(controller.block, denoiser),
                finish=controller.finish,
                owner=controller,
                compiler=compiler,
            )
            done.append(denoiser.module)
    except InputError:
        for module in done:
            detach(module)
        raise


def _compiler(asked: bool | str) -> Compiler | None:
    if asked is False:
        return None
    return partial(torch.compile, backend="inductor" if asked is True else asked, dynamic=False)


def _denoisers(pipe: object, family: Family) -> list[Denoiser]:
    found = [(name, getattr(pipe, name, None)) for name in family.denoisers]
    made = [
        Denoiser(name=name, module=module, num_blocks=len(blocks_of(module)))
        for name, module in found
        if isinstance(module, nn.Module)
    ]
    if not made or not made[0].num_blocks:
        raise InputError(
            need=f"a pipeline with a denoiser of blocks as its {' or '.join(family.denoisers)}",
            got=f"{type(pipe).__name__} without",
            hint="name it in Family(denoisers=...)",
        )
    return made


def _policy(
    policy: Policy | DenoisePlan | None,
    profile: Profile | str | Path | None,
    asked: Mapping[str, float | None],
    *,
    has_small: bool,
) -> Policy:
    speed = asked["target_speedup"]
    if speed is not None and profile is None and policy is None and asked["min_psnr"] is None:
        return Learning(target_speedup=speed)
    if profile is not None or any(value is not None for value in asked.values()):
        if has_small:
            raise InputError(
                need="a profile, or a small model: calibration knows nothing of the latter",
                got="both",
                hint="leave out profile; target_speedup alone learns from the first run",
            )
        if profile is None or policy is not None:
            raise InputError(
                need="a profile for a quality that is asked for, and no policy beside it",
                got="a policy" if policy is not None else "no profile",
                hint="profile = weft.diffusion.calibrate(pipe, prompts) makes one",
            )
        known = profile if isinstance(profile, Profile) else load_profile(profile)
        return Calibrated(profile=known, **asked)
    if isinstance(policy, DenoisePlan):
        return Fixed(plan=policy)
    if policy is None:
        return Sketch(then=MixCache()) if has_small else MixCache()
    if not isinstance(policy, Policy):
        raise InputError(
            need="a policy or a plan",
            got=f"{policy!r}",
            hint="weft.diffusion.MixCache(), for example",
        )
    return policy


def _small(large: nn.Module, pipe: object, sketch_to: object) -> Denoiser:
    module, translate = handover(large, pipe, sketch_to)
    if is_attached(module):
        raise InputError(
            need="a small model that no accelerated pipeline uses",
            got=f"{type(module).__name__}, which one does",
            hint="call weft.diffusion.restore on that pipeline first",
        )
    return Denoiser(
        name="small", module=module, num_blocks=len(blocks_of(module)), translate=translate
    )


def _require_pair(
    large: list[Denoiser], small: Denoiser | None, found: Disagreement | None, policy: Policy
) -> None:
    """Check that a disagreement is this pair's, and tell if a policy gives away other steps."""
    if found is None:
        return
    if small is None:
        raise _without_pair("a disagreement")
    found.require_pair(configuration_of(large[0].module), configuration_of(small.module))
    if isinstance(policy, Sketch | Learning) and not found.keeps_the_premise:
        _LOG.warning(
            "the last steps are given to the small model, as if it were nearest to the large one"
            " there, but %s: use policy=weft.diffusion.Placed(disagreement=..., share=...), which"
            " gives it the steps of best agreement",
            found,
        )


def _place(large: list[Denoiser], small: Denoiser | None, idle: str | None) -> torch.device | None:
    """Where the model that does not compute is kept; None for where it is."""
    if idle is None:
        return None
    if small is None:
        raise _without_pair("an idle place")
    if any(is_offloaded(own.module) for own in (*large, small)):
        raise InputError(
            need="models that weft alone moves between devices, for idle=",
            got="one that diffusers' offloading moves",
            hint="leave out idle=, or call enable_model_cpu_offload and the like on neither"
            " pipeline",
        )
    try:
        place = torch.device(idle)
        if place.type == "meta":
            raise RuntimeError("meta keeps no values")
        torch.empty(0, device=place)
        return place
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            need="a device for the model that does not compute",
            got=f"idle={idle!r}: {error}",
            hint='idle="cpu", for example',
        ) from error


def _without_pair(what: str) -> InputError:
    return InputError(
        need=f"a small model beside the large one, for {what}",
        got="none",
        hint="pass sketch_to=small_pipe to weft.diffusion.accelerate",
    )


def _work(denoiser: Denoiser) -> float:
    """Parameters of a block, which its work grows with."""
    blocks = blocks_of(denoiser.module)
    return sum(p.numel() for block in blocks for p in block.parameters()) / len(blocks)


def restore(pipe: Any) -> None:
    """Have a pipeline be as it was before `accelerate`.

    Raises:
        InputError: it is not accelerated.
    """
    controller = controller_of(pipe)
    for denoiser in controller.denoisers.values():
        detach(denoiser.module)
    if controller.idle is not None:
        controller.idle.end()


def controller_of(pipe: object) -> Controller:
    """Who decides for a pipeline.

    Raises:
        InputError: it is not accelerated.
    """
    parts: Mapping[str, object] = getattr(pipe, "components", {})
    for module in parts.values():
        owner = owner_of(module) if isinstance(module, nn.Module) else None
        if isinstance(owner, Controller):
            return owner
    raise InputError(
        need="a pipeline that is accelerated",
        got=f"{type(pipe).__name__}, which is not",
        hint="call weft.diffusion.accelerate(pipe) first",
    )


class Report:
    """Runs of a pipeline, as they end.

    Attributes:
        runs: in the order in which they ended.
    """

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def table(self) -> str:
        """A row for each step of each run, and below what was saved.

        Raises:
            InputError: no run has ended.
        """
        return run_table(self.runs)

    def save(self, path: str | Path, *, frames: Mapping[str, Any] = NO_FRAMES) -> None:
        """Write a page: what each step computed as a picture, as a table, what was saved.

        Args:
            path: where to; one HTML file that needs no other.
            frames: videos to be shown side by side, by name, such as {"full": video,
                "accelerated": video}: tensors, arrays or lists of PIL's images, as
                `weft.diffusion.page.video_of` takes them.

        Raises:
            InputError: no run has ended, or something is no video.
            FileError: the file cannot be written.
        """
        save_run(self.runs, path, frames)


@contextmanager
def report(pipe: Any) -> Generator[Report]:
    """Watch the runs of a pipeline.

    Raises:
        InputError: it is not accelerated.
    """
    controller, found = controller_of(pipe), Report()
    controller.listeners.append(found.runs.append)
    try:
        yield found
    finally:
        controller.listeners.remove(found.runs.append)


@contextmanager
def session(pipe: Any, name: str = "") -> Generator[None]:
    """Have calls of the denoiser belong to a run of their own.

    Runs in threads of their own are told apart without. Runs that take turns in one thread, and
    pipelines that share the denoiser of an accelerated one, say here whose turn it is.

    Args:
        pipe: whose run it is.
        name: of the run.
    """
    with within(name or str(id(pipe)), pipe):
        yield
