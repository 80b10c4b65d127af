"""Whose turn it is: counters of service, in a tree of payers and the identities below them.

Each node counts the tokens that it was served, divided by its weight. Next comes the node with the
least, and below it likewise. A node that had nothing to do begins again at the least of those that
had: what was not used is not saved up.

With identities alone this is the virtual token counter, which gives every identity that has work to
do an equal share. Whoever turns up as k identities next to n - 1 others then has a share of
k / (k + n - 1). With payers on top, a share belongs to who pays, and splitting up gains nothing.

Source: Sheng et al., Fairness in Serving Large Language Models, arXiv 2401.00588, algorithm 2;
trees of shares as in Bennett and Zhang, IEEE/ACM Transactions on Networking 1997.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from weft.core.errors import InputError

__all__ = ["INPUT_WEIGHT", "OUTPUT_WEIGHT", "Counters"]

INPUT_WEIGHT, OUTPUT_WEIGHT = 1.0, 2.0
"""How much a token counts. Source: arXiv 2401.00588, section 5.1."""


@dataclass(slots=True)
class _Node:
    weight: float = 1.0
    served: float = 0.0
    """Tokens over weight."""
    pending: int = 0
    below: dict[str, _Node] = field(default_factory=dict[str, "_Node"])
    floor: float = 0.0
    """Where a child begins that finds nobody at work."""


class Counters:
    """Counters by path: `(identity,)`, or `(payer, identity)` and deeper.

    Args:
        weights: of paths; one where nothing is said.

    Raises:
        InputError: a weight is not above zero.

    Example:
        >>> turns = Counters({("a",): 3.0})
        >>> served = {"a": 0, "b": 0}
        >>> for name in served:
        ...     turns.arrive((name,))
        >>> for _ in range(400):
        ...     name = turns.next()[0]
        ...     served[name] += 1
        ...     turns.charge((name,), 1.0)
        >>> served
        {'a': 300, 'b': 100}
    """

    def __init__(self, weights: Mapping[tuple[str, ...], float] | None = None) -> None:
        self._weights = dict(weights or {})
        bad = {path: weight for path, weight in self._weights.items() if not weight > 0.0}
        if bad:
            raise InputError(
                need="weights above zero", got=f"{bad}", hint="leave out who is not to be served"
            )
        self._root = _Node()

    def arrive(self, path: tuple[str, ...]) -> None:
        """A request waits."""
        for above, own in self._way(path):
            if own.pending == 0:
                at_work = [other.served for other in above.below.values() if other.pending]
                own.served = max(own.served, min(at_work, default=above.floor))
            own.pending += 1

    def next(self) -> tuple[str, ...]:
        """Whose request comes next.

        Raises:
            InputError: nobody waits.
        """
        node, path = self._root, list[str]()
        while waiting := [(own.served, name) for name, own in node.below.items() if own.pending]:
            path.append(min(waiting)[1])
            node = node.below[path[-1]]
        if not path:
            raise InputError(need="a request that waits", got="none", hint="call arrive for each")
        return tuple(path)

    def start(self, path: tuple[str, ...]) -> None:
        """A request no longer waits: it is served now, or was given up."""
        for above, own in self._way(path):
            own.pending -= 1
            if own.pending == 0:
                above.floor = max(above.floor, own.served)

    def charge(self, path: tuple[str, ...], tokens: float) -> None:
        """Count tokens, each by its weight."""
        for _, own in self._way(path):
            own.served += tokens / own.weight

    def _way(self, path: tuple[str, ...]) -> list[tuple[_Node, _Node]]:
        """Nodes from the top, each with the one above."""
        node, way = self._root, list[tuple[_Node, _Node]]()
        for depth, name in enumerate(path):
            if name not in node.below:
                node.below[name] = _Node(weight=self._weights.get(path[: depth + 1], 1.0))
            way.append((node, node.below[name]))
            node = node.below[name]
        return way
