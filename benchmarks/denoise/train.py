"""Train the denoisers of recipes/moving_shapes.py: `python -m benchmarks.denoise.train wan`.

A run that is killed goes on where it was. Each takes minutes on a GPU, hours on CPUs. Large
denoisers learn from videos, at all noise levels;
small ones at little noise, which is all that they are there for, the Wan's what the large one
would say.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.moving_shapes import (
    LAYERS,
    WEIGHTS,
    denoiser,
    embedding,
    prompts,
    scale,
    scheduler,
    videos,
)

__all__ = ["main"]

BATCHES = {"cuda": 64, "cpu": 16}
"""Videos of a step, by device: a GPU takes no longer for more."""
RATE, WARM_UP, DECAY = 1e-3, 200, 0.999
UNPROMPTED = 0.1
"""Share of videos without a prompt, from which guidance is learnt."""
SHIFT = 5.0
LITTLE_NOISE, ANYWAY = 0.9, 0.05
"""Noise levels that small denoisers learn, and their share of others."""
STEPS = {False: 6000, True: 2500}
"""Of a large and of a small denoiser."""
TEACHERS = {"wan_small": "wan"}
"""Whose answers a denoiser learns, where both are asked alike."""
SAVED_EVERY, TOLD_EVERY = 250, 50


class Noising:
    """Noisy videos and what a denoiser should say of them.

    Args:
        name: of the denoiser.
        device: where videos are.
    """

    def __init__(self, name: str, device: str) -> None:
        self._is_flow = name.startswith("wan")
        self._scale = scale(name)
        self._kept = None if self._is_flow else scheduler(name).alphas_cumprod.float().to(device)

    def __call__(
        self, clean: Tensor, levels: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents, the time that the denoiser is told, and its target.

        Args:
            clean: videos [B,C,T,H,W].
            levels: of noise, from 0 to 1 [B].
            noise: like the videos.
        """
        wide = levels[:, None, None, None, None]
        if self._is_flow:
            return (1 - wide) * clean + wide * noise, levels * 1000, noise - clean
        assert self._kept is not None
        clean = clean * self._scale
        times = (levels * 999).round().long()
        kept = self._kept[times][:, None, None, None, None]
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        target = kept.sqrt() * noise - (1 - kept).sqrt() * clean
        return noisy, times, target


def said(model: nn.Module, name: str, noisy: Tensor, times: Tensor, text: Tensor) -> Tensor:
    """A denoiser's answer [B,C,T,H,W]."""
    given = noisy if name.startswith("wan") else noisy.transpose(1, 2)
    found = model(
        hidden_states=given, timestep=times, encoder_hidden_states=text, return_dict=False
    )[0]
    return found if name.startswith("wan") else found.transpose(1, 2)


def levels_of(many: int, generator: torch.Generator, *, is_small: bool) -> Tensor:
    """Noise levels: high ones more often, which decide what moves; for small models low ones."""
    u = torch.rand(many, generator=generator)
    shifted = SHIFT * u / (1 + (SHIFT - 1) * u)
    if not is_small:
        return shifted
    anyway = torch.rand(many, generator=generator) < ANYWAY
    return torch.where(anyway, shifted, LITTLE_NOISE * u)


def train(name: str, steps: int, device: str, batch: int) -> None:
    """Train a denoiser, or go on with it, and write its weights, which say how they were made."""
    is_small = name.endswith("small")
    model: Any = denoiser(name, trained=False).train().requires_grad_(True).to(device)
    average = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)
    teacher = denoiser(TEACHERS[name]).to(device) if name in TEACHERS else None
    partial = WEIGHTS / f"{name}.training.pt"
    begun, history = _resumed(partial, model, average, optimizer)
    noising = Noising(name, device)
    losses: list[Tensor] = []
    start_s = time.perf_counter()
    for step in range(begun, steps):
        generator = torch.Generator().manual_seed(step)
        asked = prompts(batch, generator)
        unprompted = torch.rand(batch, generator=generator) < UNPROMPTED
        spoken = [embedding(None if n else p) for p, n in zip(asked, unprompted, strict=True)]
        drawn = videos(asked, generator)
        noise = torch.randn(drawn.shape, generator=generator)
        levels = levels_of(batch, generator, is_small=is_small)
        text, clean = torch.stack(spoken).to(device), drawn.to(device)
        noisy, times, target = noising(clean, levels.to(device), noise.to(device))
        if teacher is not None:
            with torch.no_grad():
                target = said(teacher, name, noisy, times, text)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP) * _cosine(step / steps)
        loss = F.mse_loss(said(model, name, noisy, times, text), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        _follow(average, model, min(DECAY, (1 + step) / (10 + step)))
        losses.append(loss.detach())
        if (step + 1) % TOLD_EVERY == 0:
            recent = float(torch.stack(losses[-TOLD_EVERY:]).mean())
            rate = (step + 1 - begun) / (time.perf_counter() - start_s)
            print(f"{name} {step + 1}/{steps}: loss {recent:.4f}, {rate:.1f} steps/s", flush=True)
        if (step + 1) % SAVED_EVERY == 0:
            own = _told(history, step + 1 - begun, batch, device)
            _save(partial, step + 1, own, model, average, optimizer)
    from safetensors.torch import save_file

    own = _told(history, steps - begun, batch, device)
    halves = {key: value.half() for key, value in average.cpu().state_dict().items()}
    save_file(halves, WEIGHTS / f"{name}.safetensors", {"training": own})
    partial.unlink(missing_ok=True)


def _cosine(share: float) -> float:
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share))


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


def _resumed(
    partial: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, str]:
    """Steps that are done, and what was done in them."""
    WEIGHTS.mkdir(exist_ok=True)
    if not partial.exists():
        return 0, ""
    kept = torch.load(partial, map_location="cpu")
    model.load_state_dict(kept["model"])
    average.load_state_dict(kept["average"])
    optimizer.load_state_dict(kept["optimizer"])
    return kept["step"], kept["history"]


def _told(history: str, steps: int, batch: int, device: str) -> str:
    return f"{history}{', then ' if history else ''}{steps} steps of {batch} videos on {device}"


def _save(
    partial: Path,
    step: int,
    history: str,
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    beside = partial.with_suffix(".new")
    torch.save(
        {
            "step": step,
            "history": history,
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        beside,
    )
    beside.replace(partial)


def main(arguments: Sequence[str]) -> None:
    """Train one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.denoise.train")
    parser.add_argument("denoiser", choices=list(LAYERS))
    parser.add_argument("--steps", type=int, help="fewer or more of them")
    at_hand = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=at_hand, help=f"of torch ({at_hand})")
    given = parser.parse_args(arguments)
    steps = given.steps or STEPS[given.denoiser.endswith("small")]
    train(given.denoiser, steps, given.device, BATCHES[given.device.partition(":")[0]])


if __name__ == "__main__":
    main(sys.argv[1:])
