"""Where the model that does not compute is kept meanwhile.

    between runs       the small model at the idle place, the large one where its pipeline has it
    in its steps       the small one where the large one was
    no more needed     either of them at the idle place, until the run has come to its end

Several runs at once move nothing away, since one may need what the other does not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import nn

from weft.diffusion.denoiser import Denoiser
from weft.diffusion.plan import Model

__all__ = ["DEVICES", "Devices", "Idle"]


class Devices:
    """Where models are."""

    def of(self, module: nn.Module) -> torch.device:
        """Where a model is, by its first parameter."""
        return next(module.parameters()).device

    def move(self, module: nn.Module, device: torch.device) -> None:
        """Bring it elsewhere."""
        module.to(device)


DEVICES = Devices()


class Idle:
    """Moves the models of a pipeline as its steps need them.

    Args:
        large: denoisers of the pipeline.
        small: their small relative, which goes to the idle place at once.
        place: where who does not compute is kept.
        devices: where models are; None for what torch says.
    """

    def __init__(
        self,
        large: Sequence[Denoiser],
        small: Denoiser,
        place: torch.device,
        devices: Devices | None = None,
    ) -> None:
        self._large, self._small, self._place = list(large), small, place
        self._devices = devices = devices or DEVICES
        self._lock = threading.Lock()
        self._away: dict[str, torch.device] = {}
        self._small_home = devices.of(small.module)
        self._put(small.module, place)

    def turn(self, who: Denoiser, is_needed: Callable[[Model], bool]) -> None:
        """Have who computes next in place, and away who is no more needed.

        Args:
            who: computes; a large denoiser or the small one.
            is_needed: whether the run, or another one, may need a model later.
        """
        with self._lock:
            if who is not self._small:
                self._bring_back(who)
                if not is_needed(Model.SMALL):
                    self._put(self._small.module, self._place)
                return
            there = self._home(self._large[0])
            if not is_needed(Model.LARGE):
                for denoiser in self._large:
                    self._put_away(denoiser)
            self._put(self._small.module, there)

    def rest(self, is_free: Callable[[], bool] = lambda: True) -> None:
        """Everything as it is between runs, if none is under way."""
        with self._lock:
            if not is_free():
                return
            self._put(self._small.module, self._place)
            for denoiser in self._large:
                self._bring_back(denoiser)

    def end(self) -> None:
        """Everything where it was before."""
        self.rest()
        with self._lock:
            self._put(self._small.module, self._small_home)

    def _home(self, denoiser: Denoiser) -> torch.device:
        return self._away.get(denoiser.name) or self._devices.of(denoiser.module)

    def _put_away(self, denoiser: Denoiser) -> None:
        if denoiser.name not in self._away:
            self._away[denoiser.name] = self._devices.of(denoiser.module)
            self._put(denoiser.module, self._place)

    def _bring_back(self, denoiser: Denoiser) -> None:
        home = self._away.pop(denoiser.name, None)
        if home is not None:
            self._put(denoiser.module, home)

    def _put(self, module: nn.Module, device: torch.device) -> None:
        if self._devices.of(module) != device:
            self._devices.move(module, device)
