# pyright: standard
"""A trained network as the prior of a search."""

from __future__ import annotations

from functools import cache
from weakref import WeakKeyDictionary

import numpy as np
import torch

from weft.parallel.mcts.features import Observer
from weft.parallel.mcts.network import PriorNetwork, graph_of
from weft.parallel.mcts.options import Options, State
from weft.parallel.mcts.simulate import Outcome
from weft.parallel.mcts.sketch import Floats
from weft.parallel.shipped import read_network

__all__ = ["WEIGHTS", "LearnedPrior", "shipped_network"]

WEIGHTS = "prior.pt"
"""Weights that are shipped. Source: `python -m benchmarks.tag.train`."""
_UNIFORM = 0.1
"""Share of the prior that all choices have alike, so that none is ruled out. Chosen."""


class LearnedPrior:
    """Asks a network; the one that is shipped if none is given."""

    def __init__(self, network: PriorNetwork | None = None) -> None:
        self._network = shipped_network() if network is None else network
        self._observers: WeakKeyDictionary[Options, Observer] = WeakKeyDictionary()

    def __call__(
        self, options: Options, state: State, outcome: Outcome, steps: tuple[State, ...]
    ) -> Floats:
        """Probabilities of the next steps; see `weft.parallel.mcts.search.Prior`."""
        observation = self.observer(options).observe(state, outcome, steps)
        with torch.inference_mode():
            shares = self._network(graph_of(observation)).softmax(0).double().numpy()
        return (1.0 - _UNIFORM) * shares + _UNIFORM * np.full(len(steps), 1.0 / len(steps))

    def observer(self, options: Options) -> Observer:
        """The observer of a step on a machine, made once."""
        found = self._observers.get(options)
        if found is None:
            found = self._observers[options] = Observer(options)
        return found


@cache
def shipped_network() -> PriorNetwork:
    """The network that is shipped.

    Raises:
        InputError: its weights are missing from the installation.
    """
    made_by = "python -m benchmarks.tag.train"
    return read_network(PriorNetwork, "weft.parallel.mcts", WEIGHTS, made_by)
