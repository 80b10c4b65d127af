"""What a full run computes, in sketches, so that plans can be judged without running them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weft.diffusion.recording import Recording, as_kept, with_end
from weft.diffusion.request import Streams
from weft.diffusion.sketching import Sketcher

__all__ = ["Watched"]


class Watched:
    """Sketches what a run computes.

    Args:
        sketcher: of tensors.
        ranges: of blocks, which steps are computed without, too.
        guidance: factor of the prompt's influence; 1 without guidance.

    Attributes:
        ranges: as above.
    """

    def __init__(
        self, sketcher: Sketcher, ranges: Sequence[tuple[int, int]], guidance: float
    ) -> None:
        self.ranges = ranges
        self._sketcher, self._given = sketcher, guidance
        self._found: dict[str, dict[int, NDArray[np.float64]]] = defaultdict(dict)
        self._shape = torch.Size()

    @property
    def guidance(self) -> float:
        """1 where there is one output: what is an input of the model multiplies nothing."""
        return self._given if "offset" in self._found else 1.0

    def computed(self, step: int, kind: str, value: Streams) -> None:
        """One more value, see `weft.diffusion.policy.Watcher`."""
        if kind.startswith("without"):
            name, branch = kind.rsplit(" ", 1)
            self._add(name, step, self._guided(branch, value[0]))
            return
        if kind.startswith("small"):
            self._asked(step, kind.removeprefix("small "), value[0])
            return
        if kind == "state":
            if step not in self._found[kind]:
                self._found[kind][step] = self._sketcher(_latents(value[0], self._shape))
            return
        self._shape = value[0].shape
        self._found[kind][step] = self._sketcher(value[0])

    def recording(self, positions: Sequence[float], result: Tensor | None = None) -> Recording:
        """The run; what was not computed in it is zero.

        Args:
            positions: noise level of each step.
            result: latents at its end; None if they are unknown.
        """
        steps = len(positions)
        end = np.full(self._sketcher.numbers, np.nan)
        if result is not None and result.shape == self._shape:
            end = self._sketcher(result)
        return Recording(
            positions=with_end(positions),
            states=np.concatenate([self._stacked("state", steps), as_kept(end)[None]]),
            outputs=self._stacked("output", steps),
            offsets=self._stacked("offset", steps) if "offset" in self._found else None,
            blocks={
                (first, last): as_kept(-self._stacked(f"without {first}-{last}", steps).cumsum(0))
                for first, last in self.ranges
            },
            guidance=self.guidance,
            responses=np.zeros((2, steps)),
            gains=np.ones(steps),
            elements=self._shape.numel() if result is None else result.numel(),
        )

    def small(self, steps: int) -> NDArray[np.float64] | None:
        """Guided outputs of the small model [steps, numbers]; None if it was not asked."""
        if "small cond" not in self._found:
            return None
        own = self._stacked("small cond", steps)
        if "small uncond" not in self._found:
            return own
        return own + (1.0 - self.guidance) * (self._stacked("small uncond", steps) - own)

    def _asked(self, step: int, branch: str, value: Tensor) -> None:
        """What the small model answers; its large one's answer to the same call is known."""
        if len(value) == 2 * self._shape[0]:
            without, value = value.chunk(2)
            self._found["small uncond"][step] = self._sketcher(without)
        name = "uncond" if branch == "uncond" else "cond"
        self._found[f"small {name}"][step] = self._sketcher(value)

    def _guided(self, branch: str, error: Tensor) -> Tensor:
        """What an error of a branch is of the guided output."""
        if branch == "cond_uncond":
            without, own = error.chunk(2) if self.guidance != 1.0 else (error, error)
            return without + self.guidance * (own - without)
        return error * (self.guidance if branch == "cond" else 1.0 - self.guidance)

    def _add(self, name: str, step: int, value: Tensor) -> None:
        own = self._sketcher(value)
        before = self._found[name].get(step)
        self._found[name][step] = own if before is None else before + own

    def _stacked(self, name: str, steps: int) -> NDArray[np.float64]:
        """All steps, as a file keeps them; zeros where nothing was found."""
        found, like = self._found[name], np.zeros(self._sketcher.numbers)
        return as_kept(np.stack([found.get(step, like) for step in range(steps)]))


def _latents(given: Tensor, shape: torch.Size) -> Tensor:
    """What a denoiser denoises, of all that it is given: without a second copy and conditions."""
    found = given[-shape[0] :]
    for dim, size in enumerate(shape[1:], start=1):
        found = found.narrow(dim, 0, min(size, found.shape[dim]))
    return found
