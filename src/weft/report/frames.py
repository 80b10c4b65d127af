"""Frames of videos side by side, and how alike the videos are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import InputError
from weft.report.markup import Markup, tag
from weft.report.page import Section
from weft.report.png import Picture, embedded

__all__ = ["Video", "frames_section", "likeness_db"]

Video: TypeAlias = NDArray[np.float32]
"""Red, green and blue, from 0 to 1 [frames, height, width, 3]."""

_MOST, _WIDEST = 6, 480
"""Frames that are shown, and how wide they may be before they are made smaller [pixels]."""


def frames_section(videos: Mapping[str, Video]) -> Section:
    """A row for each of some frames, a column for each video.

    Raises:
        InputError: the videos differ in length, or there is none.
    """
    lengths = {name: len(video) for name, video in videos.items()}
    if len(set(lengths.values())) != 1 or not min(lengths.values()):
        raise InputError(
            need="videos of as many frames each, at least one",
            got=", ".join(f"{name}: {number}" for name, number in lengths.items()) or "none",
            hint='pass frames={"full": video, "accelerated": video} of the same prompt and noise',
        )
    count = next(iter(lengths.values()))
    shown = sorted({round(n) for n in np.linspace(0, count - 1, min(count, _MOST))})
    head = tag("tr", tag("th", "frame", class_="number"), *(tag("th", name) for name in videos))
    rows = (
        tag(
            "tr",
            tag("td", str(at), class_="number"),
            *(tag("td", _shown(video[at], f"{n}, frame {at}")) for n, video in videos.items()),
        )
        for at in shown
    )
    body = tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="scroll")
    return Section(heading="Frames side by side", text=_words(videos), body=body)


def _words(videos: Mapping[str, Video]) -> str:
    """How alike each video is to the first one."""
    first, *others = videos
    told = [
        f"{name} is {likeness_db(videos[first], videos[name]):.1f} dB like {first}"
        for name in others
        if videos[name].shape == videos[first].shape
    ]
    return "; ".join(told) + "." if told else ""


def likeness_db(one: Video, other: Video) -> float:
    """Peak signal to noise of two videos; at most 120 [dB].

    Example:
        >>> black = np.zeros((1, 2, 2, 3), dtype=np.float32)
        >>> likeness_db(black, black + 0.1)
        20.0
    """
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return float(-10 * np.log10(max(error, 1e-12)))


def _shown(frame: Video, description: str) -> Markup:
    return embedded(_small(frame), description)


def _small(frame: Video) -> Picture:
    """The frame in whole numbers; where it is wide, each pixel the mean of several."""
    by = -(-frame.shape[1] // _WIDEST)
    if by > 1:
        height, width = (max(1, side // by) for side in frame.shape[:2])
        tiles = frame[: height * by, : width * by]
        by_rows = min(by, frame.shape[0])
        frame = tiles.reshape(height, by_rows, width, by, 3).mean(axis=(1, 3), dtype=np.float32)
    return np.round(np.clip(frame, 0.0, 1.0) * 255.0).astype(np.uint8)
