"""Other caches, each over settings from careful to bold: diffusers' own, cache-dit's, fewer steps.

Settings are those that did best for each on these denoisers, found by trying more than are kept
here; calibration, where a cache has one, is done as its documentation says.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from benchmarks.denoise.contestant import Contestant
from benchmarks.denoise.scene import STEPS, Scene

__all__ = ["FEWER_STEPS", "rivals"]

FEWER_STEPS = "fewer steps"


def rivals(scene: Scene, *, quick: bool) -> list[Contestant]:
    """All of them; `quick` takes every third setting.

    Args:
        scene: to calibrate with.
        quick: fewer settings.
    """
    sets = [
        _fewer_steps(),
        _first_block(),
        _attention_broadcast(),
        _magnitudes(scene),
        _taylor(),
        _dit(),
        *([_spectral()] if scene.name.startswith("wan") else []),  # reads what only Wan passes
    ]
    return [own for one in sets for own in (one[::3] if quick else one)]


def _fewer_steps() -> list[Contestant]:
    return [
        Contestant(
            name=FEWER_STEPS,
            setting=str(count),
            on=lambda _: nullcontext(),
            inputs={"num_inference_steps": count},
        )
        for count in (40, 33, 29, 25, 22, 20, 17, 14, 12)
    ]


def _diffusers(
    name: str, setting: str, kind: str, *, told: bool = False, **config: object
) -> Contestant:
    """A cache of diffusers'; `told` if it asks which step it is."""

    @contextmanager
    def on(pipe: Any) -> Iterator[None]:
        made = getattr(importlib.import_module("diffusers"), kind, None)
        made = made or getattr(importlib.import_module("diffusers.hooks"), kind)
        own = {"current_timestep_callback": lambda: pipe.current_timestep} if told else {}
        pipe.transformer.enable_cache(made(**config, **own))
        try:
            yield
        finally:
            pipe.transformer.disable_cache()

    return Contestant(name=name, setting=setting, on=on)


def _first_block() -> list[Contestant]:
    return [
        _diffusers("FirstBlockCache", f"{own:g}", "FirstBlockCacheConfig", threshold=own)
        for own in (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)
    ]


def _attention_broadcast() -> list[Contestant]:
    return [
        _diffusers(
            "PAB",
            f"{spatial}/{cross} {window[0]}-{window[1]}",
            "PyramidAttentionBroadcastConfig",
            spatial_attention_block_skip_range=spatial,
            cross_attention_block_skip_range=cross,
            spatial_attention_timestep_skip_range=window,
            cross_attention_timestep_skip_range=window,
            told=True,
        )
        for spatial, cross, window in (
            (2, 3, (100, 800)),
            (2, 6, (0, 1000)),
            (4, 6, (100, 800)),
            (6, 9, (0, 1000)),
        )
    ]


def _magnitudes(scene: Scene) -> list[Contestant]:
    ratios = _ratios(scene)
    return [
        _diffusers(
            "MagCache",
            f"{threshold:g}, {skips} skips, {kept:g} kept",
            "MagCacheConfig",
            threshold=threshold,
            max_skip_steps=skips,
            retention_ratio=kept,
            num_inference_steps=STEPS,
            mag_ratios=ratios,
        )
        for threshold, skips, kept in (
            (0.02, 1, 0.1),
            (0.06, 1, 0.1),
            (0.06, 2, 0.1),
            (0.06, 3, 0.2),
            (0.12, 2, 0.1),
            (0.12, 3, 0.1),
            (0.24, 4, 0.1),
            (0.5, 5, 0.1),
        )
    ]


def _ratios(scene: Scene) -> list[float]:
    """What MagCache's calibration prints, of its first output."""
    own = _diffusers("MagCache", "", "MagCacheConfig", calibrate=True, num_inference_steps=STEPS)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), own.on(scene.pipe):
        scene.call()
    line = next(
        line
        for line in said.getvalue().splitlines()
        if line.startswith("[") and line.endswith("]") and "MagCache" not in line
    )
    return ast.literal_eval(line)


def _spectral() -> list[Contestant]:
    return [
        _diffusers(
            "SeaCache",
            f"{threshold:g}, {most} in a row",
            "SeaCacheConfig",
            threshold=threshold,
            max_consecutive_cached=most,
        )
        for threshold, most in (
            (0.05, 1),
            (0.1, 1),
            (0.25, 1),
            (0.25, 2),
            (0.5, 2),
            (1.0, 2),
            (1.0, 3),
            (2.0, 4),
            (2.0, 6),
        )
    ]


def _taylor() -> list[Contestant]:
    return [
        _diffusers(
            "TaylorSeer",
            f"every {interval}, order {order}, {'lite' if lite else 'blocks'}",
            "TaylorSeerCacheConfig",
            cache_interval=interval,
            disable_cache_before_step=before,
            max_order=order,
            taylor_factors_dtype=torch.float32,
            use_lite_mode=lite,
        )
        for interval, order, before, lite in (
            (2, 1, 3, True),
            (2, 2, 4, True),
            (3, 1, 5, True),
            (3, 2, 5, True),
            (4, 1, 5, True),
            (4, 2, 6, True),
            (5, 1, 6, True),
            (3, 1, 5, False),
        )
    ]


def _dit() -> list[Contestant]:
    return [
        _cache_dit(fn, threshold, order, warm_up, most)
        for fn, threshold, order, warm_up, most in (
            (1, 0.02, 1, 4, -1),
            (1, 0.04, 1, 4, -1),
            (1, 0.08, 1, 4, -1),
            (1, 0.08, 2, 6, 2),
            (1, 0.16, 1, 6, 2),
            (1, 0.16, 1, 6, 3),
            (1, 0.32, 2, 6, 3),
            (1, 0.5, 1, 6, 4),
            (2, 0.08, 1, 4, -1),
        )
    ]


def _cache_dit(fn: int, threshold: float, order: int, warm_up: int, most: int) -> Contestant:
    @contextmanager
    def on(pipe: Any) -> Iterator[None]:
        library: Any = importlib.import_module("cache_dit")
        logging.getLogger("cache_dit").setLevel(logging.ERROR)
        library.enable_cache(
            pipe,
            cache_config=library.DBCacheConfig(
                Fn_compute_blocks=fn,
                Bn_compute_blocks=0,
                residual_diff_threshold=threshold,
                max_warmup_steps=warm_up,
                max_continuous_cached_steps=most,
            ),
            calibrator_config=library.TaylorSeerCalibratorConfig(taylorseer_order=order),
        )
        try:
            yield
        finally:
            library.disable_cache(pipe)

    name = f"F{fn}B0, {threshold:g}, order {order}, at most {most} in a row"
    return Contestant(name="cache-dit", setting=name, on=on)
