"""A large denoiser that sketches and a small one that renders, against the large one alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import Any

from benchmarks.denoise.contestant import Contestant, accelerated, speedups
from benchmarks.denoise.quality import psnr
from benchmarks.denoise.scene import Scene
from benchmarks.denoise.work import counted
from recipes.moving_shapes import denoiser
from weft.diffusion import MixCache, Sketch

__all__ = ["LARGE", "SMALL", "Rendered", "measure_sketches"]

LARGE, SMALL, ASKED = "large alone", "small alone", "asked for"
LONG = MixCache(longest=6, bounds=(0.05, 0.2))
"""Leaves out more than usual: where a small model ends the run, the large one's steps are few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A contestant.

    Attributes:
        name: which.
        speedup: processor time of the large model alone over its own.
        work: multiplications, over those of the large model alone.
        adherence: share of the prompt that is seen.
        psnr_db: likeness to the large model's videos.
    """

    name: str
    speedup: float
    work: float
    adherence: float
    psnr_db: float


def measure_sketches(name: str, seeds: Sequence[int], *, batch: int, rounds: int) -> list[Rendered]:
    """Every way to share out steps between a large denoiser and its small relative.

    Args:
        name: of the large one.
        seeds: of prompts and noise.
        batch: videos of a call.
        rounds: how often each is timed.
    """
    contestants = _contestants(name)
    scenes = [Scene(name, seed=seed, batch=batch) for seed in seeds]
    wanted = [scene.call() for scene in scenes]
    pipes = [Scene(name, seed=0, batch=1).pipe for _ in contestants]
    work: list[list[int]] = [[] for _ in contestants]
    quality: list[list[tuple[float, float]]] = [[] for _ in contestants]
    with ExitStack() as stack:
        pairs = list(zip(contestants, pipes, strict=True))
        smalls: list[Any] = [stack.enter_context(own.on(pipe)) for own, pipe in pairs]
        for own, pipe in pairs:
            if own.name.startswith(ASKED):
                scenes[0].on(pipe).call()  # the first run is learnt from
        for n, pipe in enumerate(pipes):
            parts = [pipe.transformer, *([] if smalls[n] is None else [smalls[n]])]
            for scene, full in zip(scenes, wanted, strict=True):
                with counted(parts) as found:
                    videos = scene.on(pipe).call()
                work[n].append(found.done)
                quality[n].append((scene.adherence(videos), psnr(videos, full)))
        speeds = speedups(
            len(pipes), rounds, lambda n: scenes[0].on(pipes[n]).taken({}, count=False).seconds
        )
    return [
        Rendered(
            name=own.name,
            speedup=speeds[n],
            work=mean(work[n]) / mean(work[0]),
            adherence=mean(a for a, _ in quality[n]),
            psnr_db=mean(db for _, db in quality[n]),
        )
        for n, own in enumerate(contestants)
    ]


def _contestants(name: str) -> list[Contestant]:
    small = partial(denoiser, f"{name}_small")
    return [
        Contestant(name=LARGE, setting="", on=lambda _: nullcontext()),
        Contestant(name=SMALL, setting="", on=lambda pipe: _small_alone(pipe, name)),
        accelerated("SRDiffusion", small=small, policy=Sketch()),
        accelerated("SRDiffusion, 20 % at most", small=small, policy=Sketch(latest=0.2)),
        accelerated("SRDiffusion, MixCache", small=small, policy=Sketch(then=MixCache())),
        accelerated(
            "SRDiffusion, 20 % at most, MixCache",
            small=small,
            policy=Sketch(then=MixCache(), latest=0.2),
        ),
        *[
            accelerated(
                f"SRDiffusion from {share:.0%} on, MixCache",
                small=small,
                policy=Sketch(then=LONG, earliest=share, latest=share),
            )
            for share in (0.6, 0.7, 0.8)
        ],
        *[
            accelerated(f"{ASKED} {speed:g} times the speed", small=small, target_speedup=speed)
            for speed in (3.0, 4.0, 6.0)
        ],
    ]


@contextmanager
def _small_alone(pipe: Any, name: str) -> Iterator[Any]:
    pipe.transformer = denoiser(f"{name}_small")
    yield None
