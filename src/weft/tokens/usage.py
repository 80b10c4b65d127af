"""What a call used: a count for each class of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from weft.tokens.classes import INPUT, OUTPUT, TokenClass
from weft.tokens.count import NONE, Count, exactly

__all__ = ["Usage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Counts by class. A class that is left out has no token.

    Attributes:
        counts: of the classes that have any, or may have.

    Example:
        >>> used = Usage.of(fresh=4_000, cache_read=16_000, text=500, reasoning=2_500)
        >>> used.input, used.output
        (20000, 3000)
    """

    counts: Mapping[TokenClass, Count] = field(default_factory=dict[TokenClass, Count])

    def __post_init__(self) -> None:
        some = {leaf: own for leaf, own in self.counts.items() if own != NONE}
        ordered = {leaf: some[leaf] for leaf in TokenClass if leaf in some}
        object.__setattr__(self, "counts", MappingProxyType(ordered))

    @staticmethod
    def of(**counts: int | Count) -> Usage:
        """From names of classes.

        Raises:
            ValueError: there is no such class.
            InputError: a count is negative.
        """
        return Usage(
            counts={
                TokenClass(name): own if isinstance(own, Count) else exactly(own)
                for name, own in counts.items()
            }
        )

    def __getitem__(self, leaf: TokenClass) -> Count:
        return self.counts.get(leaf, NONE)

    def total(self, leaves: Iterable[TokenClass] = TokenClass) -> Count:
        """The sum of some classes."""
        return sum((self[leaf] for leaf in leaves), NONE)

    @property
    def input(self) -> Count:
        """All that was read."""
        return self.total(INPUT)

    @property
    def output(self) -> Count:
        """All that was generated."""
        return self.total(OUTPUT)

    @property
    def is_exact(self) -> bool:
        """Whether every count is known."""
        return all(own.is_exact for own in self.counts.values())

    def __add__(self, other: Usage) -> Usage:
        leaves = {*self.counts, *other.counts}
        return Usage(counts={leaf: self[leaf] + other[leaf] for leaf in leaves})
