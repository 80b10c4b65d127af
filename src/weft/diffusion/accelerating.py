"""One line for users: put a policy on a pipeline, watch it, take it off again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from weft.core.errors import InputError
from weft.diffusion.compat import attach, blocks_of, detach, is_attached, owner_of
from weft.diffusion.controller import SESSION, Controller, Denoiser
from weft.diffusion.families import Family, family_of
from weft.diffusion.handover import handover
from weft.diffusion.history import Keep
from weft.diffusion.plan import DenoisePlan
from weft.diffusion.policies.calibrated import Calibrated
from weft.diffusion.policies.fixed import Fixed
from weft.diffusion.policies.mixcache import MixCache
from weft.diffusion.policies.sketch import Sketch
from weft.diffusion.policy import Policy
from weft.diffusion.profile import Profile, load_profile
from weft.diffusion.record import Run

__all__ = ["Report", "accelerate", "controller_of", "report", "restore", "session"]

AS_IT_IS = Keep()
Compiler = Callable[[Callable[..., Any]], Callable[..., Any]]


def accelerate(
    pipe: Any,
    *,
    policy: Policy | DenoisePlan | None = None,
    profile: Profile | str | Path | None = None,
    target_speedup: float | None = None,
    min_psnr: float | None = None,
    sketch_to: Any = None,
    compile_blocks: bool | str = False,
    keep: Keep = AS_IT_IS,
    family: Family | None = None,
    group: Any = None,
) -> None:
    """Have a pipeline leave out what it can, from its next run on.

    Args:
        pipe: a video pipeline of diffusers'.
        policy: who decides what each step computes, or a plan that was made before. None for
            MixCache, after SRDiffusion if there is a small relative.
        profile: what calibration learnt of the model, or the file that it was written to.
        target_speedup: by a profile: over all steps in full.
        min_psnr: by a profile: least likeness to the result of all steps in full [dB].
        sketch_to: a pipeline, or its denoiser, of the same family and latent space, which does
            the last steps.
        compile_blocks: whether blocks are compiled by torch.compile, or the name of its back end,
            such as "weft". A denoiser that is compiled as a whole cannot leave anything out.
        keep: how values are kept between steps.
        family: what the pipeline is like, if weft does not know it.
        group: of ranks that share a run (context parallel), which then decide alike.

    Raises:
        InputError: the pipeline is unknown, has a cache already, or cannot do what the policy
            wants.
    """
    asked = {"target_speedup": target_speedup, "min_psnr": min_psnr}
    known = family or family_of(pipe)
    denoisers = _free(_denoisers(pipe, known), pipe)
    large = denoisers[0]
    small = None if sketch_to is None else _small(large.module, pipe, sketch_to)
    controller = Controller(
        pipeline=weakref.ref(pipe),
        family=known,
        policy=_policy(policy, profile, asked, has_small=small is not None),
        denoisers=denoisers if small is None else [*denoisers, small],
        keep=keep,
        group=group,
        small_share=1.0 if small is None else _work(small.module) / _work(large.module),
    )
    _attach(controller, _compiler(compile_blocks))


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
    if profile is not None or any(value is not None for value in asked.values()):
        if profile is None or policy is not None:
            raise InputError(
                need="a profile, and no policy, for a speed or a quality that is asked for",
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


def _work(module: nn.Module) -> float:
    """Parameters of a block, which its work grows with."""
    blocks = blocks_of(module)
    return sum(p.numel() for block in blocks for p in block.parameters()) / len(blocks)


def restore(pipe: Any) -> None:
    """Have a pipeline be as it was before `accelerate`.

    Raises:
        InputError: it is not accelerated.
    """
    for denoiser in controller_of(pipe).denoisers.values():
        detach(denoiser.module)


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
    token = SESSION.set((name or str(id(pipe)), pipe))
    try:
        yield
    finally:
        SESSION.reset(token)
