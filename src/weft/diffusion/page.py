"""Pages of runs and of profiles: what people look at.

`weft.report` makes them, which lies above and reads what is here; so it is loaded by its name,
when a page is asked for, and nothing here depends on it. Videos become plain numbers on the way.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from weft.core.errors import InputError
from weft.core.files import write_whole
from weft.diffusion.profile import Profile
from weft.diffusion.record import Run
from weft.diffusion.search import EFFORT

__all__ = ["pareto", "run_table", "save_run", "video_of"]

SIGNED = -0.02
"""Values below are not of a video from 0 to 1, but of one from -1 to 1."""


def pareto(
    profile: Profile, points: Sequence[tuple[str, float, float]] = (), *, effort: int = EFFORT
) -> str:
    """A page on what a model's speed costs: plans, checks, fewer steps, and what others reach.

    Args:
        profile: what was learnt of the model.
        points: measured by others, as (name, speed over all steps in full, likeness [dB]).
        effort: of the search for each plan, as `weft.diffusion.search.Search` takes it.

    Returns:
        The page as HTML.

    Raises:
        InputError: a point has no name, or a number that cannot be drawn.
    """
    return _reporting("denoise_pareto").pareto_html(profile, points, effort=effort)


def run_table(runs: Sequence[Run]) -> str:
    """Runs as text: a row for each step, and what was saved.

    Raises:
        InputError: no run has ended.
    """
    return _reporting("denoise_page").run_text(_some(runs))


def save_run(runs: Sequence[Run], path: str | Path, frames: Mapping[str, Any]) -> None:
    """Write a page of runs.

    Args:
        runs: in the order in which they ended.
        path: where to.
        frames: videos to be shown side by side, by name.

    Raises:
        InputError: no run has ended, or something is no video.
        FileError: the file cannot be written.
    """
    videos = {name: video_of(video, name) for name, video in frames.items()}
    page = _reporting("denoise_page").run_html(_some(runs), videos)
    write_whole(path, page, "a page")


def _reporting(module: str) -> Any:
    return importlib.import_module(f"weft.report.{module}")


def _some(runs: Sequence[Run]) -> Sequence[Run]:
    if not runs:
        raise InputError(
            need="a run that has ended",
            got="none so far",
            hint="call the pipeline inside of `with weft.diffusion.report(pipe) as report`",
        )
    return runs


def video_of(video: Any, name: str = "video") -> NDArray[np.float32]:
    """A video as numbers from 0 to 1 [frames, height, width, 3].

    Args:
        video: a tensor or an array, [frames, height, width, channels] or [channels, frames,
            height, width] or [frames, channels, height, width], of bytes or of numbers from 0 to 1
            or from -1 to 1; or a list of PIL's images; or one of these in a batch of one.
        name: for errors.

    Raises:
        InputError: it is something else.
    """
    values = _numbers(video, name)
    if values.ndim == 5 and values.shape[0] == 1:
        values = values[0]
    values = _channels_last(values, name)
    if values.dtype == np.uint8:
        scaled = values.astype(np.float32) / 255.0
    else:
        if values.dtype.kind != "f":
            raise _no_video(name, f"whole numbers of {values.dtype}, not bytes")
        scaled = values.astype(np.float32)
        if not np.isfinite(scaled).all():
            raise _no_video(name, "numbers that are not finite")
        scaled = (scaled + 1.0) / 2.0 if scaled.min() < SIGNED else scaled
    grey = scaled.shape[3] == 1
    return np.clip(np.repeat(scaled, 3, axis=3) if grey else scaled[..., :3], 0.0, 1.0)


def _numbers(video: Any, name: str) -> NDArray[Any]:
    if isinstance(video, torch.Tensor):
        own = video.detach().cpu()
        return (own.float() if own.is_floating_point() else own).numpy()
    try:
        if isinstance(video, list | tuple):
            return np.stack([_numbers(frame, name) for frame in video])
        values = np.asarray(video)
    except (ValueError, TypeError) as error:
        raise _no_video(name, f"{type(video).__name__}: {error}") from error
    if values.dtype.kind not in "uif":
        raise _no_video(name, f"{type(video).__name__} of {values.dtype}")
    return values


def _channels_last(values: NDArray[Any], name: str) -> NDArray[Any]:
    if values.ndim == 4 and values.size:
        if values.shape[3] in (1, 3, 4):
            return values
        first, second = values.shape[0] in (1, 3), values.shape[1] == 3
        if first and second and values.shape[0] == 3:
            raise _no_video(name, f"shape {list(values.shape)}, which has channels in two places")
        if second:  # also of a single frame
            return values.transpose(0, 2, 3, 1)
        if first:
            return values.transpose(1, 2, 3, 0)
        if values.shape[1] == 1:
            return values.transpose(0, 2, 3, 1)
    raise _no_video(name, f"shape {list(values.shape)}")


def _no_video(name: str, got: str) -> InputError:
    return InputError(
        need="a video: [frames, height, width, channels] or [channels, frames, height, width]"
        " with 1 or 3 channels, or a list of PIL's images",
        got=f"{name}: {got}",
        hint='pass what pipe(..., output_type="np").frames[0] is; latents have to be decoded first',
    )
