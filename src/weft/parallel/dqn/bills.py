"""What layers cost at a spot, by what they do there: what episodes about layers are shown."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TypeAlias

from weft.parallel.dqn.spots import Spot
from weft.parallel.runs import Runs
from weft.parallel.way_prices import Prices, cheapest
from weft.parallel.wide import Ways, possible

__all__ = ["OFFERED", "Bill", "Kind"]

OFFERED = 4
"""Ways that are offered for a kind, the cheapest. Chosen: of 16, most are dear by any measure."""

Kind: TypeAlias = tuple[int, ...]
"""Weights of alike layers, by node."""


class Bill:
    """What layers cost at a spot.

    Args:
        runs: layers of a training step.
        spot: where.
    """

    def __init__(self, runs: Runs, spot: Spot) -> None:
        self._runs, self._spot = runs, spot
        self._prices = Prices(runs, spot.machine, spot.mesh)

    @cached_property
    def alone_s(self) -> float:
        """What layers cost that each do what is cheapest for them alone [s]."""
        program = self._runs.program
        best = {
            node: min(
                possible(program, layer, self._spot.mesh),
                key=lambda ways, own=layer: self._prices.seconds(own, ways),
            )
            for node, layer in self._runs.layers.items()
        }
        return self._prices.total(best)

    @cached_property
    def best(self) -> dict[int, Ways]:
        """What is cheapest for all layers together, as far as is known, by their weights."""
        return cheapest(self._runs, self._spot.machine, self._spot.mesh)

    @property
    def plain(self) -> Ways:
        """What a layer does that does nothing of its own."""
        return self._prices.plain

    def offers(self, kind: Kind, others: Mapping[int, Ways]) -> list[tuple[Ways, float]]:
        """What a kind of layers may do, cheapest first, and what that costs beyond the first [s].

        Args:
            kind: of layers.
            others: what all layers do otherwise, by the node of their weights.
        """
        layer = self._runs.layers[kind[0]]
        priced = [
            (ways, self._prices.total({**others, **dict.fromkeys(kind, ways)}))
            for ways in possible(self._runs.program, layer, self._spot.mesh)
        ]
        priced.sort(key=lambda pair: pair[1])
        return [(ways, seconds - priced[0][1]) for ways, seconds in priced[:OFFERED]]

    def kept(self, ways: Mapping[int, Ways]) -> tuple[tuple[int, Ways], ...]:
        """What layers do, ascending by the node of their weights, without what they do anyway."""
        kept = {node: own for node, own in ways.items() if own != self.plain}
        return tuple((node, kept[node]) for node in sorted(kept))
