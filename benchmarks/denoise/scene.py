"""A trained pipeline and prompts for it, some to calibrate with and others to be judged by."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.denoise.quality import adherence
from benchmarks.denoise.work import counted
from recipes.moving_shapes import FRAMES, SIDE, Prompt, embedding, pipeline, prompts

__all__ = ["STEPS", "Scene", "Taken"]

STEPS = 50
"""Source: what the published pipelines of Wan 2.1 and CogVideoX are run with."""
GUIDANCE = {"wan": 3.0, "cogvideo": 3.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Videos, and what they took.

    Attributes:
        videos: [B,C,T,H,W].
        work: multiplications.
        seconds: of processor time [s].
    """

    videos: Tensor
    work: int
    seconds: float


class Scene:
    """A pipeline and what it is called with.

    Args:
        name: of its denoiser.
        seed: of prompts and noise.
        batch: videos of a call.
    """

    def __init__(self, name: str, *, seed: int, batch: int, pipe: Any = None) -> None:
        self.name, self.batch = name, batch
        self.pipe = pipeline(name) if pipe is None else pipe
        generator = torch.Generator().manual_seed(seed)
        self.asked: list[Prompt] = prompts(batch, generator)
        self._seed = seed

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What the pipeline is called with."""
        scale = 8 if self.name.startswith("wan") else self.pipe.vae_scale_factor_spatial
        given: dict[str, Any] = {
            "prompt_embeds": torch.stack([embedding(own) for own in self.asked]),
            "negative_prompt_embeds": torch.stack([embedding(None)] * self.batch),
            "guidance_scale": GUIDANCE[self.name.removesuffix("_small")],
            "height": SIDE * scale,
            "width": SIDE * scale,
            "num_frames": 4 * (FRAMES - 1) + 1,
            "output_type": "latent",
            "num_inference_steps": STEPS,
        }
        return given

    def on(self, pipe: Any) -> Scene:
        """The same on another pipeline."""
        return Scene(self.name, seed=self._seed, batch=self.batch, pipe=pipe)

    def call(self, **more: object) -> Tensor:
        """Videos [B,C,T,H,W]."""
        noise = torch.Generator().manual_seed(self._seed)
        with torch.no_grad():
            made = self.pipe(**{**self.inputs, "generator": noise, **more}).frames
        return made if self.name.startswith("wan") else made.transpose(1, 2)

    def taken(self, more: Mapping[str, object], *, count: bool = True) -> Taken:
        """Videos, and what they take; time says something where nothing is counted."""
        denoisers: list[nn.Module] = [self.pipe.transformer] if count else []
        _ = self.inputs  # prompts are put into numbers before
        begun = time.process_time()
        with counted(denoisers) as work:
            videos = self.call(**more)
        return Taken(videos=videos, work=work.done, seconds=time.process_time() - begun)

    def adherence(self, videos: Tensor) -> float:
        """Share of what was asked for that is seen."""
        return adherence(videos, self.asked)
