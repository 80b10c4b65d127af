"""Trained denoisers, faster at the same quality, against other caches: `weft bench denoise`.

The Wan and the CogVideoX of recipes/moving_shapes.py run 50 steps with guidance on prompts that
calibration did not see. Every contestant has a pipeline of its own and runs over its settings; what
it computes is counted in the linear layers, what it takes is processor time of one thread, in turns
in random order. Likeness is to the videos of all steps in full: of each video, and the mean over
them, for one of twelve is so near to another result that a fifth of the steps less leads there.
Between two settings of a contestant, what lies on the line between them counts as reached.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
import torch

from benchmarks.denoise.contestant import Contestant, accelerated, speedups
from benchmarks.denoise.quality import RANGE, psnr, ssim
from benchmarks.denoise.rivals import rivals
from benchmarks.denoise.scene import STEPS, Scene, Taken
from benchmarks.denoise.sketching import LARGE, SMALL, Rendered, measure_sketches
from recipes.moving_shapes import is_trained
from weft.diffusion import MixCache, Profile, calibrate
from weft.report.bench import BenchReport, Claim, at_least, at_most, print_report
from weft.report.table import Table

__all__ = ["Point", "frontier", "measure", "run"]

WEFT, FULL, UNCALIBRATED = "weft", "full", "MixCache, not calibrated"
SPEEDS = (1.5, 2.0, 2.5, 3.0)
TARGETS = (1.5, 1.75, 2.0, 2.25, 2.5, 3.0, 3.5, 4.0, 5.0)
QUALITIES = (40.0, 35.0, 30.0)
LIKE_DB, FASTER = 35.0, 1.3
SKETCH_SPEED = 3.0
WHOLE = 0.99
"""Share of the work from which on nothing is left out."""
ROUNDS, BATCH = 5, 4
CALIBRATION, HELD_OUT = (101, 102, 103, 104), (1, 2, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A contestant with a setting.

    Attributes:
        name, setting: which.
        speedup: processor time of all steps in full over its own.
        work: multiplications, over those of all steps in full.
        psnr_db, ssim: likeness to the videos of all steps in full.
        adherence: share of the prompt that is seen.
    """

    name: str
    setting: str
    speedup: float
    work: float
    psnr_db: float
    ssim: float
    adherence: float


def run(quick: bool = False) -> BenchReport:
    """Compare on both denoisers; `quick` takes the Wan, fewer settings and one scene."""
    names = [own for own in ("wan", "cogvideo") if is_trained(own)]
    found = {name: measure(name, quick=quick) for name in (names[:1] if quick else names)}
    pairs = [own for own in found if is_trained(f"{own}_small")]
    rendered = {
        own: measure_sketches(
            own, HELD_OUT[: 1 if quick else None], batch=BATCH, rounds=1 if quick else ROUNDS
        )
        for own in pairs
    }
    return BenchReport(
        bench="denoise",
        claims=(
            *(claim for name, points in found.items() for claim in _claims(name, points)),
            *(_sketch_claim(name, points) for name, points in rendered.items()),
        ),
        table=_table(found, rendered),
        facts={
            "steps": STEPS,
            "published": "MixCache: 1.94 times on Wan 14B with an LPIPS of 0.132, 1.97 on"
            " HunyuanVideo with 0.060; SRDiffusion: over 3 times on Wan 14B",
            "points": {
                name: [[getattr(p, f) for f in Point.__slots__] for p in points]
                for name, points in found.items()
            },
            "sketches": {
                name: [[getattr(p, f) for f in Rendered.__slots__] for p in points]
                for name, points in rendered.items()
            },
        },
    )


def measure(name: str, *, quick: bool = False) -> list[Point]:
    """Every contestant on a denoiser."""
    scenes = [Scene(name, seed=seed, batch=BATCH) for seed in HELD_OUT[: 1 if quick else None]]
    learnt = [Scene(name, seed=seed, batch=BATCH) for seed in CALIBRATION]
    profile = _profile(learnt)
    contestants = [
        Contestant(name=FULL, setting="", on=lambda _: nullcontext()),
        accelerated(UNCALIBRATED, policy=MixCache()),
        *[_weft(profile, "target_speedup", t) for t in TARGETS[:: 3 if quick else 1]],
        *[_weft(profile, "min_psnr", q) for q in QUALITIES],
        *rivals(learnt[0], quick=quick),
    ]
    wanted = [scene.call() for scene in scenes]
    pipes = [Scene(name, seed=0, batch=1).pipe for _ in contestants]
    quality: dict[int, list[tuple[Taken, float, float, float]]] = {}
    for number, own in enumerate(contestants):
        _tell(f"{name}: {own.name} {own.setting}")
        with own.on(pipes[number]):
            for scene, full in zip(scenes, wanted, strict=True):
                taken = scene.on(pipes[number]).taken(own.inputs)
                videos = taken.videos
                found = (psnr(videos, full), ssim(videos, full), scene.adherence(videos))
                quality.setdefault(number, []).append((taken, *found))

    def taken_s(n: int) -> float:
        own = contestants[n]
        with own.on(pipes[n]):
            return scenes[0].on(pipes[n]).taken(own.inputs, count=False).seconds

    rounds = 1 if quick else ROUNDS
    speeds = speedups(
        len(contestants), rounds, taken_s, lambda at: _tell(f"timing: round {at + 1} of {rounds}")
    )
    work = quality[0][0][0].work
    return [
        Point(
            name=own.name,
            setting=own.setting,
            speedup=speeds[n],
            work=mean(taken.work for taken, *_ in quality[n]) / work,
            psnr_db=mean(db for _, db, _, _ in quality[n]),
            ssim=mean(own for _, _, own, _ in quality[n]),
            adherence=mean(own for *_, own in quality[n]),
        )
        for n, own in enumerate(contestants)
    ]


