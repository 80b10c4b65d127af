"""Train the denoisers of recipes/moving_shapes.py: `python -m benchmarks.denoise.train wan`.

A run that is killed goes on where it was. Each takes minutes on a GPU, hours on CPUs. Large
denoisers learn at all noise levels, small ones at little noise, which is all that they are there
for. The large Wan learns from videos. All others learn what it would say, which is less work: it
has averaged over the videos that noise may hide.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.denoise.lessons import Lessons, graphed
from benchmarks.training import cosine, save
from recipes.moving_shapes import LAYERS, WEIGHTS, denoiser
from weft.core.errors import InputError

__all__ = ["main"]

BATCHES = {"cuda": 128, "cpu": 16}
"""Videos of a step, by device: a GPU takes no longer for more."""
RATE, WARM_UP, LAST, DECAY = 1e-3, 200, 0.05, 0.999
MATRIX_RATE = 1e-2
"""Of Muon, on CPUs. Measured: with it 200 steps learn what AdamW alone learns in 300; 3e-3 is in
between."""
STEPS = {False: 6000, True: 2500}
"""Of a large and of a small denoiser."""
TEACHERS = {"wan_small": "wan", "cogvideo": "wan", "cogvideo_small": "wan"}
"""Whose answers a denoiser learns."""
SAVED_EVERY, TOLD_EVERY = 500, 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """How long a run is.

    Attributes:
        steps: so many.
        minutes: or for so long, from when it began or went on [min].
    """

    steps: int
    minutes: float | None = None

    def share(self, steps: int, seconds: float) -> float:
        """How much of it is done, from 0 to 1."""
        if self.minutes is not None:
            return min(seconds / (60 * self.minutes), 1.0)
        return min(steps / self.steps, 1.0)


class _Training:
    """A denoiser, its average and its optimizers.

    Args:
        name: of the denoiser.
        device: of torch.
        batch: videos of a step.
    """

    def __init__(self, name: str, device: str, batch: int) -> None:
        self.model: Any = denoiser(name, trained=False).train().requires_grad_(True).to(device)
        self.average = copy.deepcopy(self.model).eval()
        self._is_graphed = device.startswith("cuda")
        self._optimizers = _optimizers(self.model, is_graphed=self._is_graphed)
        teacher = denoiser(TEACHERS[name]).to(device) if name in TEACHERS else None
        self._lessons = Lessons(name, device, batch, teacher)

    def step(self) -> Tensor:
        """Learn from some videos; the loss."""
        self.model.zero_grad()
        loss = self._lessons.loss(self.model)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        return loss.detach()

    def at_rate(self, share: float) -> None:
        """Set the optimizers' rates to a share of their highest."""
        for group in self._groups():
            rate = share * group["highest"]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # in place, for a recorded step reads it
            else:
                group["lr"] = rate

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the average towards the model."""
        pairs = list(self.average.parameters()), list(self.model.parameters())
        torch._foreach_lerp_(*pairs, 1 - decay)

    def begin_with(self, weights: Path) -> str:
        """Begin with weights that are there; what was done to make them."""
        with safe_open(weights, "pt") as file:
            values = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            history = file.metadata()["training"]
        for model in (self.model, self.average):
            model.load_state_dict(values)
        return history

    def state(self) -> dict[str, Any]:
        """All that a run that goes on needs."""
        parts = (self.model, self.average, *self._optimizers)
        return {"parts": [part.state_dict() for part in parts]}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        parts = (self.model, self.average, *self._optimizers)
        if len(parts) != len(state["parts"]):
            raise InputError(
                need="a run that goes on on the kind of device it began on",
                got="optimizers of another kind of device",
                hint="begin anew: remove the .training.pt file in recipes/moving_shapes",
            )
        for part, values in zip(parts, state["parts"], strict=True):
            part.load_state_dict(values)

    def _groups(self) -> Iterator[dict[str, Any]]:
        for optimizer in self._optimizers:
            yield from optimizer.param_groups


def _optimizers(model: nn.Module, *, is_graphed: bool) -> list[torch.optim.Optimizer]:
    """AdamW; on CPUs, where a step is mostly arithmetic, Muon for the blocks' matrices.

    A recorded step would keep the rate that Muon, whose rate is a number, had when it was recorded.
    """
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "blocks." in name and not is_graphed]
    its = {id(p) for p in matrices}
    rest = [{"params": [p for _, p in named if id(p) not in its], "highest": RATE}]
    rate = torch.tensor(RATE, device=named[0][1].device)
    adam: torch.optim.Optimizer = torch.optim.AdamW(
        rest, lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True, capturable=is_graphed
    )
    if not matrices:
        return [adam]
    held = [{"params": matrices, "highest": MATRIX_RATE}]
    muon = torch.optim.Muon(held, lr=MATRIX_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    return [adam, muon]


def train(name: str, device: str, *, batch: int, until: Until, again: bool = False) -> None:
    """Train a denoiser, or go on with it, and write its weights, which say how they were made.

    Args:
        name: of the denoiser.
        device: of torch.
        batch: videos of a step.
        until: how long.
        again: whether a run that is not one that goes on begins with the weights that are there.
    """
    torch.set_float32_matmul_precision("high")
    training = _Training(name, device, batch)
    partial = WEIGHTS / f"{name}.training.pt"
    WEIGHTS.mkdir(exist_ok=True)
    begun, history = 0, ""
    if again and not partial.exists():
        history = training.begin_with(WEIGHTS / f"{name}.safetensors")
    if partial.exists():
        kept = torch.load(partial, map_location=device)
        begun, history = kept["step"], kept["history"]
        training.resume(kept["training"])
    torch.manual_seed(begun)
    training.at_rate(0.0)
    step = graphed(training.step) if device.startswith("cuda") else training.step
    losses: list[Tensor] = []
    start_s, done = time.perf_counter(), begun
    while (share := until.share(done, time.perf_counter() - start_s)) < 1:
        torch.manual_seed(done)
        training.at_rate(min(1.0, (done + 1) / WARM_UP) * cosine(share, LAST))
        losses.append(step())
        training.follow(min(DECAY, (1 + done) / (10 + done)))
        done += 1
        if done % TOLD_EVERY == 0:
            recent = float(torch.stack(losses[-TOLD_EVERY:]).mean())
            rate = (done - begun) / (time.perf_counter() - start_s)
            print(f"{name} {done}, {share:.0%}: loss {recent:.4f}, {rate:.1f} steps/s", flush=True)
            losses.clear()
        if done % SAVED_EVERY == 0:
            told = _told(history, done - begun, batch, device)
            save(partial, {"step": done, "history": told, "training": training.state()})
    told = _told(history, done - begun, batch, device)
    halves = {key: value.half() for key, value in training.average.cpu().state_dict().items()}
    weights = WEIGHTS / f"{name}.safetensors"
    save_file(halves, weights.with_suffix(".new"), {"training": told})
    weights.with_suffix(".new").replace(weights)
    partial.unlink(missing_ok=True)


def _told(history: str, steps: int, batch: int, device: str) -> str:
    return f"{history}{', then ' if history else ''}{steps} steps of {batch} videos on {device}"


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        number = kind(text)
        if not 0 < number < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not above 0 and finite")
        return number

    return read


def main(arguments: Sequence[str]) -> None:
    """Train one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.denoise.train")
    parser.add_argument("denoiser", choices=list(LAYERS))
    parser.add_argument("--steps", type=_positive(int), help="fewer or more of them")
    at_hand = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=at_hand, help=f"of torch ({at_hand})")
    parser.add_argument("--minutes", type=_positive(float), help="for so long instead")
    parser.add_argument("--again", action="store_true", help="begin with the weights there are")
    given = parser.parse_args(arguments)
    steps = given.steps or STEPS[given.denoiser.endswith("small")]
    until = Until(steps=steps, minutes=given.minutes)
    batch = BATCHES[given.device.partition(":")[0]]
    train(given.denoiser, given.device, batch=batch, until=until, again=given.again)


if __name__ == "__main__":
    main(sys.argv[1:])
