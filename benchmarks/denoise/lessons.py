"""What the denoisers of recipes/moving_shapes.py learn from: noisy videos, and what to say of them.

Everything is drawn on the device that trains, so that a step can be a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.moving_shapes import KINDS, embeddings, scale, scheduler, videos_of

__all__ = ["Lessons", "graphed"]

Step: TypeAlias = Callable[[], Tensor]

UNPROMPTED = 0.1
"""Share of videos without a prompt, from which guidance is learnt."""
SHIFT = 5.0
"""Of noise levels towards high ones. Chosen: at 1, videos came out without motion."""
LITTLE_NOISE, ANYWAY = 0.95, 0.05
"""Noise levels that small denoisers learn, and their share of others. Chosen: a tenth of the steps
is above."""
WARM_UP_CALLS = 3
"""Of a step before it is recorded. Source: torch's documentation of CUDA graphs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lesson:
    """Some videos.

    Attributes:
        noisy: latents [B,C,T,H,W].
        times: that the denoiser is told [B].
        text: tokens of their prompts [B,3,width].
        target: what to say [B,C,T,H,W].
    """

    noisy: Tensor
    times: Tensor
    text: Tensor
    target: Tensor


class Lessons:
    """What one denoiser learns from.

    Args:
        name: of the denoiser.
        device: of torch.
        batch: videos of a step.
        teacher: a Wan whose answers are learnt; the truth if there is none.
    """

    def __init__(self, name: str, device: str, batch: int, teacher: nn.Module | None) -> None:
        self._name, self._device, self._batch = name, device, batch
        self._teacher = teacher
        self._is_flow, self._is_small = name.startswith("wan"), name.endswith("small")
        self._scale = scale(name)
        self._kept = None if self._is_flow else scheduler(name).alphas_cumprod.float().to(device)

    def loss(self, model: nn.Module) -> Tensor:
        """Mean squared error of a model's answers to new videos."""
        with torch.no_grad():
            lesson = self._drawn()
        return F.mse_loss(self._said(model, lesson), lesson.target)

    def _drawn(self) -> _Lesson:
        many, device = self._batch, self._device
        words = torch.stack([torch.randint(len(k), (many,), device=device) for k in KINDS], 1)
        prompted = torch.rand(many, device=device) >= UNPROMPTED
        clean = videos_of(words, None)
        lesson = self._noised(clean, embeddings(words) * prompted[:, None, None])
        if self._teacher is None:
            return lesson
        return replace(lesson, target=self._taught(self._teacher, lesson))

    def _taught(self, teacher: nn.Module, lesson: _Lesson) -> Tensor:
        """What a Wan says of the same videos, in the denoiser's own terms [B,C,T,H,W].

        Noisy latents of a DDIM scheduler are those of a straight path times a number: of `signal`
        times a video and `noise` times noise, the share of noise is the level.
        """
        if self._kept is None:
            return _answer(teacher, lesson.noisy, lesson.times, lesson.text)
        share, noise = _shares(self._kept, lesson.times)
        signal = self._scale * share
        level = noise / (signal + noise)
        straight = lesson.noisy / (signal + noise)
        velocity = _answer(teacher, straight, 1000 * level.flatten(), lesson.text)
        clean, grain = straight - level * velocity, straight + (1 - level) * velocity
        return share * grain - noise * self._scale * clean

    def _levels(self) -> Tensor:
        """Noise levels: mostly high ones, which decide what moves; for small models low ones."""
        u = torch.rand(self._batch, device=self._device)
        shifted = SHIFT * u / (1 + (SHIFT - 1) * u)
        if not self._is_small:
            return shifted
        anyway = torch.rand(self._batch, device=self._device) < ANYWAY
        return torch.where(anyway, shifted, LITTLE_NOISE * u)

    def _noised(self, clean: Tensor, text: Tensor) -> _Lesson:
        levels, noise = self._levels(), torch.randn_like(clean)
        if self._kept is None:
            wide = levels[:, None, None, None, None]
            noisy = (1 - wide) * clean + wide * noise
            return _Lesson(noisy=noisy, times=levels * 1000, text=text, target=noise - clean)
        clean = clean * self._scale
        times = (levels * 999).round().long()
        share, of_noise = _shares(self._kept, times)
        noisy = share * clean + of_noise * noise
        target = share * noise - of_noise * clean
        return _Lesson(noisy=noisy, times=times, text=text, target=target)

    def _said(self, model: nn.Module, lesson: _Lesson) -> Tensor:
        """The denoiser's answer [B,C,T,H,W]."""
        if self._is_flow:
            return _answer(model, lesson.noisy, lesson.times, lesson.text)
        given = lesson.noisy.transpose(1, 2)
        return _answer(model, given, lesson.times, lesson.text).transpose(1, 2)


def _shares(kept: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Of a video and of noise in what is noisy, for a DDIM scheduler [B,1,1,1,1]."""
    square = kept[times][:, None, None, None, None]
    return square.sqrt(), (1 - square).sqrt()


def _answer(model: nn.Module, noisy: Tensor, times: Tensor, text: Tensor) -> Tensor:
    return model(
        hidden_states=noisy, timestep=times, encoder_hidden_states=text, return_dict=False
    )[0]


def graphed(step: Step) -> Step:
    """The same step as a CUDA graph: one launch for all of its kernels.

    It is done a few times before it is recorded, which should change nothing: at a rate of 0.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP_CALLS):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replayed() -> Tensor:
        graph.replay()
        return result.clone()

    return replayed