def _weft(profile: Profile, kind: str, value: float) -> Contestant:
    asked: dict[str, Any] = {kind: value}
    return accelerated(WEFT, f"{kind} {value:g}", profile=profile, **asked)


def _profile(learnt: Sequence[Scene]) -> Profile:
    """What calibration learns of a denoiser from some scenes."""
    prompts = [
        {**scene.inputs, "generator": torch.Generator().manual_seed(seed)}
        for seed, scene in enumerate(learnt)
    ]

    def tell(stage: str, share: float) -> None:
        _tell(f"calibrating: {stage}, {share:.0%}")

    return calibrate(learnt[0].pipe, prompts, value_range=RANGE, progress=tell)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------- verdict


def frontier(points: Sequence[Point], name: str) -> list[tuple[float, float]]:
    """Speeds and likenesses of a contestant's settings that no other of its own beats.

    Settings that leave nothing out are none: a line from their likeness, which has no end, to the
    next one's would be a line to nowhere.
    """
    some = [p for p in points if p.name == name and p.work < WHOLE]
    own = sorted(((p.speedup, p.psnr_db) for p in some), reverse=True)
    found: list[tuple[float, float]] = []
    for speed, db in own:
        if not found or db > found[-1][1]:
            found.append((speed, db))
    return found[::-1]


def quality_at(points: Sequence[Point], name: str, speed: float) -> float:
    """Likeness of a contestant at a speed; minus infinity if none of its settings is as fast [dB].

    Example:
        >>> quality_at([], "nobody", 2.0)
        -inf
    """
    line = frontier(points, name)
    if not line or speed > line[-1][0]:
        return float("-inf")
    return float(np.interp(speed, [s for s, _ in line], [db for _, db in line]))


def speed_at(points: Sequence[Point], name: str, db: float) -> float:
    """Speed of a contestant at a likeness; 1 if none of its settings is as good."""
    line = frontier(points, name)[::-1]
    if not line or db > line[-1][1]:
        return 1.0
    return float(np.interp(db, [q for _, q in line], [s for s, _ in line]))


def _claims(name: str, points: Sequence[Point]) -> list[Claim]:
    others = {p.name for p in points} - {WEFT, FULL, UNCALIBRATED}
    own = [p for p in points if p.name == WEFT]
    full = next(p for p in points if p.name == FULL)
    lead = [
        quality_at(points, WEFT, speed) - max(quality_at(points, o, speed) for o in others)
        for speed in SPEEDS
    ]
    peers = {o: speed_at(points, o, LIKE_DB) for o in others}
    best = max(peers, key=peers.__getitem__)
    asked = [(float(p.setting.split()[1]), p) for p in own if p.setting.startswith("target")]
    least = [(float(p.setting.split()[1]), p) for p in own if p.setting.startswith("min")]
    good = [p.adherence for p in own if p.psnr_db >= LIKE_DB]
    return [
        at_least(
            f"{name}: likeness over the best other's, speeds 1.5 to 3, least [dB]", min(lead), 0.0
        ),
        at_least(
            f"{name}: speed at {LIKE_DB:g} dB over the best other's ({best})",
            speed_at(points, WEFT, LIKE_DB) / peers[best],
            FASTER,
        ),
        at_least(
            f"{name}: prompt adherence at {LIKE_DB:g} dB and above, over all steps in full, least",
            min(good, default=0.0) - full.adherence,
            0.0,
        ),
        at_most(
            f"{name}: speed from what was asked for, farthest [share]",
            max(abs(p.speedup / a - 1) for a, p in asked),
            0.1,
        ),
        at_least(
            f"{name}: likeness over what was asked for, least [dB]",
            min(p.psnr_db - a for a, p in least),
            -1.0,
        ),
    ]


def _sketch_claim(name: str, points: Sequence[Rendered]) -> Claim:
    """How fast the pair is without losing anything of the prompt."""
    large = next(p for p in points if p.name == LARGE)
    good = [
        p.speedup for p in points if p.name not in (LARGE, SMALL) and p.adherence >= large.adherence
    ]
    return at_least(
        f"{name}, with its small relative: speed at the large one's prompt adherence",
        max(good, default=1.0),
        SKETCH_SPEED,
    )


def _table(
    found: Mapping[str, Sequence[Point]], rendered: Mapping[str, Sequence[Rendered]]
) -> Table:
    pairs = [
        (
            f"{name} and small",
            p.name,
            "",
            f"{p.speedup:.2f}",
            f"{p.work:.2f}",
            f"{p.psnr_db:.2f}",
            "",
            f"{p.adherence:.1%}",
        )
        for name, points in rendered.items()
        for p in points
    ]
    return Table(
        columns=("denoiser", "cache", "setting", "speed", "work", "PSNR [dB]", "SSIM", "adherence"),
        rows=tuple(
            (
                name,
                p.name,
                p.setting,
                f"{p.speedup:.2f}",
                f"{p.work:.2f}",
                f"{p.psnr_db:.2f}",
                f"{p.ssim:.4f}",
                f"{p.adherence:.1%}",
            )
            for name, points in found.items()
            for p in sorted(points, key=lambda p: (p.name, p.speedup))
        )
        + tuple(pairs),
    )


if __name__ == "__main__":
    print_report(run(quick="--quick" in sys.argv))
