"""What is compared: optimizers of the product, and the filter that each is predicted to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from weft.rl import GAC, Applied, Ema, Previous
from weft.rl.delayed import PLAIN, Lead, applied_factor, mean_factor
from weft.rl.reference import Reference

__all__ = ["ALONE", "HELD", "Contestant", "gac"]

Wrap = Callable[[torch.optim.Optimizer], torch.optim.Optimizer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """An optimizer, and what it is predicted to do to gradients whose cosine stands still.

    Attributes:
        name: for tables.
        wrap: puts it around another optimizer.
        lead: the filter that is predicted.
        beta: decay of the momentum inside.
    """

    name: str
    wrap: Wrap
    lead: Lead = PLAIN
    beta: float = 0.0


def gac(reference: Reference, *, alone: bool = False) -> Wrap:
    """GAC with a reference; `alone` decides for every parameter by itself."""

    def wrap(inner: torch.optim.Optimizer) -> torch.optim.Optimizer:
        return GAC(inner, reference=reference, per="parameter" if alone else "model")

    return wrap


def _bare(inner: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return inner


COUNT = 4
"""Applied gradients that are kept."""
COSINE = 0.5
"""Of one gradient with the next, where it is held.
Measured: 0.45 to 0.54 in asynchronous runs of a small reversal task."""

HELD = (
    Contestant(name="SGD", wrap=_bare),
    Contestant(name="momentum 0.9", wrap=_bare, beta=0.9),
    *(
        Contestant(
            name=f"{name}{', momentum 0.9' if beta else ''}", wrap=wrap, lead=lead, beta=beta
        )
        for beta in (0.0, 0.9)
        for name, wrap, lead in (
            ("GAC, Previous", gac(Previous()), Lead.previous(mean_factor(COSINE))),
            ("GAC, Ema 0.5", gac(Ema(decay=0.5)), Lead.mean(mean_factor(COSINE, 0.5), 0.5)),
            (
                f"GAC, Applied {COUNT}",
                gac(Applied(count=COUNT)),
                Lead.applied(applied_factor(COSINE, COUNT), COUNT),
            ),
        )
    ),
)
"""Runs in which the rest of the gradient holds the cosine at `COSINE`."""

ALONE = (
    Contestant(name="SGD", wrap=_bare),
    Contestant(name="GAC, Previous", wrap=gac(Previous(), alone=True)),
    Contestant(name="GAC, Ema 0.5", wrap=gac(Ema(decay=0.5), alone=True)),
    Contestant(name=f"GAC, Applied {COUNT}", wrap=gac(Applied(count=COUNT), alone=True)),
)
"""Runs in which a quadratic of a few dimensions is all there is."""
